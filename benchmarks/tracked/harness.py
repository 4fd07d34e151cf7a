"""The harness: planning, boards, and what a suite's pages show, from invented records."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from .base import Measured, Timed, may_be_absent
from .memory import beyond
from .stores import invented, pinned, write

METHODS = 20  # of a board


class _Planning:
    """Read unit files of recorded cells and compare them with what is asked."""

    version = "1"
    params = ([10_000],)
    param_names = ("cells",)

    def setup(self, cells: int) -> None:
        with may_be_absent():
            from lossboard import records, run
        self.records, self.run = records, run
        self.folder, self.methods, self.cells = store(cells)
        self.plan()

    def plan(self) -> int:
        known, _ = self.records.read_units(Path(self.folder.name))
        return len(self.run.plan(self.cells, self.methods, known).done)


@functools.cache
def store(cells: int):  # type: ignore[no-untyped-def]
    """Unit files of so many cells in a folder that goes with the process, the methods and the cells."""
    with may_be_absent():
        methods, asked = pinned(cells)
        folder = tempfile.TemporaryDirectory()
        write(Path(folder.name), asked)
    return folder, methods, asked


class Planning(Timed, _Planning):
    def time_plan(self, cells: int) -> None:
        self.plan()


class PlanningMemory(Measured, _Planning):
    def track_plan_peak(self, cells: int) -> int:
        return beyond(self.plan)


@functools.cache
def recorded(track: str):  # type: ignore[no-untyped-def]
    """Records of 20 methods on a track."""
    with may_be_absent():
        return list(invented(METHODS, [track]))


class Board(Timed):
    """Rank 20 methods on a track: 4,200 records of quick."""

    version = "1"
    params = (["quick"],)
    param_names = ("track",)

    def setup(self, track: str) -> None:
        with may_be_absent():
            from lossboard import board, protocol
        suite = protocol.load("noisy")
        self.build = functools.partial(board.build, suite, suite.track(track), recorded(track))
        self.build()

    def time_build(self, track: str) -> None:
        self.build()


class Publishing(Timed):
    """What the pages of a suite show of 20 methods: boards, claims, entries, charts that were drawn before."""

    version = "1"
    params = (["quick"],)
    param_names = ("track",)

    def setup(self, track: str) -> None:
        with may_be_absent():
            from lossboard import views
        self.view = functools.partial(views.suite, "noisy", recorded(track))
        self.view()

    def time_view(self, track: str) -> None:
        self.view()

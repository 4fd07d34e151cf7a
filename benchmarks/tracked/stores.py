"""Invented records, for benchmarks of what reads them. Append-only, as all inputs are.

Nothing of the project is imported outside of functions: a commit may lack it.
"""

from __future__ import annotations

import inspect
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossboard.protocol import Block, Cell, Task
    from lossboard.records import Header, Record
    from reference.methods import Method

UNIT = 70  # cells of a unit file


def pinned(count: int) -> tuple[dict[str, Method], list[Cell]]:
    """The noisy suite's quick track with enough seeds for so many cells of one method."""
    from lossboard import protocol
    from reference.methods import Method

    suite = protocol.load("noisy")
    (block,) = suite.track("quick").blocks
    a_seed = len(block.tasks) * len(rates(block, block.tasks[0], "gce"))
    track = replace(suite.track("quick"), blocks=(replace(block, seeds=tuple(range(-(-count // a_seed)))),))
    method = Method("gce", "loss", print, "reference.losses.gce", {"q": 0.7}, {})
    return {"gce": method}, suite.cells(track, {"gce": method})[:count]


def rates(block: Block, task: Task, method: str) -> Sequence[float]:
    """The learning rate of each trial.

    Raises:
        NotImplementedError: the commit is from before budgets knew methods.
    """
    if "method" not in inspect.signature(block.budget.learning_rates).parameters:
        raise NotImplementedError("budgets of this commit know no methods")
    rate: Any = getattr(task, "rate", task.recipe)  # old commits are asked with the recipe
    return block.budget.learning_rates(rate, method)


def write(folder: Path, cells: Sequence[Cell]) -> None:
    """Unit files of these cells as workers write them."""
    from lossboard import records, run
    from lossboard.environment import provenance
    from lossboard.sources import source

    names = {"gce": {"module": "reference.losses.gce", "source": source("reference.losses.gce") or ""}}
    top = {"suite": "noisy", **provenance().header(), "data": {"digits": "0"}}
    metrics = {"last": 0.912345, "val": 0.812345, "best_val": 0.912345, "oracle": 0.923456}
    for part in run.chunks(cells, UNIT):
        rows = [
            records.Record(
                c.method, c.task.name, c.task.id, c.seed, c.trial, c.params, "ok", metrics, 0.0341, "0123456789ab"
            )
            for c in part
        ]
        path = records.unit_path(folder, "noisy", [(cell.key, "s") for cell in part])
        records.write_unit(path, top, names, rows)


def header() -> Header:
    """Provenance of records that are current: their methods borrow the module of cross-entropy."""
    from lossboard.records import Header
    from lossboard.sources import source

    module = "reference.losses.ce"
    return Header(
        suite="noisy",
        module=module,
        source=source(module) or "",
        commit="0" * 40,
        dirty=False,
        env={"python": "3"},
        data={},
        started="2026-01-01T00:00:00Z",
        file="0" * 12,
    )


def invented(methods: int, tracks: Iterable[str]) -> Iterator[Record]:
    """Every cell of these tracks of so many methods; each has its own height and its own luck."""
    from lossboard import protocol

    suite, shared = protocol.load("noisy"), header()
    blocks = [block for name in tracks for block in suite.track(name).blocks]
    for number, block in itertools.product(range(methods), blocks):
        yield from _block(number, block, shared)


def _block(number: int, block: Block, shared: Header) -> Iterator[Record]:
    from lossboard.records import Record

    method, draw = f"invented_{number:03}", random.Random(number)
    height = 0.5 + 0.4 * draw.random()
    for task, seed in itertools.product(block.tasks, block.seeds):
        for trial, rate in enumerate(rates(block, task, method)):
            score = min(1.0, max(0.0, height + draw.gauss(0, 0.02)))
            metrics = {"last": score, "val": score, "ece": draw.random() / 10}
            row = (method, task.name, task.id, seed, trial, {"lr": rate}, "ok", metrics, draw.random())
            yield Record(*row, header=shared)

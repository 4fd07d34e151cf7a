"""What every method did on every task of a track: the rows of a task's page, and what boards show beside a score."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lossboard.board import Board, Row, Score
from lossboard.protocol import Task, Track, suite_module
from lossboard.records import Record
from lossboard.statistics import t_interval

Measures = Mapping[str, Mapping[str, float]]  # method -> what was measured of it, averaged over the tasks of a board


@dataclass(frozen=True)
class Entry:
    """One method on one task of a track. ``seconds`` and ``metrics`` are means over those seeds of the tuned trial that
    have them."""

    method: str
    tuned: Score | None
    default: Score | None
    metrics: Mapping[str, float]
    halves: Mapping[str, float]  # half-widths of their 95 % t intervals; of a metric of one seed there is none
    seconds: float
    files: tuple[str, ...]  # that hold its records
    runs: tuple[tuple[str, str, bool], ...]  # when, commit ('' if not known), local changes; in order of time
    stale: bool


def entries_of(track: Track, tuned: Board, default: Board, own: Sequence[Record]) -> dict[str, tuple[Entry, ...]]:
    """Task -> what every method did on it."""
    cells: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in own:
        cells[record.method, record.id].append(record)
    defaults = {row.method: row.tasks for row in default.rows}
    found = {}
    for task in track.tasks:
        rows = [
            _entry(row, task, defaults.get(row.method, {}).get(task.name), cells[row.method, task.id])
            for row in tuned.rows
            if (row.method, task.id) in cells
        ]
        found[task.name] = tuple(sorted(rows, key=_place))
    return found


def _entry(row: Row, task: Task, default: Score | None, cells: Sequence[Record]) -> Entry:
    tuned = row.tasks.get(task.name)
    chosen = [record for record in cells if tuned and record.trial == tuned.trial]
    done = [record for record in chosen if record.status == "ok"]
    measured: dict[str, list[float]] = defaultdict(list)
    for name, value in (pair for record in done for pair in record.metrics.items()):
        measured[name].append(value)
    metrics = {name: sum(values) / len(values) for name, values in sorted(measured.items())}
    headers = {id(record.header): record.header for record in cells if record.header}
    return Entry(
        method=row.method,
        tuned=tuned,
        default=default,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        halves={name: t_interval(values)[1] for name, values in measured.items() if len(values) > 1},
        seconds=sum(record.seconds for record in chosen) / len(chosen) if chosen else math.nan,
        files=tuple(sorted({header.file for header in headers.values() if header.file})),
        runs=tuple(sorted({(header.started, header.commit or "", header.dirty) for header in headers.values()})),
        stale=row.stale,
    )


def remarks(suite: str, entries: Mapping[str, Sequence[Entry]]) -> dict[str, str]:
    """Method -> what the suite's ``remark`` says of its metrics, and on which tasks; only those that it remarks on."""
    say = getattr(suite_module(suite), "remark", lambda metrics: "")
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for task, own in entries.items():
        for entry in own:
            if words := say(entry.metrics):
                found[entry.method][words].append(task)
    return {
        method: "; ".join(f"{words} ({', '.join(tasks)})" for words, tasks in said.items())
        for method, said in found.items()
    }


def _place(entry: Entry) -> tuple[float, str]:
    return (-entry.tuned.mean if entry.tuned else math.inf, entry.method)


def measures(entries: Mapping[str, Sequence[Entry]], shown: Board) -> dict[str, dict[str, float]]:
    """Method -> means over the tasks of the board of what was measured of its tuned trials, and of ``seconds``.

    Only what every task has; so every number is a mean over the same tasks.
    """
    by_method: dict[str, list[Entry]] = defaultdict(list)
    for each in entries.values():
        for entry in each:
            by_method[entry.method].append(entry)
    found = {}
    for method, own in by_method.items():
        if len(own) < len(shown.tasks):
            continue
        names = set.intersection(*(set(entry.metrics) for entry in own))
        means = {name: sum(entry.metrics[name] for entry in own) / len(own) for name in sorted(names)}
        found[method] = means | {"seconds": sum(entry.seconds for entry in own) / len(own)}
    return found

"""``lossboard compare``: two methods, batches or commits side by side, their scores paired by seed. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lossboard import board, records
from lossboard.board import Row
from lossboard.errors import UsageError
from lossboard.protocol import Suite, Track, nearest
from lossboard.records import Record
from lossboard.scales import SCALES, Scale

MEAN = "mean"  # what the line of all tasks is called
Interval = tuple[float, float]  # mean and half-width, as the suite's scale averages them


@dataclass(frozen=True)
class Line:
    """One task, or the mean of those that both have. Of the same cells, how many have the same bits."""

    task: str
    ours: Interval
    theirs: Interval
    difference: Interval | None
    cells: int
    same_bits: int


@dataclass(frozen=True)
class Comparison:
    """Two rows of what would be a board, with their differences."""

    track: str
    ours: str
    theirs: str
    scale: Scale
    lines: tuple[Line, ...]  # the mean first


def compare(suite: Suite, track: Track, ours: str, theirs: str, found: Sequence[Record]) -> list[Comparison]:
    """What the records say of the two, on a track. Commits are compared method by method.

    Raises:
        UsageError: one of them is no method, batch or commit of these records, or nothing is comparable.
    """
    tasks = {task.id for division in track.divisions for task in division.tasks}
    own = [record for record in found if record.id in tasks]
    left, right = (_named(suite, track, text, own) for text in (ours, theirs))
    pairs = [(a, b) for a in left for b in right if len(left) == len(right) == 1 or a == b]
    if not pairs:
        raise UsageError(f"{ours} and {theirs} have no method in common on track '{track.name}'")
    return [
        one
        for a, b in pairs
        for division in track.divisions
        if (one := _one(suite, division, _label(ours, a), left[a], _label(theirs, b), right[b]))
    ]


def _label(text: str, method: str) -> str:
    return text if text == method else f"{text} {method}"


def _named(suite: Suite, track: Track, text: str, found: Iterable[Record]) -> dict[str, list[Record]]:
    """Method -> records of what is named: those that count of a method, all of a batch or commit."""
    found = list(found)
    if text.startswith("commit:"):
        wanted = text.removeprefix("commit:")
        if not re.fullmatch("[0-9a-f]{4,40}", wanted):
            raise UsageError(f"'{text}': commit: and at least 4 hex digits")
        chosen = [r for r in found if r.header and (r.header.commit or "").startswith(wanted)]
    else:
        chosen = [r for r in found if r.header and r.header.file == text]
    if not chosen:
        chosen = [r for r in found if r.method == text]
        current = board.currency(suite)
        chosen = list(records.resolve(chosen, current).values())
    if not chosen:
        known = sorted({record.method for record in found})
        raise UsageError(f"no record of '{text}' on track '{track.name}'; {nearest(text, known)}")
    groups: dict[str, list[Record]] = {}
    for record in chosen:
        groups.setdefault(record.method, []).append(record)
    return groups


def _one(
    suite: Suite, division: Track, ours: str, left: Sequence[Record], theirs: str, right: Sequence[Record]
) -> Comparison | None:
    a, b = _row(suite, division, left), _row(suite, division, right)
    if a is None or b is None:
        return None
    lines = []
    for task in division.tasks:
        if task.name in a.tasks and task.name in b.tasks:
            x, y = a.tasks[task.name], b.tasks[task.name]
            same = _same([r for r in left if r.id == task.id], [r for r in right if r.id == task.id])
            lines.append(Line(task.name, (x.mean, x.half), (y.mean, y.half), board.paired(x, y), *same))
    if not lines:
        return None
    first = Line(
        MEAN,
        (sum(line.ours[0] for line in lines) / len(lines), math.nan),
        (sum(line.theirs[0] for line in lines) / len(lines), math.nan),
        board.difference(a, b, division.tasks),
        sum(line.cells for line in lines),
        sum(line.same_bits for line in lines),
    )
    return Comparison(division.title, ours, theirs, SCALES[suite.metrics.scale], (first, *lines))


def _row(suite: Suite, division: Track, found: Sequence[Record]) -> Row | None:
    rows = board.build(suite, division, found).rows
    return rows[0] if rows else None


def _same(left: Sequence[Record], right: Sequence[Record]) -> tuple[int, int]:
    """How many cells both have, and how many of them with the same bits; of different methods none."""
    known = {record.key: record.bits for record in right}
    pairs = [(record.bits, known[record.key]) for record in left if record.key in known]
    return len(pairs), sum(bool(a) and a == b for a, b in pairs)


def as_json(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """For programs: scores and differences as the scale averages them; numbers that do not exist are null."""
    return [
        {"track": each.track, "ours": each.ours, "theirs": each.theirs, "scale": each.scale.name}
        | {"lines": [_line(line) for line in each.lines]}
        for each in found
    ]


def _line(line: Line) -> dict[str, Any]:
    numbers = {"ours": line.ours, "theirs": line.theirs, "difference": line.difference}
    shown = {key: None if pair is None else [_or_null(x) for x in pair] for key, pair in numbers.items()}
    return {"task": line.task, **shown, "cells": line.cells, "same_bits": line.same_bits}


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None

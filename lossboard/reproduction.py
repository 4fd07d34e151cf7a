"""``lossboard reproduce``: published cells measured again from what their records say, and how the two compare.

A cell is *bitwise* the same where the trained parameters have the same hash and every metric the same six digits;
*within tolerance* where the metric that ranks differs by no more than the suite's tolerance; else it *differs*. What is
not as it was when the record was made (processor, versions, the method's source) is named: it may be why.

A reproduction that is kept is a line of ``results/reproductions/<suite>/<hash>.jsonl``, below a line of provenance:
written once and named by its content, as batches are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lossboard import paths, records
from lossboard.environment import Provenance
from lossboard.errors import UsageError
from lossboard.pools import Pool, WorkerDied
from lossboard.protocol import Cell, Suite, Unit
from lossboard.records import MEASURED, BadFile, Record, plain
from lossboard.run import measured
from lossboard.sources import source

BITWISE, WITHIN, DIFFERS = "bitwise", "within tolerance", "differs"
VERDICTS = (BITWISE, WITHIN, DIFFERS)
FOLDER = "reproductions"  # of results/
SCHEMA = 1


@dataclass(frozen=True)
class Reproduction:
    """A published record and what measuring its cell again gave."""

    record: Record
    again: Record
    verdict: str
    largest: float  # of the differences of metrics that both have; nan where there is none
    metric: str  # the one that differs most; '' where none does
    reasons: tuple[str, ...]  # what is not as it was


def reproduce(
    suite: Suite, found: Sequence[Record], provenance: Provenance, pool: Pool, jobs: int
) -> Iterator[Reproduction]:
    """Measure the cells of these records again, each alone in its unit.

    Raises:
        UsageError: a record is of a task that the suite no longer pins.
    """
    cells = [_cell(suite, record) for record in found]
    theirs = dict(zip((cell.key for cell in cells), found, strict=True))
    try:
        for again in pool(functools.partial(_again, suite.name), cells, jobs):
            yield compared(suite, theirs[again.key], again, provenance.env)
    except WorkerDied as death:
        raise UsageError(f"a worker process died ({death}); reproduce fewer cells at a time, with --sample") from death


def _cell(suite: Suite, record: Record) -> Cell:
    task = suite.tasks.get(record.id)
    if task is None:
        raise UsageError(
            f"{record.task} of this record has the id {record.id}, which suite '{suite.name}' no longer pins; "
            f"git checkout {record.header.commit if record.header else ''} and reproduce it there"
        )
    return Cell(record.method, task, record.seed, record.trial, MappingProxyType(dict(record.params)))


def _again(suite: str, cell: Cell) -> Record:
    (found,) = measured(suite, Unit((cell,), 0.0))
    return found


def compared(suite: Suite, record: Record, again: Record, env: Mapping[str, str]) -> Reproduction:
    """The verdict on one cell, measured again in this environment."""
    reasons = tuple(_reasons(record, env))
    if record.status != again.status:
        said = f"{record.status} then, {again.status} now{': ' + again.error if again.error else ''}"
        return Reproduction(record, again, DIFFERS, math.nan, "", (said, *reasons))
    off = {key: _difference(record.metrics[key], again.metrics.get(key, math.nan)) for key in record.metrics}
    metric = max(off, key=lambda key: (off[key] if not math.isnan(off[key]) else math.inf, key), default="")
    largest = off.get(metric, math.nan)
    if record.bits == again.bits and not any(off.values()):
        return Reproduction(record, again, BITWISE, 0.0, "", reasons)
    near = off.get(suite.metrics.rank, 0.0) <= suite.metrics.tolerance
    return Reproduction(record, again, WITHIN if near else DIFFERS, largest, metric if largest else "", reasons)


def _difference(then: float, now: float) -> float:
    """Of two values as records show them; 0 where both are the same, not a number included."""
    if plain(then) == plain(now):
        return 0.0
    return abs(then - now)


def _reasons(record: Record, env: Mapping[str, str]) -> Iterator[str]:
    header = record.header
    assert header
    if source(header.module) != header.source:
        yield f"the source of {record.method} has changed since {(header.commit or 'an unknown commit')[:12]}"
    if header.dirty:
        yield "the record was made with uncommitted changes"
    for key in sorted(header.env.keys() | env.keys()):
        then, now = header.env.get(key, "unknown"), env.get(key, "unknown")
        if then != now:
            yield f"{key}: {then} then, {now} now"


# -- which -------------------------------------------------------------------------------------------------------------


def drawn(found: Sequence[Record], count: int, entropy: int | None) -> list[Record]:
    """So many of these, each method as likely as another; all where there are fewer."""
    chance = random.Random(entropy)
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(record.method, []).append(record)
    for group in groups.values():
        chance.shuffle(group)
    chosen: list[Record] = []
    while groups and len(chosen) < count:
        method = chance.choice(sorted(groups))
        chosen.append(groups[method].pop())
        if not groups[method]:
            del groups[method]
    return chosen


def reproducible(
    suite: Suite, found: Iterable[Record], methods: Iterable[str], current: Callable[[Record], bool]
) -> list[Record]:
    """The record that counts of each cell, of methods that are here and tasks that are pinned."""
    known = set(methods)
    own = [record for record in found if record.method in known and record.id in suite.tasks]
    best = records.resolve(own, current).values()
    return [record for record in best if record.status in MEASURED]


# -- what is kept ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A line of a kept file: which record was reproduced, when, and what came of it."""

    method: str
    batch: str
    task: str
    seed: int
    trial: int
    verdict: str
    day: str
    cpu: str


def keep(suite: Suite, found: Sequence[Reproduction], provenance: Provenance) -> Path:
    """Write reproductions of one run under ``results/``, to be committed; returns the file."""
    header = {"schema": SCHEMA, "kind": "reproduction", "suite": suite.name, **provenance.header()}
    rows = [
        {
            "method": r.record.method,
            "batch": r.record.header.file if r.record.header else "",
            "task": r.record.task,
            "id": r.record.id,
            "seed": r.record.seed,
            "trial": r.record.trial,
            "verdict": r.verdict,
            "metric": r.metric,
            "largest": plain(r.largest),
        }
        for r in sorted(found, key=lambda r: r.record.key)
    ]
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=True) + "\n" for line in (header, *rows))
    folder = paths.results() / FOLDER / suite.name
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    records.write_atomically(path, text)
    return path


def read(suite: str) -> tuple[list[Kept], list[str]]:
    """Every kept reproduction of a suite, and a message for each bad file."""
    found: list[Kept] = []
    problems = []
    for path in sorted((paths.results() / FOLDER / suite).glob("*.jsonl")):
        try:
            found += _read(path, suite)
        except (BadFile, KeyError, TypeError, ValueError) as error:
            problems.append(str(error) if isinstance(error, BadFile) else f"{path}: {error!r}")
    return found, problems


def _read(path: Path, suite: str) -> list[Kept]:
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if content != path.stem:
        raise BadFile(f"{path}: the content hashes to {content}; such a file is never edited. Restore it")
    top, *rows = records.lines(path)
    if (top["schema"], top["kind"], top["suite"]) != (SCHEMA, "reproduction", suite):
        raise BadFile(f"{path}: no reproductions of suite '{suite}', schema {SCHEMA}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", top["started"], re.ASCII):
        raise BadFile(f"{path}: 'started' must be a time such as 2026-01-31T12:00:00Z")
    day, cpu = top["started"][:10], str(top["env"].get("cpu", "unknown"))[:200]
    return [_kept(path, row, day, cpu) for row in rows]


def _kept(path: Path, row: Mapping[str, Any], day: str, cpu: str) -> Kept:
    texts, numbers = [row[key] for key in ("method", "batch", "task", "verdict")], [row["seed"], row["trial"]]
    if not all(type(text) is str and len(text) <= 200 for text in texts) or row["verdict"] not in VERDICTS:
        raise BadFile(f"{path}: a row has texts method, batch, task, and a verdict: {', '.join(VERDICTS)}")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise BadFile(f"{path}: 'seed' and 'trial' must be whole numbers >= 0")
    return Kept(row["method"], row["batch"], row["task"], row["seed"], row["trial"], row["verdict"], day, cpu)

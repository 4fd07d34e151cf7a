"""``lossboard why``: where a cell stands, and which records say so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lossboard import paths, protocol, records
from lossboard.board import currency
from lossboard.errors import UsageError
from lossboard.records import MEASURED, Key, Record
from reference.methods import select

FORM = "suite/method/dataset/corruption[/seed[/trial]]"


@dataclass(frozen=True)
class Place:
    """What the name of a cell, or of all cells of a method on a task, says."""

    suite: protocol.Suite
    method: str
    tasks: tuple[protocol.Task, ...]  # of this name: tracks may pin it differently
    seed: int | None
    trial: int | None

    def holds(self, key: Key) -> bool:
        """Whether a cell is among those that are named."""
        method, id, seed, trial = key
        return (
            method == self.method
            and any(task.id == id for task in self.tasks)
            and self.seed in (None, seed)
            and self.trial in (None, trial)
        )


def place(cell: str) -> Place:
    """What a name such as noisy/gce/digits/uniform-0.3/0/0 means.

    Raises:
        UsageError: it is not of the form, or names no suite or task.
    """
    parts = cell.split("/")
    if not 4 <= len(parts) <= 6 or not all(re.fullmatch("[0-9]+", part) for part in parts[4:]):
        raise UsageError(f"'{cell}': a cell is {FORM}, e.g. noisy/gce/digits/uniform-0.3/0/0")
    suite = protocol.load(parts[0])
    name = "/".join(parts[2:4])
    tasks = [task for task in suite.tasks.values() if task.name == name]
    if not tasks:
        near = protocol.nearest(name, [task.name for task in suite.tasks.values()])
        raise UsageError(f"no task '{name}' in suite '{suite.name}'; {near}")
    seed, trial = [*map(int, parts[4:]), None, None][:2]
    return Place(suite, parts[1], tuple(tasks), seed, trial)


def why(cell: str) -> Iterator[str]:
    """Lines that explain a cell, or the cells of a task: what is known of it, and what counts.

    Raises:
        UsageError: the name is not of the form, or names no suite or task.
    """
    named = place(cell)
    suite, method = named.suite, named.method
    for task in named.tasks:
        what = ", ".join(["data", *task.parts] if task.dataset else ["kind", *task.parts])
        yield f"task {task.name}, id {task.id} (hash of suite, version, {what})"
        known = _known(suite.name, method, task.id)
        keys = sorted({(record.key, _machine(record)) for record, _ in known})
        shown = [(key, machine) for key, machine in keys if named.holds(key)]
        for where in shown:
            yield from _cell([pair for pair in known if (pair[0].key, _machine(pair[0])) == where], currency(suite))
        if not shown:
            _check(suite, method, known)
            yield f"missing: no such record of {method}; lossboard run {suite.name} --only {method}"


def _machine(record: Record) -> str:
    return record.header.machine if record.header else ""


def _check(suite: protocol.Suite, method: str, known: list[tuple[Record, str]]) -> None:
    """That a method without records exists; importing the catalogue takes a second or two."""
    from lossboard.run import suite_methods

    if not known:
        select(suite_methods(suite), [method])


def _known(suite: str, method: str, task: str) -> list[tuple[Record, str]]:
    """Every record of a method on a task with the place it stands, retracted ones too."""
    gone = records.retracted(paths.results())
    found = [(r, "this machine") for r in records.read_units(paths.units(suite))[0]]
    for path in sorted((paths.results() / suite / method).glob("*.jsonl")):
        place = f"retracted: {gone[path.stem]}" if path.stem in gone else "published"
        found += [(r, place) for r in records.read_batch(path).records]
    return [(r, place) for r, place in found if r.method == method and r.id == task]


def _cell(known: list[tuple[Record, str]], current: Callable[[Record], bool]) -> Iterator[str]:
    """A line for each record of one cell; the first is the one that counts."""
    valid = [record for record, place in known if not place.startswith("retracted")]
    chosen = next(iter(records.resolve(valid, current).values()), None)
    first, _ = known[0]
    yield f"seed {first.seed}, trial {first.trial}{', on ' + _machine(first) if _machine(first) else ''}:"
    for record, place in sorted(known, key=lambda pair: pair[0] is not chosen):
        header = record.header
        assert header
        state = "counts" if record is chosen else "superseded"
        if place.startswith("retracted"):
            state = "does not count"
        verdict = _verdict(record) if current(record) else "stale, the method's source or the trial has changed"
        tree = "uncommitted changes" if header.dirty else "clean tree"
        origin = f"{header.file}, {header.started}, {(header.commit or 'no commit')[:12]}, {tree}"
        yield f"  {verdict} ({state}; {place}): {origin}, params {dict(record.params)}"


def _verdict(record: Record) -> str:
    if record.status in MEASURED:
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in record.metrics.items())
        return f"done, {record.status}{': ' if numbers else ''}{numbers}"
    return f"failed, {record.status}: {record.error}"

"""``lossboard why``: where a cell stands, and which records say so."""

from __future__ import annotations

from collections.abc import Iterator

from lossboard import paths, protocol, records
from lossboard.board import is_stale
from lossboard.errors import UsageError
from lossboard.records import MEASURED, Record
from lossboard.sources import source

FORM = "suite/method/dataset/corruption[/seed[/trial]]"


def why(cell: str) -> Iterator[str]:
    """Lines that explain a cell, or the cells of a task: what is known of it, and what counts.

    Raises:
        UsageError: the name is not of the form, or names no suite or task.
    """
    parts = cell.split("/")
    if not 4 <= len(parts) <= 6 or not all(part.isdigit() for part in parts[4:]):
        raise UsageError(f"'{cell}': a cell is {FORM}, e.g. noisy/gce/digits/uniform-0.3/0/0")
    suite = protocol.load(parts[0])
    name = "/".join(parts[2:4])
    tasks = [task for task in suite.tasks.values() if task.name == name]
    if not tasks:
        near = protocol.nearest(name, [task.name for task in suite.tasks.values()])
        raise UsageError(f"no task '{name}' in suite '{suite.name}'; {near}")
    seed, trial = [*map(int, parts[4:]), None, None][:2]
    for task in tasks:
        yield f"task {task.name}, id {task.id} (hash of suite, version, data, corruption, split, model, recipe)"
        known = _known(suite.name, parts[1], task.id)
        for key in sorted({record.key for record, _ in known}):
            if (seed is None or key[2] == seed) and (trial is None or key[3] == trial):
                yield from _cell([(record, place) for record, place in known if record.key == key])
        if not known:
            yield f"missing: no record of {parts[1]} on this task; lossboard run {suite.name} --only {parts[1]}"


def _known(suite: str, method: str, task: str) -> list[tuple[Record, str]]:
    """Every record of a method on a task with the place it stands, retracted ones too."""
    gone = records.retracted(paths.results())
    found = [(r, "this machine") for r in records.read_units(paths.units(suite))[0]]
    for path in sorted((paths.results() / suite / method).glob("*.jsonl")):
        place = f"retracted: {gone[path.stem]}" if path.stem in gone else "published"
        found += [(r, place) for r in records.read_batch(path).records]
    return [(r, place) for r, place in found if r.method == method and r.id == task]


def _cell(known: list[tuple[Record, str]]) -> Iterator[str]:
    """A line for each record of one cell; the first is the one that counts."""
    valid = [record for record, place in known if not place.startswith("retracted")]
    current = {r.header.module: source(r.header.module) for r in valid if r.header}
    chosen = next(iter(records.resolve(valid, current).values()), None)
    first, _ = known[0]
    yield f"seed {first.seed}, trial {first.trial}:"
    for record, place in sorted(known, key=lambda pair: pair[0] is not chosen):
        header = record.header
        assert header
        state = "counts" if record is chosen else "superseded"
        if place.startswith("retracted"):
            state = "does not count"
        verdict = "stale, the method's source has changed" if is_stale(record) else _verdict(record)
        tree = "uncommitted changes" if header.dirty else "clean tree"
        commit = (header.commit or "no commit")[:12]
        origin = f"{header.file}, {header.started}, {commit}, {tree}"
        yield f"  {verdict} ({state}; {place}): {origin}, params {dict(record.params)}"


def _verdict(record: Record) -> str:
    if record.status in MEASURED:
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in record.metrics.items())
        return f"done, {record.status}{': ' if numbers else ''}{numbers}"
    return f"failed, {record.status}: {record.error}"

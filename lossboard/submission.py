"""Publishing: this machine's records of a track sealed into batches, one file for each method and environment."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lossboard import inspection, paths, records
from lossboard.board import currency
from lossboard.environment import provenance
from lossboard.errors import CheckFailed
from lossboard.protocol import Suite, Track
from lossboard.records import Record
from lossboard.sources import source
from reference.methods import Method


@dataclass(frozen=True)
class Sealed:
    """A batch that was written."""

    path: Path
    cells: int
    failed: int


def submit(
    suite: Suite, track: Track, methods: Mapping[str, Method], local: Iterable[Record], whole: bool = False
) -> Iterator[Sealed]:
    """Seal what is current, of this track and not published yet; the control comes first.

    ``whole`` leaves out tasks of which a seed or trial is missing: another night measures them.

    Raises:
        CheckFailed: no clean commit to name, no control, nothing to publish, or what would be published was retracted.
    """
    if provenance().commit is None:
        raise CheckFailed("submit needs git: a batch names the commit it was measured at. Clone and run there")
    fresh = _fresh(suite, track, methods, local)
    if whole:
        fresh = _whole(suite, methods, fresh)
    if not fresh and whole:
        return
    if not fresh:
        raise CheckFailed(
            f"nothing to publish: no current record of {suite.name} {track.name} here that is not published already"
        )
    again = f"measure again with --only {','.join(sorted({*methods, *_controls(suite, methods)}))} --fresh"
    if any(r.header.commit is None for r in fresh if r.header):
        raise CheckFailed(f"some records were measured without git (no commit): {again}, in a clone")
    if any(r.header.dirty for r in fresh if r.header):
        raise CheckFailed(f"some records were measured with uncommitted changes: commit them and {again}")
    yield from _seal(suite, fresh, {method.id: suite.controls[method.kind] for method in methods.values()})


def _controls(suite: Suite, methods: Mapping[str, Method]) -> set[str]:
    return {suite.controls[method.kind] for method in methods.values()}


def _fresh(suite: Suite, track: Track, methods: Mapping[str, Method], local: Iterable[Record]) -> list[Record]:
    """Current local records of a track without a published result, or for failures without any published record."""
    wanted = {task.id for task in track.tasks}
    known: dict[tuple[object, ...], bool] = {}
    for r in records.read_results(paths.results(), suite.name)[0]:
        assert r.header
        key = (*r.key, records.conditions(r.header), r.header.source, tuple(sorted(r.params.items())))
        known[key] = known.get(key, False) or r.status in records.MEASURED
    current = currency(suite)
    found = []
    for r in local:
        if r.method in methods and r.id in wanted and r.header and current(r):
            key = (*r.key, records.conditions(r.header), r.header.source, tuple(sorted(r.params.items())))
            if key not in known or (not known[key] and r.status in records.MEASURED):
                found.append(r)
    return found


def _whole(suite: Suite, methods: Mapping[str, Method], fresh: list[Record]) -> list[Record]:
    """Those of methods and tasks that are whole with what is published of the same source and environment."""

    def home(record: Record) -> tuple[str, ...]:
        assert record.header
        return (record.method, record.id, record.header.source, json.dumps(dict(record.header.env)))

    rows: dict[tuple[str, ...], dict[tuple[int, int], Record]] = defaultdict(dict)
    for record in (*records.read_results(paths.results(), suite.name)[0], *fresh):
        rows[home(record)][record.seed, record.trial] = record
    complete = {
        key
        for key in {home(record) for record in fresh}
        if not inspection.lacking(suite, methods[key[0]], suite.tasks[key[1]], rows[key])
    }
    return [record for record in fresh if home(record) in complete]


def _seal(suite: Suite, fresh: list[Record], control_of: Mapping[str, str]) -> Iterator[Sealed]:
    gone = records.retracted(paths.results())
    groups = records.by_run(_once(fresh))
    sealed: dict[tuple[str, str], str] = {}  # control and run -> its batch
    for (method, _), group in sorted(groups.items(), key=lambda item: (item[0][0] != control_of[item[0][0]], item[0])):
        assert group[0].header
        beside, run = control_of[method], records.conditions(group[0].header)
        control = None
        if method != beside:
            control = sealed.get((beside, run)) or _published_control(suite, beside, group[0].header)
            if control is None:
                raise CheckFailed(
                    f"no record of {beside}, the control, from the same run as {method}: "
                    f"run with --only {beside},{method}, and submit both"
                )
        there = set((paths.results() / suite.name / method).glob("*.jsonl"))
        path = records.seal(paths.results(), method, group, control)
        if path.stem in gone:
            if path not in there:  # a retracted batch stays where it is
                path.unlink()
            raise CheckFailed(f"{path.stem} was retracted ({gone[path.stem]}): measure again with --fresh")
        if method == beside:
            sealed[beside, run] = path.stem
        yield Sealed(path, len(group), sum(record.status not in records.MEASURED for record in group))


def _published_control(suite: Suite, control: str, header: records.Header) -> str | None:
    """The control's published batch of the same run; else one of this environment with the control's source of now.

    The second lets a long track be measured and published in pieces, method by method.
    """
    alike = None
    for path in sorted((paths.results() / suite.name / control).glob("*.jsonl")):
        known = records.read_batch(path).header
        if records.conditions(known) == records.conditions(header):
            return path.stem
        if known.env == header.env and not known.dirty and source(known.module) == known.source:
            alike = path.stem
    return alike


def _once(found: Iterable[Record]) -> list[Record]:
    """One record a cell and environment: two runs at once may have measured a cell twice."""
    kept: dict[tuple[object, ...], Record] = {}
    for record in found:
        assert record.header
        key = (*record.key, records.conditions(record.header))
        if key not in kept or (kept[key].status not in records.MEASURED and record.status in records.MEASURED):
            kept[key] = record
    return list(kept.values())

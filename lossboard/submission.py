"""Publishing: this machine's records of a track sealed into batches, one file for each method and environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lossboard import paths, records
from lossboard.environment import provenance
from lossboard.errors import CheckFailed
from lossboard.protocol import Suite, Track
from lossboard.records import Record
from lossboard.sources import source
from reference.methods import Method


def submit(
    suite: Suite, track: Track, methods: Mapping[str, Method], local: Iterable[Record]
) -> Iterator[tuple[Path, int]]:
    """Seal what is not published yet; yields each batch's path and number of cells. The control comes first.

    Raises:
        CheckFailed: no git commit to name, or nothing to publish.
    """
    if provenance().commit is None:
        raise CheckFailed(
            "submit needs git: a batch names the commit it was measured at. Clone the repository and run there"
        )
    wanted = {task.id for task in track.tasks}
    published = {
        (*r.key, records.conditions(r.header)) for r in records.read_results(paths.results(), suite.name)[0] if r.header
    }
    sources = {method.module: source(method.module) for method in methods.values()}
    fresh = [
        r
        for r in local
        if r.method in methods
        and r.id in wanted
        and r.header
        and sources[methods[r.method].module] == r.header.source
        and (*r.key, records.conditions(r.header)) not in published
    ]
    if not fresh:
        raise CheckFailed(
            f"nothing to publish: no current local record of {suite.name} {track.name} that is not published already"
        )
    if any(r.header.commit is None for r in fresh if r.header):
        raise CheckFailed("some records were measured without git (no commit): measure again with --fresh in a clone")
    yield from _seal(suite, fresh)


def _seal(suite: Suite, fresh: list[Record]) -> Iterator[tuple[Path, int]]:
    groups = records.by_run(_once(fresh))
    controls: dict[str, str] = {}
    for (method, _), group in sorted(groups.items(), key=lambda item: (item[0][0] != suite.control, item[0])):
        assert group[0].header
        run = records.conditions(group[0].header)
        control = controls.get(run) or _published_control(suite, run)
        path = records.seal(paths.results(), method, group, None if method == suite.control else control)
        if method == suite.control:
            controls[run] = path.stem
        yield path, len(group)


def _published_control(suite: Suite, run: str) -> str | None:
    """The control's batch of the same run, if it is published already."""
    for path in sorted((paths.results() / suite.name / suite.control).glob("*.jsonl")):
        if records.conditions(records.read_batch(path).header) == run:
            return path.stem
    return None


def _once(found: Iterable[Record]) -> list[Record]:
    """One record a cell and environment: two runs at once may have measured a cell twice."""
    kept: dict[tuple[object, ...], Record] = {}
    for record in found:
        assert record.header
        key = (*record.key, records.conditions(record.header))
        if key not in kept or (kept[key].status not in records.MEASURED and record.status in records.MEASURED):
            kept[key] = record
    return list(kept.values())

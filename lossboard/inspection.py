"""``lossboard inspect``: published records held to what they must be, before anybody believes them.

What a batch that came with a pull request can be checked for without running it: that it is in the canonical form and
named by its content, of a method, tasks, data and source of this checkout, made from a clean tree, with all seeds and
trials of the blocks that it is of, values that can be, and a control of the same run which agrees with what is
published of it. That the numbers are true, ``lossboard reproduce`` says.
"""

from __future__ import annotations

import itertools
import math
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lossboard import board, paths, protocol, records, reproduced, statistics
from lossboard.errors import UsageError
from lossboard.protocol import Block, Suite, Task
from lossboard.records import BadFile, Batch, Record, plain
from lossboard.scales import SCALES
from lossboard.sources import source
from reference.methods import Method, MethodError, UnknownMethod, find

SHOWN = 3  # faults of one kind that are spelled out


def added_since(revision: str) -> tuple[list[Path], list[str]]:
    """Batches that were added since a revision; and what else was done to ``results/``, which must not be.

    Raises:
        UsageError: git cannot say.
    """
    command = ["git", "diff", "--name-status", "--no-renames", f"{revision}...HEAD", "--", "results"]
    try:
        lines = subprocess.run(
            command, cwd=paths.root(), capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"git cannot compare with '{revision}': {getattr(error, 'stderr', error)}") from error
    found, faults = [], []
    for status, name in (line.split("\t", 1) for line in lines):
        path = paths.root() / name
        if path.parts[len(paths.results().parts)] in ("retracted", reproduced.FOLDER, "asv"):
            continue
        if status != "A":
            faults.append(
                f"{name}: published records are never {'deleted' if status == 'D' else 'edited'}; retract them"
            )
        elif path.suffix == ".jsonl":
            found.append(path)
        else:
            faults.append(f"{name}: results/ holds batches alone, <suite>/<method>/<12 hex digits>.jsonl")
    return found, faults


def inspect(path: Path, among: Iterable[Path] = ()) -> list[str]:
    """What is wrong with a batch; nothing where it may be published. ``among`` are batches handed in with it."""
    if path.is_symlink() or not path.is_file():
        return [f"{path}: no plain file"]
    try:
        batch = records.read_batch(path)
        suite = protocol.load(batch.suite)
    except (BadFile, UsageError) as error:
        return [str(error)]
    new = {each.stem for each in among} | {path.stem}
    return [f"{path.name}: {fault}" for fault in _faults(suite, batch, new)]


def _faults(suite: Suite, batch: Batch, new: set[str]) -> Iterator[str]:
    if records.canonical(batch).encode() != batch.path.read_bytes():
        yield "not in the canonical form (sorted rows, fixed key order, 6 digits); seal it with lossboard submit"
    yield from _provenance(suite, batch)
    method = _method(suite, batch.method)
    if method is None:
        yield f"no method '{batch.method}' here; add its file"
        return
    if (method.module, source(method.module)) != (batch.header.module, batch.header.source):
        yield f"made with another source of '{batch.method}' than the one here: measure again with --fresh"
    yield from _tasks(suite, batch)
    yield from _first(_blocks(suite, batch, method))
    yield from _first(_values(suite, batch))
    yield from _control(suite, batch, method, new)


def _first(faults: Iterator[str]) -> Iterator[str]:
    found = list(faults)
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        yield f"and {len(found) - SHOWN} more of this kind"


def _method(suite: Suite, id: str) -> Method | None:
    from lossboard.run import suite_methods

    methods = suite_methods(suite)
    try:
        return methods.get(id) or find(methods, id)
    except (UnknownMethod, MethodError):
        return None


def _provenance(suite: Suite, batch: Batch) -> Iterator[str]:
    from lossboard.data import pins

    header = batch.header
    if header.dirty or header.commit is None:
        yield "made from a tree with uncommitted changes, or without git: commit, and measure again with --fresh"
    wanted = {suite.tasks[r.id].dataset for r in batch.records if r.id in suite.tasks} - {""}
    for name in sorted(wanted):
        if name in pins() and header.data.get(name) != pins()[name].digest:
            theirs = header.data.get(name, "none")
            yield f"made with other data: {name} has the hash {theirs}, {pins()[name].digest} is pinned"


def _tasks(suite: Suite, batch: Batch) -> Iterator[str]:
    unknown = sorted({r.task for r in batch.records if r.id not in suite.tasks})
    if unknown:
        yield f"tasks that the suite does not pin: {', '.join(unknown[:SHOWN])} ({len(unknown)} in all)"
    for r in batch.records:
        if r.id in suite.tasks and r.task != suite.tasks[r.id].name:
            yield f"{r.task} has the id of {suite.tasks[r.id].name}"
            return


def _blocks(suite: Suite, batch: Batch, method: Method) -> Iterator[str]:
    """Each task with all seeds and trials of a block that it is in, here or in batches of the same source before."""
    rows: dict[str, dict[tuple[int, int], Record]] = defaultdict(dict)
    for r in itertools.chain(_before(batch), batch.records):
        rows[r.id][r.seed, r.trial] = r
    for id in dict.fromkeys(r.id for r in batch.records):
        found = rows[id]
        if id not in suite.tasks:
            continue
        lacks = lacking(suite, method, suite.tasks[id], found)
        if lacks:
            yield f"{suite.tasks[id].name}: {lacks}"


def lacking(suite: Suite, method: Method, task: Task, found: Mapping[tuple[int, int], Record]) -> str:
    """What keeps these rows, by seed and trial, from being a whole block of some track; '' where nothing does."""
    lacks = [_lacking(found, block, task, method) for block in _of_task(suite, task, method)]
    return min(lacks, key=len) if lacks else f"'{method.id}' does not enter it"


def _before(batch: Batch) -> Iterator[Record]:
    """What else is published of the method, made with the same source."""
    for path in sorted(batch.path.parent.glob("*.jsonl")):
        try:
            other = records.read_batch(path)
        except (BadFile, OSError):
            continue
        if other.header.source == batch.header.source and other.header.env == batch.header.env:
            yield from other.records


def _of_task(suite: Suite, task: Task, method: Method) -> Iterator[Block]:
    for track in suite.tracks.values():
        if not track.methods or method.id in track.methods:
            yield from (b for b in track.blocks if task in b.tasks and b.kind == method.kind)


def _lacking(found: Mapping[tuple[int, int], Record], block: Block, task: Task, method: Method) -> str:
    """What keeps these rows from being a whole block; '' where nothing does."""
    trials = [{key: plain(value) for key, value in params.items()} for params in block.budget.of(method, task.rate)]
    wanted = {(seed, trial) for seed in block.seeds for trial in range(len(trials))}
    if missing := sorted(wanted - found.keys()):
        return f"seeds and trials are missing, such as {missing[0]}: a block is published whole"
    for (seed, trial), r in found.items():
        if trial < len(trials) and r.params != trials[trial]:
            return f"seed {seed}, trial {trial} has params {dict(r.params)}, the budget says {trials[trial]}"
    return ""


def _values(suite: Suite, batch: Batch) -> Iterator[str]:
    scale = SCALES[suite.metrics.scale]
    for r in batch.records:
        where = f"{r.task}, seed {r.seed}, trial {r.trial}"
        if unknown := sorted(name for name in r.metrics if not suite.metrics.known(name)):
            yield f"{where}: no metric '{unknown[0]}' in this suite"
        if r.seconds < 0:
            yield f"{where}: took {r.seconds} seconds"
        if r.status != "ok":
            continue
        for name in {suite.metrics.rank, suite.metrics.select}:
            value = r.metrics.get(name, math.nan)
            if not math.isfinite(value) or (scale.name != "ratio" and not 0 <= value <= 1) or value < 0:
                yield f"{where}: {name} = {value}"


def _control(suite: Suite, batch: Batch, method: Method, new: set[str]) -> Iterator[str]:
    """The control of the same run, and that it is what is published of it."""
    control = suite.controls.get(method.kind, suite.control)
    folder = paths.results() / suite.name / control
    beside = batch
    if batch.method != control:
        path = folder / f"{batch.control}.jsonl"
        if batch.control is None or not records.is_batch_name(batch.control) or not path.is_file():
            both = f"{control},{method.id}"
            yield f"no batch of the control, {control}, that it names: run and submit both with --only {both}"
            return
        try:
            beside = records.read_batch(path)
        except BadFile as error:
            yield str(error)
            return
        if beside.header.env != batch.header.env:
            yield f"its control, {batch.control}, was measured in another environment"
    yield from _first(_apart(suite, beside, folder, new))


def _apart(suite: Suite, beside: Batch, folder: Path, new: set[str]) -> Iterator[str]:
    """Tasks on which the control is not what the published records say, beyond their interval and the tolerance."""
    if suite.alone:  # a ratio to itself
        return
    known: list[Record] = []
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem not in new and path.stem != beside.path.stem:
            try:
                known += records.read_batch(path).records
            except (BadFile, OSError):
                continue
    theirs = records.resolve(known, board.currency(suite))
    groups: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for r in beside.records:
        if r.key in theirs:
            values = [board.value(each, suite.metrics.rank) for each in (r, theirs[r.key])]
            groups[r.task, r.trial].append((values[0], values[1]))
    for (task, trial), pairs in sorted(groups.items()):
        ours, other = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        _, half = statistics.t_interval([value for _, value in pairs])
        allowed = max(half if math.isfinite(half) else 0.0, suite.metrics.tolerance)
        if abs(ours - other) > allowed:
            yield (
                f"the control is off on {task}, trial {trial}: {suite.metrics.rank} {ours:.4g}, "
                f"published {other:.4g} ± {allowed:.2g}"
            )

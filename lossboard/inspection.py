"""``lossboard inspect``: published records held to what they must be, before anybody believes them.

What a batch that came with a pull request can be checked for without running it: that it is in the canonical form and
named by its content, of a method, tasks, data and source of this checkout, made from a clean tree at a commit of its
history, with all seeds and trials of the blocks that it is of and no others, values that can be, none copied, and a
control of the same run which agrees with what is published of it. That the numbers are true, ``lossboard reproduce``
says.
"""

from __future__ import annotations

import functools
import glob
import itertools
import math
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lossboard import board, paths, protocol, records, reproduced, statistics
from lossboard.environment import KEYS, OF_MACHINE
from lossboard.errors import UsageError
from lossboard.protocol import Block, Suite, Task
from lossboard.records import BadFile, Batch, Record, plain
from lossboard.scales import SCALES
from lossboard.sources import source
from reference.methods import Method, MethodError, UnknownMethod, find

SHOWN = 3  # faults of one kind that are spelled out
COPIED = 3  # rows that are another's to the last digit of the time that they took
WRONG_CLOCKS = timedelta(days=1)


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
        path, (_, *parts) = paths.root() / name, Path(name).parts
        if parts[:1] == ["asv"]:
            continue
        if status != "A":
            faults.append(
                f"{name}: published records are never {'deleted' if status == 'D' else 'edited'}; retract them"
            )
        elif parts[:1] == [reproduced.FOLDER]:
            faults += _reproductions(path)
        elif parts[:1] == ["retracted"]:
            if path.suffix == ".toml" and not any(paths.results().glob(f"*/*/{glob.escape(path.stem)}.jsonl")):
                faults.append(f"{name}: no such batch is published")
        elif len(parts) == 3 and path.suffix == ".jsonl":
            found.append(path)
        else:
            faults.append(f"{name}: results/ holds batches alone, <suite>/<method>/<12 hex digits>.jsonl")
    return found, faults


def _reproductions(path: Path) -> list[str]:
    """What is wrong with a file of what was reproduced."""
    try:
        kept = reproduced.read_file(path)
    except BadFile as error:
        return [str(error)]
    gone = [
        each
        for each in kept
        if not (paths.results() / path.parent.name / each.method / f"{each.batch}.jsonl").is_file()
    ]
    return [f"{path}: {gone[0].method}/{gone[0].batch} is no published batch"] if gone else []


def inspect(path: Path, among: Iterable[Path] = ()) -> list[str]:
    """What is wrong with a batch; nothing where it may be published. ``among`` are batches handed in with it."""
    if path.is_symlink() or not path.is_file():
        return [_printable(f"{path}: no plain file")]
    try:
        batch = records.read_batch(path)
        suite = protocol.load(batch.suite)
    except (BadFile, UsageError) as error:
        return [_printable(str(error))]
    new = {each.stem for each in among} | {path.stem}
    return [_printable(f"{path.name}: {fault}") for fault in _faults(suite, batch, new)]


def _printable(text: str) -> str:
    """Without what a terminal, or the log of a workflow, would obey."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


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
    yield from _first(_beyond(suite, batch, method))
    yield from _copied(batch)
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
    elif _committed("HEAD") is None:
        pass  # an archive has no history
    elif (made := _committed(header.commit)) is None:
        yield f"made at {header.commit[:12]}, no commit of this branch: add it, or measure again with --fresh"
    elif _time(header.started) < made - WRONG_CLOCKS:
        yield f"started at {header.started}, before its commit was made"
    if _time(header.started) > datetime.now(UTC) + WRONG_CLOCKS:
        yield f"started at {header.started}, which is still to come"
    yield from _environment(suite, header)
    wanted = {suite.tasks[r.id].dataset for r in batch.records if r.id in suite.tasks} - {""}
    if unknown := sorted(header.data.keys() - pins().keys()):
        yield f"made with data that are not pinned here: {unknown[0][:40]}"
    for name in sorted(wanted):
        if name in pins() and header.data.get(name) != pins()[name].digest:
            theirs = header.data.get(name, "none")
            yield f"made with other data: {name} has the hash {theirs}, {pins()[name].digest} is pinned"


def _time(text: str) -> datetime:
    """Of a header; one that is on no calendar is the first there is."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


@functools.cache
def _committed(commit: str) -> datetime | None:
    """When a commit of this branch was made; None where it has no such commit."""

    def git(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *args], cwd=paths.root(), capture_output=True, text=True)

    try:
        if git("merge-base", "--is-ancestor", commit, "HEAD").returncode:
            return None
        return datetime.fromtimestamp(int(git("show", "--no-patch", "--format=%ct", commit).stdout), UTC)
    except (OSError, ValueError):
        return None


def _environment(suite: Suite, header: records.Header) -> Iterator[str]:
    if unknown := sorted(header.env.keys() - {*KEYS, *(OF_MACHINE if suite.alone else ())}):
        yield f"an environment has no '{unknown[0][:40]}'"
    if absent := [name for name in ("python", "torch", "cpu", *["machine"] * suite.alone) if name not in header.env]:
        yield f"its environment lacks {', '.join(absent)}"


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


def _beyond(suite: Suite, batch: Batch, method: Method) -> Iterator[str]:
    """Rows that no track asks of the method: other seeds, trials or hyperparameters."""
    asked: dict[str, list[tuple[Sequence[int], list[dict[str, float | str]]]]] = {}
    for id in {r.id for r in batch.records} & suite.tasks.keys():
        blocks = _of_task(suite, suite.tasks[id], method)
        asked[id] = [(block.seeds, _trials(block, suite.tasks[id], method)) for block in blocks]
    for r in batch.records:
        if r.id in asked and not any(
            r.seed in seeds and trials[r.trial : r.trial + 1] == [r.params] for seeds, trials in asked[r.id]
        ):
            yield f"{r.task}: no track asks for seed {r.seed}, trial {r.trial} with params {dict(r.params)}"


def _copied(batch: Batch) -> Iterator[str]:
    """Batches with the same rows, of other methods or retracted: no two runs take the same time to six digits."""
    ours, gone = _prints(batch.path), _retracted()
    for path in sorted(batch.path.parent.parent.glob("*/*.jsonl")):
        same = len(ours & _prints(path))
        if same >= COPIED and (path.stem in gone or path.parent != batch.path.parent) and path.stem != batch.path.stem:
            of = "which was retracted" if path.stem in gone else f"of {path.parent.name}"
            yield f"{same} rows are those of {path.stem}, {of}, to the last digit of the time that they took"


@functools.cache
def _prints(path: Path) -> frozenset[int]:
    """A number for what each row of a batch says, the time that it took included, but for the method."""
    return frozenset(
        hash((r.id, r.seed, r.trial, r.status, r.bits, r.seconds, *sorted(r.metrics.items())))
        for r in _records(path)
        if r.seconds
    )


def _records(path: Path) -> tuple[Record, ...]:
    """Those of a batch; none of one that cannot be read."""
    try:
        return records.read_batch(path).records
    except (BadFile, OSError):
        return ()


def _retracted() -> set[str]:
    return set(records.retracted(paths.results()))


def _before(batch: Batch) -> Iterator[Record]:
    """What else is published of the method, made with the same source."""
    gone = _retracted()
    for path in sorted(batch.path.parent.glob("*.jsonl")):
        for r in _records(path) if path.stem not in gone else ():
            if r.header and (r.header.source, r.header.env) == (batch.header.source, batch.header.env):
                yield r


def _of_task(suite: Suite, task: Task, method: Method) -> Iterator[Block]:
    for track in suite.tracks.values():
        if not track.methods or method.id in track.methods:
            yield from (b for b in track.blocks if task in b.tasks and b.kind == method.kind)


def _lacking(found: Mapping[tuple[int, int], Record], block: Block, task: Task, method: Method) -> str:
    """What keeps these rows from being a whole block; '' where nothing does."""
    trials = _trials(block, task, method)
    wanted = {(seed, trial) for seed in block.seeds for trial in range(len(trials))}
    if missing := sorted(wanted - found.keys()):
        return f"seeds and trials are missing, such as {missing[0]}: a block is published whole"
    for (seed, trial), r in found.items():
        if trial < len(trials) and r.params != trials[trial]:
            return f"seed {seed}, trial {trial} has params {dict(r.params)}, the budget says {trials[trial]}"
    return ""


def _trials(block: Block, task: Task, method: Method) -> list[dict[str, float | str]]:
    """The hyperparameters of each trial, as records show them."""
    return [{key: plain(value) for key, value in params.items()} for params in block.budget.of(method, task.rate)]


def _values(suite: Suite, batch: Batch) -> Iterator[str]:
    scale = SCALES[suite.metrics.scale]
    for r in batch.records:
        where = f"{r.task}, seed {r.seed}, trial {r.trial}"
        if unknown := sorted(name for name in r.metrics if not suite.metrics.known(name)):
            yield f"{where}: no metric '{unknown[0]}' in this suite"
        if not 0 <= r.seconds < math.inf:
            yield f"{where}: took {r.seconds} seconds"
        if not re.fullmatch("([0-9a-f]{12})?", r.bits):
            yield f"{where}: bits are 12 hex digits"
        if not re.sub(r"\s", " ", r.error, flags=re.ASCII).isprintable():
            yield f"{where}: the error has signs that cannot be shown"
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
    if batch.method == control:
        if batch.control is not None:
            yield "the control has no control"
    else:
        path = folder / f"{batch.control}.jsonl"
        if batch.control is None or not records.is_batch_name(batch.control) or not path.is_file():
            both = f"{control},{method.id}"
            yield f"no batch of the control, {control}, that it names: run and submit both with --only {both}"
            return
        if batch.control in _retracted():
            yield f"its control, {batch.control}, was retracted: measure both again with --fresh"
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
    others = {path.stem: path for path in folder.glob("*.jsonl")}
    chosen = sorted(others.keys() - new - {beside.path.stem} - _retracted())
    known = [r for name in chosen for r in _records(others[name])]
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

"""Cells -> units -> records: plan what this machine has not done with this code, run it, plan again until it is done.

Kills, two runs at once, lost workers and resuming are one mechanism: a worker writes each finished unit to its own
file under a lock, and a run plans anew from the files. A unit whose worker died is tried again alone, three times in
all, so that it cannot take others down with it; then it is halved, as a unit that raises is, until the guilty cell is
alone.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lossboard import paths, records
from lossboard.environment import Provenance, machine_name, provenance
from lossboard.errors import CheckFailed, LossboardError, UsageError
from lossboard.pools import Pool, WorkerDied
from lossboard.protocol import Cell, Suite, Unit, nearest, suite_module
from lossboard.records import MEASURED, Key, Record
from lossboard.sources import source
from reference.methods import Method, MethodError, catalogue, select

ATTEMPTS = 3
LOST = 30  # workers of a run, from which on units that kill them are not halved any more


@dataclass(frozen=True)
class Context:
    """What a suite's ``run`` may use besides its unit."""

    methods: Mapping[str, Method]
    data: Callable[[str], Any]  # dataset name -> Dataset, verified


# -- suites and methods by discovery ---------------------------------------------------------------


def suite_methods(suite: Suite) -> Mapping[str, Method]:
    """What the suite compares: the catalogues of its kinds, or its own ``methods`` where the module has them.

    Raises:
        UsageError: a track or a budget of the suite names a method that is not among them.
    """
    own = getattr(suite_module(suite.name), "methods", None)
    if own is None:
        own = {id: method for kind in suite.kinds for id, method in catalogue(kind).items()}
    methods: Mapping[str, Method] = own() if callable(own) else own
    for track in suite.tracks.values():
        settings = {id for block in track.blocks for id in block.budget.settings}
        entered = {id for block in track.blocks for id in block.methods}
        for id in sorted({*track.methods, *entered, *settings} - methods.keys()):
            raise UsageError(f"suite '{suite.name}', track '{track.name}': no method '{id}'; {nearest(id, methods)}")
    return methods


# -- planning --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Where the cells of a run stand."""

    done: dict[Key, Record]
    stale: list[Cell]  # measured with another source, or other hyperparameters
    failed: list[Cell]  # error, out of memory, timeout: tried again
    missing: list[Cell]

    @property
    def todo(self) -> list[Cell]:
        return [*self.missing, *self.stale, *self.failed]


def plan(cells: Sequence[Cell], methods: Mapping[str, Method], known: Iterable[Record], machine: str = "") -> Plan:
    """Compare what is asked with what is known (of a machine, where records depend on it)."""
    sources = {key: source(method.module) for key, method in methods.items()}
    asked = {cell.key: cell for cell in cells}
    rounded: dict[int, dict[str, Any]] = {}  # trials share one params object

    def current(record: Record) -> bool:
        params = asked[record.key].params
        if id(params) not in rounded:
            rounded[id(params)] = {key: records.plain(value) for key, value in params.items()}
        made = record.header.source if record.header else None
        return made == sources[record.method] and record.params == rounded[id(params)]

    here = records.of_machine(known, machine)
    best = records.resolve((record for record in here if record.key in asked), current)
    result = Plan({}, [], [], [])
    for cell in cells:
        record = best.get(cell.key)
        if record is None:
            result.missing.append(cell)
        elif not current(record):
            result.stale.append(cell)
        elif record.status in MEASURED:
            result.done[cell.key] = record
        else:
            result.failed.append(cell)
    return result


# -- running ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A unit on its way to a worker."""

    suite: str
    unit: Unit
    path: Path
    provenance: Provenance
    sources: Mapping[str, str]  # of the unit's methods, when it was planned
    planned: float  # a file written since then is another run's
    host: str  # that planned it
    error: str = ""  # not empty: write this failure for every cell instead of measuring


@dataclass
class Summary:
    """What a run did."""

    cells: int = 0
    seconds: float = 0.0


def execute(
    suite: Suite,
    cells: Sequence[Cell],
    *,
    methods: Mapping[str, Method],
    provenance: Provenance,
    pool: Pool,
    jobs: int,
    report: Callable[[float, list[Record]], None] = lambda cost, done: None,
) -> Summary:
    """Measure every cell that this machine has no current record of.

    ``report`` is called with the cost and the records of each unit as it finishes.

    Raises:
        LossboardError: data cannot be loaded, records cannot be written, or workers die before they begin.
    """
    folder = paths.units(suite.name)
    tried: set[Key] = set()
    deaths: Counter[Key] = Counter()  # of workers that had the cell in their unit
    lost = 0
    summary = Summary()
    start = time.perf_counter()
    barren = 0
    while True:
        machine = machine_name(provenance.env)
        todo = plan(cells, methods, records.read_units(folder)[0], machine).todo
        units = _jobs(suite, [cell for cell in todo if cell.key not in tried], methods, provenance, folder)
        if not units:
            break
        begun = time.time()
        suspect = next((job for job in units if _deaths(job, deaths)), None)
        batch, size = (units, jobs) if suspect is None else ([_alone(suspect, deaths, lost < LOST)], 1)
        progressed = False
        jobs_of = {cell.key: job for job in batch for cell in job.unit.cells}
        try:
            for job_cost, done, made in pool(perform, batch, size):
                if done is None:  # another run is at this unit
                    time.sleep(0.05)
                    continue
                progressed = True
                job = jobs_of[done[0].key]
                if not job.path.exists():  # a worker wrote it on its own disk
                    _write(job, methods, made, done)
                if batch[0].error:  # its company is not guilty of that
                    deaths = Counter({key: min(count, ATTEMPTS - 1) for key, count in deaths.items()})
                tried |= {record.key for record in done}
                summary.cells += len(done)
                report(job_cost, done)
        except WorkerDied as death:
            lost_with = [
                job for job in batch if _left_locked(job.path, begun) or any(job is each for each in death.items)
            ]
            guilty = [cell.key for job in lost_with for cell in job.unit.cells]
            deaths.update(guilty)
            lost += bool(guilty)
            barren = 0 if progressed or guilty else barren + 1
            if barren >= ATTEMPTS:
                raise LossboardError(f"worker processes die before they begin: {death}") from death
        if not progressed:
            time.sleep(0.2)
    summary.seconds = time.perf_counter() - start
    return summary


def _deaths(job: Job, deaths: Mapping[Key, int]) -> int:
    return max(deaths[cell.key] for cell in job.unit.cells)


def _alone(job: Job, deaths: Mapping[Key, int], halves: bool) -> Job:
    """What is tried next of a unit whose workers died: all of it, then half of what died last, at last a failure."""
    count = _deaths(job, deaths)
    if count < ATTEMPTS:
        return job
    suspects = tuple(cell for cell in job.unit.cells if deaths[cell.key] == count) if halves else job.unit.cells
    failed = f"the worker process died {count} times (out of memory?)" if len(suspects) == 1 or not halves else ""
    part = suspects if failed else suspects[: -(-len(suspects) // 2)]
    return _cut(replace(job, error=failed), part)


def _cut(job: Job, cells: tuple[Cell, ...]) -> Job:
    """The part of a job with these cells."""
    sources = {cell.method: job.sources[cell.method] for cell in cells}
    keys = [(cell.key, sources[cell.method] or "") for cell in cells]
    path = records.unit_path(job.path.parent, job.suite, keys, machine_name(job.provenance.env))
    return replace(job, unit=Unit(cells, job.unit.cost * len(cells) / len(job.unit.cells)), path=path, sources=sources)


def _jobs(
    suite: Suite, cells: Sequence[Cell], methods: Mapping[str, Method], provenance: Provenance, folder: Path
) -> list[Job]:
    """The units of these cells, largest first."""
    found, planned = [], time.time()
    for unit in suite_module(suite.name).group(cells):
        made = {cell.method: source(methods[cell.method].module) or "" for cell in unit.cells}
        keys = [(cell.key, made[cell.method]) for cell in unit.cells]
        path = records.unit_path(folder, suite.name, keys, machine_name(provenance.env))
        found.append(Job(suite.name, unit, path, provenance, made, planned, socket.gethostname()))
    return sorted(found, key=lambda job: -job.unit.cost)


def _lock(path: Path) -> Path:
    return path.parent / "locks" / f"{path.stem}.lock"


def _left_locked(path: Path, since: float) -> bool:
    """Whether a worker of this run took the unit and did not end in order."""
    try:
        return _lock(path).stat().st_mtime >= since - 1 and not path.exists()
    except FileNotFoundError:
        return False


def perform(job: Job) -> tuple[float, list[Record] | None, Provenance]:
    """In a worker: measure one unit and write its file. No records when another run holds it or has written it.

    The provenance is what the records say: of this machine, wherever the unit was planned.
    """
    job = _here(job)
    lock = _lock(job.path)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, blocking=False):
            written = job.path.exists() and job.path.stat().st_mtime >= job.planned
            done = None if written else _perform(job)
            lock.unlink(missing_ok=True)
            return job.unit.cost, done, job.provenance
    except Timeout:
        return job.unit.cost, None, job.provenance
    except OSError as error:
        raise records.StoreError(f"cannot lock {lock}: {error.strerror}. Make room and run again") from error


def _here(job: Job) -> Job:
    """The job as this machine does it: another one has its own environment, and its own place for units.

    Raises:
        CheckFailed: the checkout of another machine is at another commit.
    """
    if job.host == socket.gethostname():
        return job
    here = _provenance()
    if (here.commit, here.dirty) != (job.provenance.commit, job.provenance.dirty):
        theirs, ours = (f"{each.commit}{' and changes' * each.dirty}" for each in (job.provenance, here))
        raise CheckFailed(
            f"{socket.gethostname()} has {ours}, {job.host} planned with {theirs}: check out the same commit"
        )
    provenance = replace(job.provenance, env=here.env)
    return replace(job, path=paths.units(job.suite) / job.path.name, provenance=provenance)


_provenance = functools.cache(provenance)  # of a worker's life


def _perform(job: Job) -> list[Record]:
    lock = _lock(job.path)
    lock.write_text(str(os.getpid()))  # its time says that a worker began
    from lossboard.data import load

    context = Context(select(suite_methods(_suite(job.suite)), list(job.sources)), load)
    _unchanged(job, context.methods)
    done = _failures(job.unit, "error", job.error) if job.error else list(_measure(job.suite, job.unit, context))
    _write(job, context.methods, job.provenance, done)
    return done


def _write(job: Job, methods: Mapping[str, Method], provenance: Provenance, done: Sequence[Record]) -> None:
    """The file of a unit."""
    from lossboard.data import pins

    names = {key: {"module": methods[key].module, "source": made} for key, made in sorted(job.sources.items())}
    data = {name: pins()[name].digest for name in sorted({cell.task.dataset for cell in job.unit.cells} - {""})}
    records.write_unit(job.path, {"suite": job.suite, **provenance.header(), "data": data}, names, done)


def _unchanged(job: Job, methods: Mapping[str, Method]) -> None:
    """This process measures what it imported: that must be what was planned, and what the records will say.

    ``source`` remembers the file as it was at this process's first unit, when its methods were imported.
    """
    for key, made in job.sources.items():
        if source(methods[key].module) != made:
            raise CheckFailed(
                f"the source of '{key}' changed while the run was at work; run again to measure the new one"
            )


@functools.cache
def _suite(name: str) -> Suite:
    from lossboard.protocol import load

    return load(name)


def measured(suite: str, unit: Unit) -> list[Record]:
    """In a worker: a unit's records, kept nowhere."""
    from lossboard.data import load

    return list(_measure(suite, unit, Context(select(suite_methods(_suite(suite)), _methods(unit)), load)))


def _methods(unit: Unit) -> list[str]:
    return list(dict.fromkeys(cell.method for cell in unit.cells))


def _measure(suite: str, unit: Unit, context: Context) -> Iterator[Record]:
    """The unit's records; a unit that raises is halved until the guilty cell is alone."""
    cells = unit.cells
    try:
        found = {record.key: record for record in suite_module(suite).run(unit, context)}
        absent = [cell for cell in cells if cell.key not in found]
        yield from found.values()
        yield from _failures(Unit(tuple(absent), 0), "error", "the suite gave no record for this cell")
    except LossboardError:  # data or disk: no cell is guilty
        raise
    except Exception as error:
        if len(cells) == 1 or isinstance(error, MethodError):
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            yield from _failures(unit, _status(error), f"{type(error).__name__}: {error} ({where})")
        else:
            half = len(cells) // 2
            for part in (cells[:half], cells[half:]):
                yield from _measure(suite, Unit(part, 0), context)


def _status(error: BaseException) -> str:
    names = {kind.__name__ for kind in type(error).__mro__}
    memory = names & {"MemoryError", "OutOfMemoryError"} or "can't allocate memory" in str(error)
    return "oom" if memory else "error"


def recorded(cell: Cell, status: str, metrics: Mapping[str, float], **more: Any) -> Record:
    """What a cell gave, as a record; ``more`` are its ``seconds``, ``bits`` and ``error``."""
    place = (cell.method, cell.task.name, cell.task.id, cell.seed, cell.trial)
    return Record(*place, dict(cell.params), status, metrics, **more)


def _failures(unit: Unit, status: str, message: str) -> list[Record]:
    return [recorded(cell, status, {}, error=message) for cell in unit.cells]


def chunks(cells: Sequence[Cell], size: int) -> Iterator[tuple[Cell, ...]]:
    """Consecutive cells in groups of at most ``size``, as even as can be."""
    count = -(-len(cells) // size)
    edges = [round(i * len(cells) / count) for i in range(count + 1)]
    return (tuple(cells[a:b]) for a, b in itertools.pairwise(edges))

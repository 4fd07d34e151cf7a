"""The command line: list, new, check, plan, run, why, board, compare, claims, reproduce, submit, inspect, export,
publish, nightly, review, data.

Exit codes: 0 fine, 1 a check failed, 2 usage, 3 could not measure, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossboard import paths, protocol, records, show
from lossboard.errors import CheckFailed, LossboardError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from lossboard.board import Board
    from lossboard.data import Status
    from lossboard.pools import Pool
    from lossboard.records import Record
    from lossboard.reproduced import Reproduction
    from reference.methods import Method

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Datasets: where they stand, fetch them, verify their content.")
app.add_typer(data_app, name="data")

SuiteName = Annotated[str, typer.Argument(help="The suite, e.g. noisy.")]
TrackName = Annotated[str, typer.Option("--track", help="How far: quick, cpu, ...")]
Only = Annotated[str | None, typer.Option("--only", help="Method ids, separated by commas.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Seeds, separated by commas.")]
Tasks = Annotated[str | None, typer.Option("--tasks", help="Tasks, or datasets for all of theirs, by commas.")]
Shard = Annotated[
    str | None, typer.Option("--shard", help="One of several shares of the cells: 2/8 is the second of 8.")
]
INTERRUPTED = 130
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def main() -> None:
    """Run the command line; every expected error is one message and an exit code."""
    from reference.methods import MethodError, UnknownMethod

    paths.importable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign shows another
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        raise SystemExit(code or 0)
    except (KeyboardInterrupt, typer.Abort):
        show.fail("stopped; what was finished is kept, and the same command goes on from there", INTERRUPTED)
    except UnknownMethod as error:
        show.fail(str(error.args[0]), 2)
    except MethodError as error:
        show.fail(str(error), 1)
    except LossboardError as error:
        show.fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(0) from None
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            show.fail(error.format_message() or "no command; lossboard --help lists them", 2)
        raise


# -- list ------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="losses, methods, suites, tasks or datasets.")] = "losses",
    as_json: AsJson = False,
) -> None:
    """List losses, methods of every suite, suites, tasks or datasets."""
    listings = {"losses": _losses, "methods": _methods, "suites": _suites, "tasks": _tasks, "datasets": _datasets}
    if what not in listings:
        raise UsageError(f"cannot list '{what}'; {protocol.nearest(what, listings)}")
    rows = listings[what]()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        name, *rest = row.values()
        show.console.print(show.bold(name), "  ".join(_short(value) for value in rest), soft_wrap=True)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _losses() -> list[dict[str, object]]:
    from lossboard.sources import source
    from reference.methods import catalogue

    return [
        {
            "id": m.id,
            "defaults": dict(m.defaults),
            "search": {key: [r.low, r.high, "log" if r.log else "uniform"] for key, r in m.search.items()},
            "flags": [flag for flag in ("symmetric", "bounded", "batchwise") if getattr(m, flag)]
            + [f"needs {name}" for name in m.supplied]
            + list(m.tags),
            "paper": m.citation,
            "module": m.module,
            "source": source(m.module),
        }
        for m in catalogue("loss").values()
    ]


def _methods() -> list[dict[str, object]]:
    from lossboard.run import suite_methods

    loaded = [protocol.load(name) for name in protocol.available()]
    return [
        {"id": m.id, "suite": suite.name, "kind": m.kind, "module": m.module, "tags": list(m.tags)}
        for suite in loaded
        for m in suite_methods(suite).values()
    ]


def _suites() -> list[dict[str, object]]:
    loaded = [protocol.load(name) for name in protocol.available()]
    return [
        {"id": s.name, "question": s.question, "tracks": {t.name: t.summary for t in s.tracks.values()}} for s in loaded
    ]


def _tasks() -> list[dict[str, object]]:
    loaded = [protocol.load(name) for name in protocol.available()]
    return [
        {"id": task.id, "suite": suite.name, "track": track.name, "task": task.name}
        for suite in loaded
        for track in suite.tracks.values()
        for task in track.tasks
    ]


def _datasets() -> list[dict[str, object]]:
    from lossboard.data import pins

    return [
        {"id": pin.name, "kind": pin.kind, "classes": pin.classes, "rows": dict(pin.splits), "digest": pin.digest}
        for pin in pins().values()
    ]


# -- plan, run, why --------------------------------------------------------------------------------


def _selection(suite: protocol.Suite, only: str | None) -> dict[str, Method]:
    from lossboard.run import suite_methods
    from reference.methods import select

    return select(suite_methods(suite), [part.strip() for part in only.split(",")] if only else None)


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--seeds {text}: whole numbers separated by commas, such as 0,1,2") from None


def _of_tasks(text: str | None, tasks: Iterable[str]) -> Callable[[str], bool]:
    """Whether a task is asked for, named whole (letter/clean) or by its dataset (letter)."""
    if text is None:
        return lambda task: True
    wanted = {part.strip() for part in text.split(",")}
    known = {name: None for task in tasks for name in (task.split("/")[0], task)}
    for name in sorted(wanted - known.keys()):
        raise UsageError(f"--tasks: no task or dataset '{name}' here; {protocol.nearest(name, known)}")
    return lambda task: bool(wanted & {task, task.split("/")[0]})


def _local(suite: str) -> list[Record]:
    """What this machine measured; damaged files are named and count as missing."""
    found, problems = records.read_units(paths.units(suite))
    for problem in problems:
        show.warn(f"{problem}; its cells count as missing")
    return found


def _published(suite: str) -> list[Record]:
    found, problems = records.read_results(paths.results(), suite)
    for problem in problems:
        show.warn(f"{problem}; left out")
    return found


# -- a new method ----------------------------------------------------------------------------------


@app.command()
def new(
    kind: Annotated[
        str, typer.Argument(help="loss, correction, calibrator, multilabel, longtail, attack, defence, compressor.")
    ],
    id: Annotated[str, typer.Argument(help="Its id, e.g. my_loss: the name of the file and of the function.")],
) -> None:
    """Write the one file of a new method, in the form that its kind has."""
    from lossboard.scaffold import new as written
    from lossboard.scaffold import next_commands

    path = written(kind, id)
    show.console.print(f"{path.relative_to(paths.root())}: fill in citation, formula and function", soft_wrap=True)
    show.console.print(f"then: {'; '.join(next_commands(kind, id))}", soft_wrap=True)


@app.command()
def check(
    id: Annotated[str, typer.Argument(help="A method of any kind, or a kernel, e.g. my_loss, softmax.two_pass.")],
    contract: Annotated[bool, typer.Option(help="Run the tests of its contract first.")] = True,
) -> None:
    """Hold a method to the contract of its kind; of a loss, print its fidelity card: what it computes, in numbers."""
    import subprocess

    from lossboard.scaffold import contract as files
    from lossboard.scaffold import of_kernel
    from reference.methods import PACKAGES, catalogue, select

    operation, dot, implementation = id.partition(".")
    if dot:
        asked = ["-q", "--no-header", "-p", "no:xdist", *of_kernel(operation, implementation)]
        if subprocess.run([sys.executable, "-m", "pytest", *asked], cwd=paths.root()).returncode:
            raise CheckFailed(f"'{id}' is not what the operation is: the first failure above says how")
        show.console.print(f"'{id}' is what reference/ops/{operation}.py defines, as far as the tests above see")
        return
    of_loss_last = reversed(PACKAGES)  # of equal ids the last stays
    known = {key: method for kind in of_loss_last for key, method in catalogue(kind).items()}
    (method,) = select(known, [id]).values()
    if contract:
        asked = ["-q", "--no-header", "-p", "no:xdist", "-k", f"{id} or [{id}]"]
        if subprocess.run([sys.executable, "-m", "pytest", *asked, *files(method)], cwd=paths.root()).returncode:
            raise CheckFailed(f"'{id}' breaks its contract: the first failure above says how")
    if method.kind == "loss":
        from lossboard.fidelity import card

        show.console.print(show.fidelity_card(card(method)))
    elif contract:
        show.console.print(f"'{id}' keeps the contract of its kind ({method.kind}); a fidelity card is for losses")
    else:
        raise UsageError(f"'{id}' is of kind '{method.kind}', and a fidelity card is for losses")


@app.command()
def plan(
    suite: SuiteName,
    track: TrackName = "quick",
    only: Only = None,
    seeds: Seeds = None,
    tasks: Tasks = None,
    shard: Shard = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="For so many processes; 0: one a core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """What a run would do: cells done, stale, failed and missing, and the time it may take."""
    from lossboard import planning, run

    pinned = protocol.load(suite)
    methods = _selection(pinned, only)
    cells = _asked(pinned, pinned.track(track), methods, seeds, tasks, shard)
    local = _local(suite)
    result = run.plan(cells, methods, local, _machine(pinned))
    each = planning.seconds(pinned, result.todo, [*local, *_published(suite)])
    units = [sum(each[cell.key] for cell in unit.cells) for unit in run.suite_module(suite).group(result.todo)]
    jobs = 1 if pinned.alone else workers or default_jobs()
    seconds, wall = sum(units), planning.wall_s(units, jobs)
    counts = {"cells": len(cells), "done": len(result.done), "stale": len(result.stale)}
    counts |= {"failed": len(result.failed), "missing": len(result.missing)}
    if as_json:
        print(json.dumps(counts | {"seconds": seconds, "jobs": jobs, "units": len(units), "wall_s": wall}))
        return
    show.console.print(f"{suite} {track}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    if result.todo:
        show.console.print(f"about {show.duration(wall)} with {_processes(jobs)}")
        if jobs > 1 and max(units) > 1.1 * seconds / jobs:
            longest = show.duration(max(units))
            show.console.print(f"the largest of {len(units):,} units takes {longest}: more processes save nothing")


def _asked(
    suite: protocol.Suite,
    track: protocol.Track,
    methods: dict[str, Method],
    seeds: str | None,
    tasks: str | None,
    shard: str | None,
) -> list[protocol.Cell]:
    """The cells of a track that options ask for."""
    from lossboard import planning

    among = _of_tasks(tasks, (task.name for task in track.tasks))
    cells = [cell for cell in suite.cells(track, methods, _seeds(seeds)) if among(cell.task.name)]
    if shard is None:
        return cells
    if suite.alone:
        raise UsageError(f"--shard: records of '{suite.name}' are one machine's; run it whole on each")
    return planning.shared(suite, cells, planning.Share.of(shard))


def _machine(suite: protocol.Suite) -> str:
    """What a suite whose records do not compare between machines calls this one; else ''."""
    from lossboard.environment import machine, machine_name

    return machine_name(machine()) if suite.alone else ""


def _processes(jobs: int) -> str:
    return f"{jobs} process{'es' if jobs > 1 else ''}"


def default_jobs() -> int:
    """One process a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def run(
    suite: SuiteName,
    track: TrackName = "quick",
    only: Only = None,
    seeds: Seeds = None,
    tasks: Tasks = None,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Worker processes; 0: one a core.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is done (old records are set aside).")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="Leave out cells that have a published record (for maintainers); no board.")
    ] = False,
    shard: Shard = None,
    pool: Annotated[str, typer.Option("--pool", help="What hands units to workers: loky, dask or ray.")] = "loky",
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs that a unit asks of Dask or Ray.")] = 0,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Whole seeds, cheapest first, for such a time: 10m, 2h.")
    ] = None,
    page: Annotated[bool, typer.Option(help="Build the page at the end.")] = True,
) -> None:
    """Measure every cell of a track that this machine has not measured with this code; end with the board."""
    from lossboard import planning, pools
    from lossboard import run as running

    pinned = protocol.load(suite)
    chosen = pinned.track(track)
    machine = _machine(pinned)
    methods = _selection(pinned, only)
    wanted = _seeds(seeds)
    budget_s = None if budget is None else planning.duration_s(budget)
    hand_over = pools.named(pool, gpus)
    if pinned.alone:
        if pool != "loky":
            raise UsageError(f"--pool: '{suite}' measures one unit at a time, with this machine to itself")
        hand_over = pools.alone
    cells = asked = _asked(pinned, chosen, methods, seeds, tasks, shard)
    if fresh:
        records.set_aside(paths.units(suite), {cell.key for cell in cells}, machine)
    if fill:
        published = running.plan(cells, methods, _published(suite), machine)
        cells = [cell for cell in cells if cell.key not in published.done]
    local = _local(suite)
    todo = running.plan(cells, methods, local, machine).todo
    jobs = 1 if pinned.alone else jobs or default_jobs()

    measure = _measurement(pinned, track, methods, hand_over, jobs)
    if todo:
        _announce_data(pinned, todo)
        _warn_uncommitted()
    if todo and budget_s is None:
        measure(todo)
    elif todo and budget_s is not None:
        later = _within(budget_s, pinned, todo, local, measure, jobs)
        cells = [cell for cell in cells if cell.key not in later]
    else:
        other = " or published" if fill else "; --fresh measures them again"
        show.console.print(f"all {len(asked):,} cells are done{other}")
    local = _local(suite)
    if not fill:
        _conclude(pinned, chosen, methods, local, wanted, page, {cell.key for cell in asked})
    _complain(pinned, cells, local)


def _measurement(
    pinned: protocol.Suite, track: str, methods: Mapping[str, Method], hand_over: Pool, jobs: int
) -> Callable[[list[protocol.Cell]], None]:
    """What measures cells of a track and shows how far it is."""
    from lossboard import run as running
    from lossboard.environment import provenance

    def measure(part: list[protocol.Cell]) -> None:
        cost = sum(unit.cost for unit in running.suite_module(pinned.name).group(part))
        said = provenance(pinned.alone)
        with show.progress(f"{pinned.name} {track}", len(part), cost) as report:
            done = running.execute(
                pinned, part, methods=methods, provenance=said, pool=hand_over, jobs=jobs, report=report
            )
        rate = done.cells / max(done.seconds, 1e-9)
        show.console.print(
            f"{done.cells:,} cells in {show.duration(done.seconds)} with {_processes(jobs)} ({rate:.1f} a second)"
        )

    return measure


def _within(
    budget_s: float,
    pinned: protocol.Suite,
    todo: list[protocol.Cell],
    local: Sequence[records.Record],
    measure: Callable[[list[protocol.Cell]], None],
    jobs: int,
) -> set[tuple[str, str, int, int]]:
    """Measure what a budget of time is enough for; the keys of cells that are left."""
    from lossboard import planning

    each = planning.seconds(pinned, todo, [*local, *_published(pinned.name)])
    left = planning.spend(budget_s, planning.seed_blocks(todo, each), measure, jobs)
    later = {cell.key for block in left for cell in block.cells}
    if left:
        wait = show.duration(sum(block.seconds for block in left) / jobs)
        show.console.print(f"left for another time: {len(later):,} cells, about {wait}")
    return later


def _warn_uncommitted() -> None:
    """Say before a run, not after it, that its records will not be publishable."""
    from lossboard.environment import provenance, uncommitted

    here = provenance()
    if here.commit and here.dirty:
        files = uncommitted()
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        said = f"not committed ({files[0].strip()}{more}): what is measured cannot be published"
        show.console.print(f"{said}; commit first for that", soft_wrap=True, markup=False)


def _announce_data(suite: protocol.Suite, todo: list[protocol.Cell]) -> None:
    """Load each dataset once before workers do: say where it came from, stop early where it cannot be had."""
    from lossboard.data import DataError, load, pins
    from lossboard.protocol import suite_module

    missing: list[DataError] = []
    besides = getattr(suite_module(suite.name), "datasets", lambda cells: ())(todo)
    for name in sorted({*(cell.task.dataset for cell in todo), *besides} - {""}):
        if name in pins():
            try:
                show.console.print(f"data: {name}, {load(name).source}", soft_wrap=True)
            except DataError as error:
                missing.append(error)
    if missing:
        for further in missing[1:]:
            show.warn(str(further))
        raise missing[0]


def _conclude(
    suite: protocol.Suite,
    track: protocol.Track,
    methods: dict[str, Method],
    local: list[Record],
    seeds: list[int] | None,
    page: bool,
    asked: set[records.Key],
) -> None:
    """The board, the comparison of the cells asked for with the published records, and the page."""
    from lossboard import board

    published, machine = _published(suite.name), _machine(suite)
    ours = [record for record in records.of_machine(local, machine) if record.method in methods]
    others = [record for record in records.of_machine(published, machine) if record.method not in methods]
    marks = {id: "approximate" for id, method in methods.items() if "approximate" in method.tags}
    marks |= {record.method: "published" for record in others}
    kinds = {method.kind for method in methods.values()}
    for part, own in board.standings(suite, track, records.shown([*ours, *others], board.currency(suite))):
        if part.kind in kinds and (own or not suite.alone):
            shown = board.build(suite, part, own, seeds=seeds)
            said = marks | _remarks(suite, part, own, shown)
            show.console.print(show.board_table(shown, said), soft_wrap=not show.console.is_terminal)
            if suite.alone:
                show.console.print(_details(suite, part, own, shown), soft_wrap=not show.console.is_terminal)
    if not suite.alone:  # times do not repeat: the boards' intervals say what differs
        show.console.print(_compared(suite, [record for record in ours if record.key in asked], published))
    if page:
        from lossboard.publish import publish

        beside = [name for name in protocol.available() if name != suite.name]
        built = {name: [*_local(name), *_published(name)] for name in beside if (paths.site() / name).is_dir()}
        _measure_theory([suite.name, *built])
        index = publish(paths.site(), {**built, suite.name: [*local, *published]})
        show.console.print(f"page: {index.parent / suite.name / 'index.html'}", soft_wrap=True)
        if len(built) < len(beside):  # they take a minute, once
            show.console.print("with the other suites: lossboard publish --local")


def _compared(suite: protocol.Suite, ours: list[Record], published: list[Record]) -> str:
    """How this machine's current records compare with the published ones of the same cells."""
    from lossboard import board

    current = board.currency(suite)
    same = board.compare(suite, filter(current, ours), published)
    if not same.cells:
        return "published: no record of these cells to compare with"
    where = f" ({same.where})" if same.largest else ""
    of = "" if same.with_bits == same.cells else f" of {same.with_bits:,} that have a fingerprint"
    bits = f", {same.same_bits:,} with the same bits{of}" if same.with_bits else ""
    return (
        f"published: {same.cells:,} cells compared{bits};"
        f" largest difference of a mean {100 * same.largest:.2f} points{where}"
    )


def _details(suite: protocol.Suite, part: protocol.Track, own: list[Record], shown: Board) -> Table:
    """What was measured beside the scores of a board."""
    from lossboard.entries import entries_of

    return show.details_table(shown, entries_of(part, shown, shown, own), suite.metrics.beside)


def _remarks(suite: protocol.Suite, part: protocol.Track, own: list[Record], shown: Board) -> dict[str, str]:
    """Method -> what the suite says of what was measured of it."""
    from lossboard.entries import entries_of, remarks

    return remarks(suite.name, entries_of(part, shown, shown, own))


def _measure_theory(suites: Iterable[str]) -> None:
    """What pages say of the theory of losses, measured once for each version of one, with a bar while it takes."""
    from rich.progress import track

    from lossboard.pools import WorkerDied, loky
    from lossboard.run import suite_methods
    from lossboard.theory import prepare, unmeasured
    from reference.methods import catalogue

    methods = {m.id: m for name in suites for m in suite_methods(protocol.load(name)).values()}
    todo = [method.id for method in unmeasured(methods.values()) if method is catalogue("loss").get(method.id)]
    if len(todo) <= 5:  # the page measures them itself
        return
    show.console.print(f"theory of {len(todo)} losses, measured once for their pages")
    found = loky(prepare, todo, default_jobs())
    silent = not show.console.is_terminal
    with contextlib.suppress(WorkerDied):  # the page tries again what is missing
        for _ in track(found, "theory", total=len(todo), console=show.console, transient=True, disable=silent):
            pass


def _complain(suite: protocol.Suite, cells: list[protocol.Cell], local: list[Record]) -> None:
    """End with 1 where cells failed, saying which and why; diverged cells are results, but worth a line."""
    from lossboard.board import currency

    wanted, here = {cell.key for cell in cells}, records.of_machine(local, _machine(suite))
    best = records.resolve((r for r in here if r.key in wanted), currency(suite))
    diverged: dict[str, int] = {}
    failed: dict[str, tuple[int, str]] = {}
    for record in best.values():
        if record.status == "diverged":
            diverged[record.method] = diverged.get(record.method, 0) + 1
        elif record.status != "ok":
            failed[record.method] = (failed.get(record.method, (0, ""))[0] + 1, f"{record.status}: {record.error}")
    for method, count in sorted(diverged.items()):
        show.warn(
            f"{method}: {count} runs diverged (a parameter became infinite or NaN); they count as the worst score"
        )
    if failed:
        lines = [f"{method}: {count} cells failed; {message}" for method, (count, message) in sorted(failed.items())]
        show.fail("\n".join([*lines, "mend the method and run again: the other cells are done"]), 1)


@app.command()
def why(
    cell: Annotated[
        str,
        typer.Argument(
            help="A cell, or all of its seeds or trials: noisy/gce/digits/clean/0/0, noisy/gce/digits/clean."
        ),
    ],
) -> None:
    """Where a cell stands: done, stale, failed, superseded or retracted, and by which record."""
    from lossboard import explain

    for line in explain.why(cell):
        show.console.print(line, soft_wrap=True)


# -- board, submit, publish ------------------------------------------------------------------------


@app.command()
def board(
    suite: SuiteName,
    track: TrackName = "quick",
    default: Annotated[bool, typer.Option("--default", help="Author's defaults instead of tuned.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="This machine's records instead of the published ones.")
    ] = False,
    seeds: Seeds = None,
    top: Annotated[int, typer.Option("--top", min=0, help="The first rows only; 0: all.")] = 0,
    details: Annotated[bool, typer.Option("--details", help="And what was measured beside the scores.")] = False,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
) -> None:
    """The ranking of a track from the published records."""
    from lossboard import board as boards

    pinned = protocol.load(suite)
    found = _local(suite) if local else _published(suite)
    kind, wanted, current = "default" if default else "tuned", _seeds(seeds), boards.currency(pinned)
    parts = boards.standings(pinned, pinned.track(track), records.shown(found, current))
    every = [boards.build(pinned, part, own, kind, wanted) for part, own in parts]
    cut = [replace(shown, rows=shown.rows[: top or None]) for shown in every]
    if as_json:
        print(json.dumps(cut[0].json() if len(cut) == 1 else [shown.json() for shown in cut]))
    elif markdown:
        print("\n\n".join(map(show.board_markdown, cut)))
    elif any(shown.rows for shown in cut):
        measured = [(shown, *part) for shown, part in zip(cut, parts, strict=True) if shown.rows]
        for shown, part, own in measured:
            said = _remarks(pinned, part, own, shown)
            show.console.print(show.board_table(shown, said), soft_wrap=not show.console.is_terminal)
            if details:
                show.console.print(_details(pinned, part, own, shown), soft_wrap=not show.console.is_terminal)
        for _, own in boards.standings(pinned, pinned.track(track), found):
            known = filter(current, own)
            for record, low, high in records.disagreements(known, pinned.metrics.rank, pinned.metrics.tolerance):
                cell = f"{record.method}/{record.task}/{record.seed}/{record.trial}"
                show.warn(f"{cell}: records disagree, {low:.4g} to {high:.4g}; lossboard why {suite}/{cell}")
    else:
        show.console.print(f"no records of {suite} {track}; lossboard run {suite} --track {track}")


@app.command()
def claims(
    suite: SuiteName,
    local: Annotated[
        bool, typer.Option("--local", help="This machine's records instead of the published ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What papers claim, and what the records say of it."""
    from lossboard.claims import as_json as encoded
    from lossboard.claims import assess

    found = assess(protocol.load(suite), _local(suite) if local else _published(suite))
    if as_json:
        print(json.dumps(encoded(found)))
    elif found:
        show.console.print(show.claims_table(found))
        count = Counter(each.verdict for each in found)
        counted = ", ".join(f"{number} {verdict}" for verdict, number in count.most_common())
        show.console.print(f"{len(found)} claim{'s' if len(found) > 1 else ''}: {counted}")
    else:
        show.console.print(f"suite '{suite}' has no claims")


@app.command()
def compare(
    suite: SuiteName,
    ours: Annotated[str, typer.Argument(help="A method, a batch (12 hex digits), or commit:abc123.")],
    theirs: Annotated[str, typer.Argument(help="What it is compared with, named the same way.")],
    track: TrackName = "quick",
    local: Annotated[bool, typer.Option("--local", help="This machine's records beside the published ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """Two methods, batches or commits: differences of the scores, paired by seed, task by task."""
    from lossboard import comparison

    pinned = protocol.load(suite)
    found = [*(_local(suite) if local else ()), *_published(suite)]
    compared = comparison.compare(pinned, pinned.track(track), ours, theirs, found)
    if as_json:
        print(json.dumps(comparison.as_json(compared)))
        return
    for each in compared:
        show.console.print(show.comparison_table(each), soft_wrap=not show.console.is_terminal)


@app.command()
def reproduce(
    what: Annotated[
        str, typer.Argument(help="A suite, or cells: noisy, noisy/gce/digits/clean, .../clean/0, .../0/1.")
    ],
    sample: Annotated[int, typer.Option("--sample", min=1, help="How many cells at most, drawn at random.")] = 20,
    track: Annotated[str | None, typer.Option("--track", help="Of this track alone.")] = None,
    only: Only = None,
    tasks: Tasks = None,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Worker processes; 0: one a core.")] = 0,
    draw: Annotated[int | None, typer.Option("--draw", help="A number that fixes the drawing.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Of batches added since a git revision.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what was found under results/, to be committed.")] = False,
) -> None:
    """Measure published cells again from what their records say: bitwise, within tolerance, or differs, and why."""
    from rich.progress import track as bar

    from lossboard import board, explain, inspection, reproduced, reproduction
    from lossboard.environment import provenance
    from lossboard.pools import alone, loky

    named = explain.place(what) if "/" in what else None
    suite = named.suite if named else protocol.load(what)
    methods = _selection(suite, named.method if named else only)
    published = records.of_machine(_published(suite.name), _machine(suite))
    if since is not None:
        added = {path.stem for path in inspection.added_since(since)[0]}
        published = [record for record in published if record.header and record.header.file in added]
    found = reproduction.reproducible(suite, published, methods, board.currency(suite))
    wanted = {task.id: task for task in suite.track(track).tasks} if track else suite.tasks
    among = _of_tasks(tasks, (task.name for task in wanted.values()))
    found = [r for r in found if r.id in wanted and among(r.task) and (named is None or named.holds(r.key))]
    if not found:
        raise CheckFailed(
            "nothing to reproduce: no published record of such cells" + (" by this machine" * suite.alone)
        )
    chosen = reproduction.drawn(found, sample, draw)
    _announce_data(suite, reproduction.cells(suite, chosen))
    said = provenance(suite.alone)
    pool, count = (alone, 1) if suite.alone else (loky, jobs or default_jobs())
    again = reproduction.reproduce(suite, chosen, said, pool, count)
    done: list[Reproduction] = []
    try:
        for each in bar(again, suite.name, total=len(chosen), console=show.console, transient=True):
            done.append(each)
    finally:  # what was measured before an error is shown and kept all the same
        if done:
            _say_reproduced(done, len(found))
        if done and keep:
            show.console.print(str(reproduced.keep(suite, done, said).relative_to(paths.root())), soft_wrap=True)
    if wrong := reproduction.off(suite, done):
        raise CheckFailed(wrong)


def _say_reproduced(done: list[Reproduction], among: int) -> None:
    show.console.print(show.reproductions_table(done), soft_wrap=not show.console.is_terminal)
    for reason, number in Counter(reason for each in done for reason in each.reasons).most_common():
        show.console.print(f"{reason} ({number} of {len(done)})", soft_wrap=True)
    verdicts = Counter(each.verdict for each in done)
    show.console.print(f"{len(done)} of {among:,} cells: " + ", ".join(f"{n} {v}" for v, n in verdicts.items()))


@app.command()
def submit(
    suite: SuiteName,
    track: TrackName = "quick",
    only: Only = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Leave out tasks of which a seed or trial is missing.")
    ] = False,
) -> None:
    """Seal this machine's records of a track into batches under results/, for a pull request, and inspect them."""
    from lossboard import inspection, submission

    pinned = protocol.load(suite)
    sealed = []
    for each in submission.submit(pinned, pinned.track(track), _selection(pinned, only), _local(suite), whole):
        sealed.append(each.path)
        show.console.print(f"{each.path.relative_to(paths.root())}  {each.cells:,} cells", soft_wrap=True)
        if each.failed:
            show.warn(f"{each.path.name}: {each.failed} cells failed; boards show them, and rank nothing by them")
    faults = [fault for path in sealed for fault in inspection.inspect(path, sealed)]
    for fault in faults:
        show.warn(fault)
    if faults:
        raise CheckFailed("sealed, but a pull request with these batches would be refused: mend it, or leave them out")
    if sealed:
        show.console.print("inspected, nothing wrong: commit these files as they are")
    else:
        show.console.print("no task is whole that is not published")


@app.command()
def inspect(
    files: Annotated[list[Path] | None, typer.Argument(help="Batches under results/.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="What was added since a git revision.")] = None,
) -> None:
    """Hold published records to what they must be: form, source, tasks, whole blocks, values, control."""
    from lossboard import inspection

    faults: list[str] = []
    chosen = [path.absolute() for path in files or ()]
    if since is not None:
        chosen, faults = inspection.added_since(since)
    elif not chosen:
        raise UsageError("which? name batches, results/noisy/gce/….jsonl, or --since main for what was added since")
    for path in sorted(chosen):
        faults += inspection.inspect(path, chosen)
    for fault in faults:
        show.warn(fault)
    if faults:
        raise CheckFailed(f"{len(faults)} faults in {len(chosen):,} batches")
    show.console.print(f"{len(chosen):,} batches: nothing wrong")


@app.command()
def publish(
    out: Annotated[Path | None, typer.Argument(help="Folder to write; .lossboard/site if not given.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Add this machine's records to the published ones.")] = False,
) -> None:
    """Build the site from the published records."""
    from lossboard import reproduced
    from lossboard.publish import publish as build

    for problem in (each for name in protocol.available() for each in reproduced.read(name)[1]):
        show.warn(f"{problem}; left out")
    _measure_theory(protocol.available())
    found = {name: _published(name) + (_local(name) if local else []) for name in protocol.available()}
    show.console.print(f"site: {build(out or paths.site(), found)}", soft_wrap=True)


@app.command()
def export(
    out: Annotated[
        Path | None, typer.Argument(help="The file; .lossboard/lossboard-<commit>.tar if not given.")
    ] = None,
) -> None:
    """Code, pins and published records of this commit as one archive, the same bytes wherever it is made."""
    from lossboard.export import export as written

    done = written(out)
    show.console.print(f"{done.path}: {done.files:,} files, {done.records:,} records", soft_wrap=True)
    if done.superseded:
        show.console.print(f"{done.superseded:,} batches are superseded; MANIFEST.json in it names them")


# -- routines --------------------------------------------------------------------------------------


@app.command()
def nightly(
    budget: Annotated[str, typer.Option("--budget", help="For what is missing: 10m, 2h.")] = "10m",
    tracks: Annotated[str, typer.Option("--tracks", help="Of every suite that has them, by commas.")] = "quick,cpu",
    sample: Annotated[int, typer.Option("--sample", min=1, help="Cells of each suite that are reproduced.")] = 10,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Worker processes; 0: one a core.")] = 0,
    submit: Annotated[bool, typer.Option("--submit", help="Seal what is whole, and keep what was reproduced.")] = False,
    asv: Annotated[bool, typer.Option(help="Measure how fast this commit is, and the one before it.")] = True,
    site: Annotated[str, typer.Option("--site", help="Where the site is built.")] = "_site",
) -> None:
    """What a night does: fill suites within a budget, measure performance, reproduce a sample, build the site."""
    from lossboard import planning, steps

    named = [part.strip() for part in tracks.split(",")]
    steps.nightly(planning.duration_s(budget), named, sample, jobs, submit=submit, asv=asv, site=site)
    show.console.print("all was measured, and nothing is wrong")


@app.command()
def review(
    since: Annotated[str, typer.Option("--since", help="The git revision that a branch is compared with.")] = "main",
    sample: Annotated[int, typer.Option("--sample", min=1, help="Cells of each suite that are measured again.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="A folder for what each step says.")] = None,
) -> None:
    """Judge what a branch adds: contract, card and smoke board of its losses; its records, some measured again."""
    from lossboard import steps

    steps.review(since, sample, out)
    show.console.print("nothing wrong")


# -- data ------------------------------------------------------------------------------------------


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """Where each dataset stands on this machine."""
    from lossboard.data import pins, status

    rows = [status(name) for name in pins()]
    if as_json:
        print(
            json.dumps(
                [{"name": row.name, "local": row.local is not None, "where": _place(row)} for row in rows], indent=1
            )
        )
        return
    for row in rows:
        here = "here  " if row.local else "absent"
        show.console.print(show.bold(f"{row.name:16}"), f"{here}  {_place(row)}", soft_wrap=True)


def _place(row: Status) -> str:
    """Where a look-up would find it; where it is not here, what may fetch it."""
    place = row.local or row.places[-1]
    return place.where


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="The dataset.")]) -> None:
    """Fetch a dataset from its pinned source into the local cache, verified."""
    from lossboard.data import fetch

    show.console.print(f"{name}: {fetch(name)}", soft_wrap=True)


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="The datasets; all that are here if none.")] = None,
) -> None:
    """Compare the content of every local copy with its pins, byte by byte."""
    from lossboard.data import pins, status, verify

    found = [verify(name) for name in names or [name for name in pins() if status(name).local]]
    for check, name in ((check, result.name) for result in found for check in result.checks):
        verdict = "as pinned" if check.ok else check.problem
        show.console.print(f"{name}/{check.split}: {verdict} ({check.where})", soft_wrap=True)
    bad = [result.name for result in found if not result.ok]
    if bad:
        raise CheckFailed(
            f"{', '.join(bad)}: not what is pinned; delete those copies and run: lossboard data fetch NAME"
        )

"""Records -> site: static pages that work from disk, without JavaScript and without a request to another host.

A build is a pure function of records and checkout: the same bytes every time. Whatever came with a contribution (ids,
citations, formulas, errors, environments) is text to escape. Templates are in ``site/templates``; they format, this
module decides what they show.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import jinja2

from lossboard import board, charts, markup, paths, protocol, records, scripts, statistics
from lossboard.board import Board, Row, Score
from lossboard.markup import Interval
from lossboard.records import Record, StoreError, write_atomically
from reference.methods import Method, MethodError, UnknownMethod, find

if TYPE_CHECKING:  # it needs torch
    from reference.theory import Facts

MOST_COLUMNS = 8  # of tasks; a track with more has a column a dataset, and tables below
MANIFEST = "files.txt"  # what a build wrote, so that the next one removes what is gone and nothing else
SAFE = re.compile(r"[a-z][a-z0-9_]*")


def publish(out: Path, found: Mapping[str, Sequence[Record]]) -> Path:
    """Build the site in ``out`` from records by suite, and return the path of its index.

    Raises:
        StoreError: a file cannot be written; every page is either the old one or the new one.
        UsageError: a suite is not in this checkout.
    """
    templates = _templates(_design() / "templates")
    views = [_suite(name, found[name]) for name in sorted(found)]
    files = {f"assets/{path.name}": path.read_text("utf-8") for path in sorted((_design() / "assets").glob("*.*"))}
    files["index.html"] = templates.get_template("index.html").render(suites=views, top="")
    entries = [
        scripts.Entry(f"{view.suite.name}/{page_name(id)}", id, view.suite.title, view.methods.get(id))
        for view in views
        for id in view.ids
    ]
    files["assets/methods.js"] = scripts.index(entries)
    for view in views:
        files |= _pages(templates, view) | _scores(view)
    _write(out, files)
    return out / "index.html"


# -- what the pages show ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a board: one task, or the mean of several."""

    title: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class TrackView:
    """A track that has records."""

    track: protocol.Track
    tuned: Board
    default: Board
    columns: tuple[Column, ...]
    details: Mapping[str, tuple[Column, ...]]  # dataset -> its tasks, where the columns are not the tasks
    figures: Sequence[charts.Figure]

    @property
    def seeds(self) -> str:
        """How many seeds a mean is over: '10', or '3 to 5' where tasks differ."""
        counts = sorted({len(block.seeds) for block in self.track.blocks})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))

    @property
    def boards(self) -> tuple[Board, Board]:
        return (self.tuned, self.default)


@dataclass(frozen=True)
class Environment:
    """Records that were made by the same code on the same machine."""

    commit: str  # '' if not known
    dirty: bool
    env: Mapping[str, str]
    days: tuple[str, ...]  # first and last
    methods: tuple[str, ...]
    records: int


@dataclass(frozen=True)
class SuiteView:
    """A suite with everything its pages need. ``batches`` maps a published file to its content."""

    suite: protocol.Suite
    methods: Mapping[str, Method]
    ids: tuple[str, ...]  # of the catalogue, and of methods that have records
    tracks: tuple[TrackView, ...]
    environments: tuple[Environment, ...]
    failures: Mapping[str, Sequence[Record]]
    batches: Mapping[str, str]
    records: int

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(task.dataset for task in self.suite.tasks.values()))


def _suite(name: str, found: Sequence[Record]) -> SuiteView:
    from lossboard.run import suite_methods

    suite = protocol.load(name)
    known = suite.tasks
    best = records.resolve((r for r in found if r.id in known), board.currency(suite))
    methods = dict(suite_methods(suite))
    for id in {record.method for record in best.values()} - methods.keys():
        with contextlib.suppress(UnknownMethod, MethodError):  # of a method that is gone
            methods[id] = find(methods, id)  # a correction around a loss
    tracks = [_track(suite, track, list(best.values())) for track in suite.tracks.values()]
    failures: dict[str, list[Record]] = {}
    for key in sorted(best):
        if best[key].status != "ok":
            failures.setdefault(best[key].method, []).append(best[key])
    return SuiteView(
        suite=suite,
        methods=methods,
        ids=tuple(sorted(methods.keys() | {record.method for record in best.values()})),
        tracks=tuple(view for view in tracks if view.tuned.rows),
        environments=tuple(_environments(list(best.values()))),
        failures=failures,
        batches=_published(name, best.values()),
        records=len(best),
    )


def _track(suite: protocol.Suite, track: protocol.Track, best: Sequence[Record]) -> TrackView:
    tuned, default = (board.build(suite, track, best, kind) for kind in ("tuned", "default"))
    strata = board.strata(track.tasks)
    columns = [Column(_title(name, strata), (name,)) for name in tuned.tasks]
    details: dict[str, tuple[Column, ...]] = {}
    if len(columns) > MOST_COLUMNS:
        columns = [Column(dataset, tuple(names)) for dataset, names in strata.items()]
        details = {key: tuple(Column(_corruption(name), (name,)) for name in names) for key, names in strata.items()}
    figures = charts.figures(track, tuned, default, suite.control)
    return TrackView(track, tuned, default, tuple(columns), details, figures)


def _title(task: str, strata: Mapping[str, Sequence[str]]) -> str:
    return _corruption(task) if len(strata) == 1 else task


def _corruption(task: str) -> str:
    return task.split("/", 1)[1]


def _environments(found: Sequence[Record]) -> list[Environment]:
    headers = {id(record.header): record.header for record in found if record.header}
    made = {key: (h.commit or "", h.dirty, tuple(sorted(h.env.items()))) for key, h in headers.items()}
    groups: dict[tuple[str, bool, tuple[tuple[str, str], ...]], list[Record]] = {}
    for record in found:
        groups.setdefault(made[id(record.header)], []).append(record)
    shown = []
    for (commit, dirty, env), same in sorted(groups.items()):
        days = sorted({record.header.started[:10] for record in same if record.header})
        methods = tuple(sorted({record.method for record in same}))
        ends = tuple(dict.fromkeys((days[0], days[-1])))
        shown.append(Environment(commit, dirty, dict(env), ends, methods, len(same)))
    return shown


def _published(suite: str, found: Iterable[Record]) -> dict[str, str]:
    """Name -> content of the published batches among the files of these records."""
    files = {(record.method, record.header.file) for record in found if record.header}
    known = {}
    for method, file in sorted(files):
        path = paths.results() / suite / method / f"{file}.jsonl"
        if SAFE.fullmatch(method) and re.fullmatch(r"[0-9a-f]{12}", file) and path.is_file():
            known[file] = path.read_bytes().decode("utf-8", "replace")
    return known


# -- a method beside the control -------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One method on one task. ``difference`` is to the control, paired by seed."""

    task: str
    tuned: Score | None
    default: Score | None
    control: Score | None
    difference: Interval | None


@dataclass(frozen=True)
class Results:
    """One method on one track."""

    track: protocol.Track
    tuned: Row | None
    default: Row | None
    ranked: Mapping[str, int]  # kind of board -> how many methods it ranks
    lines: tuple[Line, ...]
    axis: charts.Axis

    @property
    def batches(self) -> list[str]:
        return sorted({file for row in (self.tuned, self.default) if row for file in row.batches})


def _results(view: TrackView, method: str, control: str) -> Results | None:
    """What a track knows of a method, or None for no record."""
    tuned, default = ({row.method: row for row in shown.rows} for shown in view.boards)
    if method not in tuned and method not in default:
        return None

    def score(rows: Mapping[str, Row], name: str, task: str) -> Score | None:
        return rows[name].tasks.get(task) if name in rows else None

    lines, strata = [], board.strata(view.track.tasks)
    for task in view.tuned.tasks:
        ours, reference = score(tuned, method, task), score(tuned, control, task)
        difference = _paired(ours, reference) if ours and reference and method != control else None
        lines.append(Line(_title(task, strata), ours, score(default, method, task), reference, difference))
    known = [line.difference for line in lines if line.difference]
    ends = [(100 * (mean - _known(half)), 100 * (mean + _known(half))) for mean, half in known]
    ranked = {shown.kind: sum(row.rank is not None for row in shown.rows) for shown in view.boards}
    return Results(view.track, tuned.get(method), default.get(method), ranked, tuple(lines), charts.axis(ends))


def _paired(ours: Score, reference: Score) -> Interval | None:
    shared = sorted(ours.seeds.keys() & reference.seeds.keys())
    return statistics.t_interval([ours.seeds[seed] - reference.seeds[seed] for seed in shared]) if shared else None


def _known(half: float) -> float:
    return half if math.isfinite(half) else 0.0


# -- pages -----------------------------------------------------------------------------------------


def _pages(templates: jinja2.Environment, view: SuiteView) -> dict[str, str]:
    name = view.suite.name
    files = {f"{name}/records/{file}.jsonl": text for file, text in view.batches.items()}
    files[f"{name}/index.html"] = templates.get_template("suite.html").render(view=view, suite=view.suite, top="../")
    page = templates.get_template("method.html")
    for id in view.ids:
        results = [found for track in view.tracks if (found := _results(track, id, view.suite.control))]
        commits = {(e.commit, e.dirty): None for e in view.environments if e.commit and id in e.methods}
        method = view.methods.get(id)
        own = {"id": id, "method": method, "results": results, "commits": list(commits), "theory": _theory(method)}
        files[f"{name}/{page_name(id)}"] = page.render(own, view=view, suite=view.suite, top="../")
    return files


def _scores(view: SuiteView) -> dict[str, str]:
    """What the comparison of methods on a board needs, loaded when it is asked for."""
    return {
        f"{view.suite.name}/scores/{shown.track}-{shown.kind}.js": scripts.scores(
            shown, board.strata(track.track.tasks)
        )
        for track in view.tracks
        for shown in track.boards
    }


def _theory(method: Method | None) -> Facts | str | None:
    """What was measured of a loss, or why nothing was; None for what is no loss."""
    if method is None or method.kind != "loss":
        return None
    from lossboard.theory import theory

    return theory(method)


def page_name(method: str) -> str:
    """The file of a method's page: its id where that is a safe and free name, else a hash."""
    if SAFE.fullmatch(method) and len(method) <= 100 and method != "index":
        return f"{method}.html"
    return f"method-{hashlib.sha256(method.encode('utf-8', 'replace')).hexdigest()[:12]}.html"


def _design() -> Path:
    """Templates and assets: the checkout's, or those beside this module where the checkout has none."""
    own = paths.root() / "site"
    return own if own.is_dir() else Path(__file__).parents[1] / "site"


def _templates(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= markup.FILTERS | {
        "cell": cell,
        "labels": labels,
        "page_name": page_name,
        "rank": charts.rank,
    }
    return environment


# -- what templates ask for ------------------------------------------------------------------------


def cell(row: Row, column: Column) -> Interval | None:
    """A row's mean over the tasks of a column, over seeds that all of them have; None where a task is missing."""
    scores = [row.tasks[task] for task in column.tasks if task in row.tasks]
    if len(scores) < len(column.tasks):
        return None
    shared = sorted(set.intersection(*(set(score.seeds) for score in scores)))
    mean = sum(score.mean for score in scores) / len(scores)
    if len(shared) < 2:
        return mean, math.nan
    return mean, statistics.t_interval([sum(s.seeds[seed] for s in scores) / len(scores) for seed in shared])[1]


def labels(block: protocol.Block) -> dict[str, protocol.Task]:
    """The corruptions of a block by name, each with a task that has it."""
    return {_corruption(task.name): task for task in block.tasks}


# -- files -----------------------------------------------------------------------------------------


def _write(out: Path, files: Mapping[str, str]) -> None:
    """Write what changed, each file whole or not at all; then remove what only an earlier build wrote."""
    manifest = out / MANIFEST
    before = _listed(manifest)
    _put(manifest, "\n".join(sorted(before | files.keys())) + "\n")  # first: a killed build leaves nothing unlisted
    for name in sorted(files):
        _put(out / name, files[name])
    for name in sorted(before - files.keys()):
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {out / name}: {error.strerror}. Mend that and publish again") from error
    _put(manifest, "\n".join(sorted(files)) + "\n")


def _put(path: Path, text: str) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a record must not stop the site
    try:
        if path.read_bytes() == text.encode("utf-8"):
            return
    except OSError:
        pass
    write_atomically(path, text)


def _listed(manifest: Path) -> set[str]:
    """The files of an earlier build, as far as they lie inside its folder."""
    try:
        lines = manifest.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    inside = [line for line in lines if line and ".." not in PurePosixPath(line).parts]
    return {line for line in inside if not PurePosixPath(line).is_absolute()}

"""What pages show: records of a suite by track, task, method and environment. No HTML, no file is written."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lossboard import board, charts, paths, protocol, records, reproduced, statistics
from lossboard.board import Board, Row, Score
from lossboard.claims import Assessment, assess
from lossboard.entries import Entry, Measures, entries_of, measures, remarks
from lossboard.markup import Interval
from lossboard.names import PART
from lossboard.records import Record
from lossboard.reproduced import Kept
from lossboard.scales import SCALES, Scale
from reference.methods import Method, MethodError, UnknownMethod, find

MOST_COLUMNS = 8  # of tasks; a board of more has a column a dataset


@dataclass(frozen=True)
class Column:
    """A column of a board: one task, or the mean of several."""

    title: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class TrackView:
    """A track that has records, or a part of one that has a board of its own."""

    suite: protocol.Suite
    track: protocol.Track
    tuned: Board
    default: Board
    columns: tuple[Column, ...]
    entries: Mapping[str, tuple[Entry, ...]]  # task -> methods, the best mean first
    measures: Measures
    figures: Sequence[charts.Figure]
    remarks: Mapping[str, str]  # method -> what the suite says of what was measured of it

    @property
    def control(self) -> str:
        """What is measured beside every other method of the track."""
        return self.suite.controls[self.track.kind]

    @property
    def seeds(self) -> str:
        """How many seeds a mean is over: '10', or '3 to 5' where tasks differ."""
        counts = sorted({len(block.seeds) for block in self.track.blocks})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))

    @property
    def boards(self) -> tuple[Board, Board]:
        return (self.tuned, self.default)

    @functools.cached_property
    def defaults(self) -> Mapping[str, Row]:
        """The rows of the board of the authors' defaults, by method."""
        return {row.method: row for row in self.default.rows}

    @functools.cached_property
    def days(self) -> Mapping[str, tuple[str, ...]]:
        """Method -> first and last day on which it was measured here."""
        found: dict[str, set[str]] = defaultdict(set)
        for entry in (entry for entries in self.entries.values() for entry in entries):
            found[entry.method].update(when[:10] for when, *_ in entry.runs)
        return {method: _ends(days) for method, days in found.items()}

    def task(self, name: str) -> protocol.Task:
        return next(task for task in self.track.tasks if task.name == name)

    def block(self, name: str) -> protocol.Block:
        """The block that a task is in."""
        return next(block for block in self.track.blocks if any(task.name == name for task in block.tasks))


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
    claims: tuple[Assessment, ...]
    reproduced: Mapping[str, Sequence[Kept]]  # method -> its cells that were measured again, the last day first
    records: int

    @property
    def scale(self) -> Scale:
        """How its scores are shown."""
        return SCALES[self.suite.metrics.scale]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(task.dataset for task in self.suite.tasks.values() if task.dataset))

    @property
    def unmeasured(self) -> list[protocol.Track]:
        """The tracks that have no records."""
        shown = {view.track.pinned for view in self.tracks}
        return [track for track in self.suite.tracks.values() if track.name not in shown]


def suite(name: str, found: Sequence[Record]) -> SuiteView:
    """Everything the pages of a suite show, from its records.

    Raises:
        UsageError: the suite is not in this checkout.
    """
    from lossboard.run import suite_methods

    pinned = protocol.load(name)
    known = pinned.tasks
    current, made = board.currency(pinned), [r for r in found if r.id in known and r.header]
    best = records.shown(made, current)
    methods = dict(suite_methods(pinned))
    for id in {record.method for record in best} - methods.keys():
        with contextlib.suppress(UnknownMethod, MethodError):  # of a method that is gone
            methods[id] = find(methods, id)  # a correction around a loss
    parts = [part for track in pinned.tracks.values() for part in board.standings(pinned, track, best)]
    tracks = [_track(pinned, track, own) for track, own in parts]
    failures: dict[str, list[Record]] = {}
    for record in sorted(best, key=lambda record: record.key):
        if record.status != "ok":
            failures.setdefault(record.method, []).append(record)
    return SuiteView(
        suite=pinned,
        methods=methods,
        ids=tuple(sorted(methods.keys() | {record.method for record in best})),
        tracks=tuple(view for view in tracks if view.tuned.rows),
        environments=tuple(_environments(best)),
        failures=failures,
        batches=_published(name, best),
        claims=tuple(assess(pinned, best)),
        reproduced=_reproduced(name, best),
        records=len(best),
    )


def _track(pinned: protocol.Suite, track: protocol.Track, best: Sequence[Record]) -> TrackView:
    wanted = {task.id for task in track.tasks}
    own = [record for record in best if record.id in wanted]
    tuned, default = (board.build(pinned, track, own, kind) for kind in ("tuned", "default"))
    strata = board.strata(track.tasks)
    columns = [Column(title(name, strata), (name,)) for name in tuned.tasks]
    if len(columns) > MOST_COLUMNS:
        columns = [Column(dataset, tuple(names)) for dataset, names in strata.items()]
    found = entries_of(track, tuned, default, own)
    means = measures(found, tuned)
    figures = charts.figures(track, tuned, default, means, pinned, found)
    return TrackView(pinned, track, tuned, default, tuple(columns), found, means, figures, remarks(pinned.name, found))


def title(task: str, strata: Mapping[str, Sequence[str]]) -> str:
    """What a task is called among those of its track: without what comes first where all have the same."""
    return corruption(task) if len({name.split("/")[0] for names in strata.values() for name in names}) == 1 else task


def corruption(task: str) -> str:
    return task.split("/", 1)[1]


def labels(block: protocol.Block) -> dict[str, protocol.Task]:
    """The corruptions of a block by name, each with a task that has it."""
    return {corruption(task.name): task for task in block.tasks}


# -- where records come from -------------------------------------------------------------------------------------------


def _ends(days: Iterable[str]) -> tuple[str, ...]:
    ordered = sorted(set(days))
    return tuple(dict.fromkeys((ordered[0], ordered[-1]))) if ordered else ()


def _environments(found: Sequence[Record]) -> list[Environment]:
    headers = {id(record.header): record.header for record in found if record.header}
    made = {key: (h.commit or "", h.dirty, tuple(sorted(h.env.items()))) for key, h in headers.items()}
    groups: dict[tuple[str, bool, tuple[tuple[str, str], ...]], list[Record]] = {}
    for record in found:
        groups.setdefault(made[id(record.header)], []).append(record)
    shown = []
    for (commit, dirty, env), same in sorted(groups.items()):
        days = _ends(record.header.started[:10] for record in same if record.header)
        methods = tuple(sorted({record.method for record in same}))
        shown.append(Environment(commit, dirty, dict(env), days, methods, len(same)))
    return shown


def _reproduced(name: str, found: Iterable[Record]) -> dict[str, list[Kept]]:
    """What was measured again of the batches among these records."""
    files = {(record.method, record.header.file) for record in found if record.header}
    groups: dict[str, list[Kept]] = defaultdict(list)
    for one in sorted(reproduced.read(name)[0], key=lambda one: one.day, reverse=True):
        if (one.method, one.batch) in files:
            groups[one.method].append(one)
    return dict(groups)


def _published(name: str, found: Iterable[Record]) -> dict[str, str]:
    """Name -> content of the published batches among the files of these records."""
    files = {(record.method, record.header.file) for record in found if record.header}
    known = {}
    for method, file in sorted(files):
        path = paths.results() / name / method / f"{file}.jsonl"
        if PART.fullmatch(method) and re.fullmatch(r"[0-9a-f]{12}", file) and path.is_file():
            known[file] = path.read_bytes().decode("utf-8", "replace")
    return known


# -- a method beside the control ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One method on one task. ``difference`` is to the control, paired by seed; ``metrics`` are of the tuned trial."""

    task: str
    title: str
    tuned: Score | None
    default: Score | None
    control: Score | None
    difference: Interval | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Results:
    """One method on one track."""

    track: protocol.Track
    tuned: Row | None
    default: Row | None
    ranked: Mapping[str, int]  # kind of board -> how many methods it ranks
    lines: tuple[Line, ...]
    axis: charts.Axis
    days: tuple[str, ...]
    commit: str  # of its last run without local changes; '' if not known

    @property
    def batches(self) -> list[str]:
        return sorted({file for row in (self.tuned, self.default) if row for file in row.batches})


def results(view: TrackView, method: str, control: str) -> Results | None:
    """What a track knows of a method, or None for no record."""
    tuned, default = ({row.method: row for row in shown.rows} for shown in view.boards)
    if method not in tuned and method not in default:
        return None

    def score(rows: Mapping[str, Row], name: str, task: str) -> Score | None:
        return rows[name].tasks.get(task) if name in rows else None

    lines, strata = [], board.strata(view.track.tasks)
    for task in view.tuned.tasks:
        ours, reference = score(tuned, method, task), score(tuned, control, task)
        difference = board.paired(ours, reference) if ours and reference and method != control else None
        metrics = next((entry.metrics for entry in view.entries.get(task, ()) if entry.method == method), {})
        shown = (ours, score(default, method, task), reference, difference, metrics)
        lines.append(Line(task, title(task, strata), *shown))
    known = [line.difference for line in lines if line.difference]
    place = view.tuned.scale.place
    ends = [(place(mean - _known(half)), place(mean + _known(half))) for mean, half in known]
    ranked = {shown.kind: sum(row.rank is not None for row in shown.rows) for shown in view.boards}
    rows = (tuned.get(method), default.get(method))
    scale, days, commit = charts.axis(ends), view.days.get(method, ()), _commit(view, method)
    return Results(view.track, *rows, ranked, tuple(lines), scale, days, commit)


def _commit(view: TrackView, method: str) -> str:
    own = (entry for entries in view.entries.values() for entry in entries if entry.method == method)
    clean = [(when, commit) for entry in own for when, commit, dirty in entry.runs if not dirty]
    return max(clean)[1] if clean else ""


def _known(half: float) -> float:
    return half if math.isfinite(half) else 0.0


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

"""Boards: records aggregated into a ranking. No torch.

Two boards of a track: *tuned* (each method at the trial with the best mean validation score, task by task; this one
ranks) and *default* (trial 0, the author's hyperparameters). A method is ranked if every cell of the track is
measured with its current source; failures and diverged runs count as the worst score. Others are listed below,
unranked, with their coverage.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lossboard import statistics
from lossboard.protocol import Block, Budget, Suite, Task, Track
from lossboard.records import MEASURED, Key, Record, of_machine, plain, resolve
from lossboard.scales import SCALES, Scale
from lossboard.sources import source


@dataclass(frozen=True)
class Score:
    """One method on one task: mean over seeds with the half-width of its 95 % t interval.

    The folds of a round of cross-validation share their noise and most of their rows: they count as one seed.
    """

    mean: float
    half: float
    seeds: Mapping[int, float]
    trial: int
    params: Mapping[str, float]
    failures: int


@dataclass(frozen=True)
class Row:
    """One method on a board. ``rank`` and ``group`` are None where its coverage is not complete."""

    method: str
    rank: tuple[int, int] | None
    group: int | None
    score: float  # mean over tasks
    half: float
    coverage: float
    stale: bool
    failures: int
    tasks: Mapping[str, Score]
    batches: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """One ranking."""

    suite: str
    track: str
    kind: str  # "tuned" or "default"
    metric: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    scale: Scale  # of the scores, which are averaged values
    tunes: bool = True  # whether there is more than a default to choose from

    @property
    def decides(self) -> bool:
        """Whether there are seeds enough to tell methods apart."""
        return len(self.seeds) >= statistics.FEWEST

    def json(self) -> dict[str, Any]:
        """For programs: one row a method; scores as the scale averages them. Numbers that do not exist are null."""
        head = {key: getattr(self, key) for key in ("suite", "track", "kind", "metric", "tasks", "seeds")}
        return head | {"scale": self.scale.name, "rows": [_json(row) for row in self.rows]}


def _json(row: Row) -> dict[str, Any]:
    return {
        "id": row.method,
        "rank": row.rank,
        "group": row.group,
        "score": _or_null(row.score),
        "half": _or_null(row.half),
        "coverage": row.coverage,
        "stale": row.stale,
        "failures": row.failures,
        "tasks": {
            name: {
                "mean": _or_null(s.mean),
                "half": _or_null(s.half),
                "seeds": len(s.seeds),
                "trial": s.trial,
                "params": dict(s.params),
                "failures": s.failures,
            }
            for name, s in row.tasks.items()
        },
        "batches": row.batches,
    }


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def standings(suite: Suite, track: Track, records: Iterable[Record]) -> list[tuple[Track, list[Record]]]:
    """The parts of a track that have a board each, with their records: by kind of method and, if it matters, machine.

    Parts without records are among them only where there is no machine to name, and a machine of which half of the
    methods or more are stale only where all machines are like that: what is left there of a board is no ranking.
    """
    found, current = [], currency(suite)

    def living(own: Sequence[Record]) -> bool:
        methods = {record.method for record in own}
        alive = {record.method for record in own if record.status in MEASURED and current(record)}
        return 2 * len(alive) > len(methods)

    for division in track.divisions:
        wanted = {task.id for task in division.tasks}
        own = [record for record in records if record.id in wanted and record.header]
        if suite.alone and own:
            machines = sorted({record.header.machine for record in own if record.header})
            of_each = {machine: of_machine(own, machine) for machine in machines}
            kept = [machine for machine in machines if living(of_each[machine])]
            found += [(division.on(machine), of_each[machine]) for machine in kept or machines]
        else:
            found.append((division, own))
    return found


def build(
    suite: Suite, track: Track, records: Iterable[Record], kind: str = "tuned", seeds: Sequence[int] | None = None
) -> Board:
    """The board of a track from these records (published, local, or both)."""
    for seed in seeds or ():
        track.require_seed(seed)
    cut = [Block(b.tasks, tuple(s for s in b.seeds if seeds is None or s in seeds), b.budget) for b in track.blocks]
    blocks = [block for block in cut if block.seeds]
    tasks = [task for block in blocks for task in block.tasks]
    wanted = {task.id for task in tasks}
    current = currency(suite)
    best = resolve([r for r in records if r.id in wanted], current)
    methods = sorted({record.method for record in best.values()})
    rows = [_row(suite, blocks, method, best, kind, current) for method in methods]
    ranked = _ranked([row for row in rows if row.coverage == 1 and not row.stale], blocks)
    rest = sorted((row for row in rows if row.coverage < 1 or row.stale), key=lambda row: (-row.coverage, row.method))
    names = tuple(task.name for task in tasks)
    shown = tuple(sorted({seed for block in blocks for seed in block.seeds}))
    scale = SCALES[suite.metrics.scale]
    return Board(suite.name, track.name, kind, suite.metrics.rank, names, shown, (*ranked, *rest), scale, track.tunes)


def currency(suite: Suite) -> Callable[[Record], bool]:
    """Whether a record is current: made with its method's source of now, at its trial's learning rate of now.

    Budgets are not in the task id, so that more trials orphan nothing; but another learning rate is another trial.
    """
    asked: dict[str, list[tuple[Budget, float | None]]] = defaultdict(list)
    for track in suite.tracks.values():
        for block in track.blocks:
            for task in block.tasks:
                asked[task.id].append((block.budget, task.rate))

    @functools.cache
    def rates(task: str, method: str) -> list[tuple[float | str, ...]]:
        found = [budget.learning_rates(rate, method) for budget, rate in asked.get(task, ())]
        return [tuple(map(plain, each)) for each in found]

    def current(record: Record) -> bool:
        header, rate = record.header, record.params.get("lr")
        known = rate is None or any(
            plain(rate) in each[record.trial : record.trial + 1] for each in rates(record.id, record.method)
        )
        return known and header is not None and source(header.module) == header.source

    return current


def _row(
    suite: Suite,
    blocks: Sequence[Block],
    method: str,
    best: Mapping[Key, Record],
    kind: str,
    current: Callable[[Record], bool],
) -> Row:
    scores: dict[str, Score] = {}
    found = planned = failures = 0
    stale = False
    batches: set[str] = set()
    for block in blocks:
        for task in block.tasks:
            trials = range(len(block.budget.learning_rates(task.rate, method)) if kind == "tuned" else 1)
            table = {
                trial: [
                    best[method, task.id, seed, trial] for seed in block.seeds if (method, task.id, seed, trial) in best
                ]
                for trial in trials
            }
            cells = [record for group in table.values() for record in group]
            planned += len(trials) * len(block.seeds)
            found += sum(record.status in MEASURED and _usable(suite, record) for record in cells)
            stale = stale or not all(map(current, cells))
            batches |= {record.header.file for record in cells if record.header}
            if any(table.values()):
                scores[task.name] = _score(suite, table, task.folds)
                failures += scores[task.name].failures
    total, half = _mean_of(scores, blocks)
    coverage = found / planned if planned else 0.0
    return Row(method, None, None, total, half, coverage, stale, failures, scores, tuple(sorted(batches)))


def _usable(suite: Suite, record: Record) -> bool:
    """Whether a record has a score that can be averaged: a ratio of nothing has not."""
    return math.isfinite(SCALES[suite.metrics.scale].inward(ranked_value(suite, record)))


def _score(suite: Suite, table: Mapping[int, Sequence[Record]], folds: int) -> Score:
    """The trial with the best mean selection metric (the lowest number among equals), and its scores."""

    def selection(trial: int) -> float:
        values = [value(record, suite.metrics.select) for record in table[trial]]
        return sum(values) / len(values)

    trial = max((trial for trial in table if table[trial]), key=lambda trial: (selection(trial), -trial))
    chosen = table[trial]
    inward = SCALES[suite.metrics.scale].inward
    seeds = rounds({record.seed: inward(ranked_value(suite, record)) for record in chosen}, folds)
    mean, half = statistics.t_interval(list(seeds.values()))
    return Score(mean, half, seeds, trial, chosen[0].params, sum(record.status != "ok" for record in chosen))


def rounds(seeds: Mapping[int, float], folds: int) -> dict[int, float]:
    """The mean of each round of so many folds; the same for one fold."""
    groups: dict[int, list[float]] = defaultdict(list)
    for seed, score in sorted(seeds.items()):
        groups[seed // folds].append(score)
    return {number: sum(found) / len(found) for number, found in groups.items()}


def value(record: Record, metric: str, worst: float = 0.0) -> float:
    """A metric of a record; the worst for a failure."""
    number = record.metrics.get(metric, worst) if record.status == "ok" else worst
    return number if math.isfinite(number) else worst


def ranked_value(suite: Suite, record: Record) -> float:
    """The metric that ranks; of a failure the worst that the suite's scale knows."""
    return value(record, suite.metrics.rank, SCALES[suite.metrics.scale].worst)


def strata(tasks: Iterable[Task]) -> dict[str, list[str]]:
    """Dataset -> its tasks' names: what shares splits, weights and batches. A task without a dataset stands alone."""
    found: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        found[task.stratum].append(task.name)
    return dict(found)


def _seed_means(scores: Mapping[str, Score], names: Sequence[str]) -> list[float]:
    """Mean over these tasks for each seed that all of them have."""
    shared = sorted(set.intersection(*(set(scores[name].seeds) for name in names)))
    return [float(np.mean([scores[name].seeds[seed] for name in names])) for seed in shared]


def _mean_of(scores: Mapping[str, Score], blocks: Sequence[Block]) -> tuple[float, float]:
    """Mean over the tasks, with the half-width of its interval over seeds; unknown (nan) where a task is missing."""
    tasks = [task for block in blocks for task in block.tasks]
    if len(scores) < len(tasks):
        return math.nan, math.nan
    groups = strata(tasks)
    mean = float(np.mean([score.mean for score in scores.values()]))
    values = {key: _seed_means(scores, names) for key, names in groups.items()}
    if not all(values.values()):  # a seed is missing somewhere
        return mean, math.nan
    return mean, statistics.stratified(values, {key: len(names) / len(scores) for key, names in groups.items()})[1]


def _ranked(rows: list[Row], blocks: Sequence[Block]) -> list[Row]:
    """These rows, best first, with rank intervals and tie groups."""
    if not rows:
        return []
    groups = strata(task for block in blocks for task in block.tasks)
    count = sum(len(names) for names in groups.values())
    scores = {key: np.array([_seed_means(row.tasks, names) for row in rows]) for key, names in groups.items()}
    better = statistics.significantly_better(scores, {key: len(names) / count for key, names in groups.items()})
    order = sorted(range(len(rows)), key=lambda i: (-rows[i].score, rows[i].method))
    intervals, ties = statistics.rank_intervals(better), statistics.tie_groups(order, better)
    return [replace(rows[i], rank=intervals[i], group=ties[i]) for i in order]


def paired(ours: Score, theirs: Score) -> tuple[float, float] | None:
    """Mean difference over the seeds that both have, with the half-width of its 95 % t interval.

    nan for too few seeds, as on a board: they tell nothing apart. None without a shared seed.
    """
    shared = sorted(ours.seeds.keys() & theirs.seeds.keys())
    if not shared:
        return None
    mean, half = statistics.t_interval([ours.seeds[seed] - theirs.seeds[seed] for seed in shared])
    return mean, half if len(shared) >= statistics.FEWEST else math.nan


def difference(ours: Row, theirs: Row, tasks: Sequence[Task]) -> tuple[float, float] | None:
    """Mean difference over the tasks that both have, paired by seed, with the half-width of its 95 % t interval."""
    shared = [task for task in tasks if task.name in ours.tasks and task.name in theirs.tasks]
    values, weights = {}, {}
    for key, names in strata(shared).items():
        pairs = [(ours.tasks[name].seeds, theirs.tasks[name].seeds) for name in names]
        seeds = sorted(set.intersection(*(set(a) & set(b) for a, b in pairs)))
        values[key] = [float(np.mean([a[seed] - b[seed] for a, b in pairs])) for seed in seeds]
        weights[key] = len(names) / len(shared)
    if not values or not all(values.values()):
        return None
    mean, half = statistics.stratified(values, weights)
    return mean, half if min(map(len, values.values())) >= statistics.FEWEST else math.nan


def friedman(board: Board, track: Track) -> tuple[tuple[str, ...], statistics.Friedman, int] | None:
    """Ranked methods, Friedman's test of them and its number of blocks; None below two methods or blocks.

    A block is one seed of one dataset, a draw of split, noise, weights and batches: in it the methods are ranked by
    their mean over the dataset's tasks. Datasets with more seeds have more blocks.
    """
    rows = [row for row in board.rows if row.rank]
    tasks = [task for task in track.tasks if task.name in board.tasks]
    blocks = [np.array([_seed_means(row.tasks, names) for row in rows]) for names in strata(tasks).values()]
    scores = np.concatenate(blocks, axis=1) if rows else np.empty((0, 0))
    if min(scores.shape) < 2:
        return None
    return tuple(row.method for row in rows), statistics.friedman(scores), scores.shape[1]


@dataclass(frozen=True)
class Comparison:
    """How the means of one set of records compare with another's, over the cells that both have."""

    cells: int
    with_bits: int  # both records have a fingerprint of what was trained
    same_bits: int
    largest: float  # of the differences of a method's mean on a task
    where: str


def compare(suite: Suite, ours: Iterable[Record], theirs: Iterable[Record]) -> Comparison:
    """Local records beside published ones, cell by cell (same method source, task, seed, trial and hyperparameters)."""
    known = {(*r.key, r.header.source if r.header else ""): r for r in theirs}
    pairs = [(r, known[k]) for r in ours if (k := (*r.key, r.header.source if r.header else "")) in known]
    pairs = [(a, b) for a, b in pairs if a.params == b.params]
    groups: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for a, b in pairs:
        groups[a.method, a.task, a.trial].append(ranked_value(suite, a) - ranked_value(suite, b))
    means = {key: abs(sum(values) / len(values)) for key, values in groups.items()}
    worst = max(means, key=lambda key: means[key], default=None)
    both = [(a.bits, b.bits) for a, b in pairs if a.bits and b.bits]
    same = sum(a == b for a, b in both)
    where = f"{worst[0]} on {worst[1]}, trial {worst[2]}" if worst else ""
    return Comparison(len(pairs), len(both), same, means[worst] if worst else 0.0, where)

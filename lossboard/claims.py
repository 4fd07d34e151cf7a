"""Claims: what papers say of methods, as checks over records. No torch.

A claim is a statement in our words with its source and a list of comparisons that must all hold. A comparison is an
effect with a simultaneous 95 % interval over seeds, paired by construction (same data, noise, weights and batches), on
tasks that the claim names; it speaks of these tasks. The verdict follows from the interval and nothing else:

- *holds*: every comparison's interval lies on the side that the claim says.
- *does not hold*: some comparison's interval excludes an effect that matters.
- *not resolved*: neither; more seeds would tell.
- *not tested*: a method or every task that it needs has no complete records.

A suite's claims are ``CLAIMS`` in ``suites/<suite>/claims.py``.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossboard import board, paths, statistics
from lossboard.board import Board
from lossboard.errors import UsageError
from lossboard.protocol import Suite, Task, Track
from lossboard.records import Record, resolve

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "not resolved", "not tested"
MATTERS = 0.005  # half a point of accuracy: less is no reason to choose a method
LEVEL = 0.95  # of all intervals of a claim at once (Bonferroni)
EVIDENCE = {  # how we know that the source says so
    "code": "read in the authors' code",
    "abstract": "stated in the abstract",
    "secondary": "from a later publication or a review",
    "derived": "follows from the formula",
    "recalled": "from memory of the paper, not confirmed",
}


@dataclass(frozen=True)
class On:
    """The tasks that a claim is about: kinds of corruption, their rates and the numbers of classes."""

    kinds: tuple[str, ...] = ()  # of corruption; none: every kind with labels that are wrong
    least: float = 0.0  # noise rate
    most: float = 1.0
    classes: int = 2  # at least so many

    def holds(self, task: Task) -> bool:
        from lossboard.data import pins

        kind, rate = task.corruption.kind, task.corruption.rate
        wanted = kind in (self.kinds or (kind,)) and (kind == CLEAN) == (self.kinds == (CLEAN,))
        return wanted and self.least <= rate <= self.most and pins()[task.dataset].classes >= self.classes

    @property
    def words(self) -> str:
        """'clean labels', 'uniform noise of 60 % and more, at least 20 classes'."""
        kinds = " and ".join(dict.fromkeys(KINDS.get(kind, kind.replace("_", " ")) for kind in self.kinds))
        text = "clean labels" if self.kinds == (CLEAN,) else f"{kinds} noise".lstrip()
        if self.least > 0:
            text += f" of {100 * self.least:g} % and more" if self.most == 1 else f" from {100 * self.least:g} %"
        if self.most < 1:
            text += f" to {100 * self.most:g} %"
        return text + (f", at least {self.classes} classes" if self.classes > 2 else "")


CLEAN = "clean"
UNIFORM = ("uniform_ldr", "symmetric")  # over all classes, and over the others
CLASS_DEPENDENT = ("class_dependent", "asymmetric", "asymmetric_apl")
KINDS = {**dict.fromkeys(UNIFORM, "uniform"), **dict.fromkeys(CLASS_DEPENDENT, "class-dependent")}


@dataclass(frozen=True)
class Comparison:
    """``ours`` beside ``other`` on some tasks, at their tuned trials. What is asked of the effect is one of

    - ``better``: the mean metric is better; less than :data:`MATTERS` does not count as better.
    - ``not worse``: it is not worse by more than :data:`MATTERS`.
    - ``loses less``: from the clean labels of the same datasets to these tasks the metric falls less.
    - ``varies less``: the standard deviation over seeds is smaller; the effect is the ratio of the two.
    """

    ours: str
    other: str
    on: On
    asks: str = "better"
    metric: str = ""  # of the records; empty: the one that ranks
    smaller: bool = False  # the smaller value of the metric is better


@dataclass(frozen=True)
class Claim:
    """One statement of a publication."""

    id: str
    statement: str
    source: str  # as the citation of a method's module
    evidence: str  # one of EVIDENCE
    parts: tuple[Comparison, ...]
    remark: str = ""

    def __post_init__(self) -> None:
        if self.evidence not in EVIDENCE:
            raise UsageError(f"claim '{self.id}': evidence '{self.evidence}'; there are: {', '.join(EVIDENCE)}")
        if not self.parts or any(part.asks not in ASKS for part in self.parts):
            raise UsageError(f"claim '{self.id}': comparisons that ask one of: {', '.join(ASKS)}")


@dataclass(frozen=True)
class Finding:
    """What the records of a track say of one comparison. Effects of ``varies less`` are ratios, others differences."""

    part: Comparison
    verdict: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    tasks: tuple[str, ...] = ()
    seeds: int = 0  # of the dataset with the fewest
    reason: str = ""  # why it was not tested

    @property
    def words(self) -> str:
        """'+2.17 points (0.73 to 3.62)', '0.85 times (0.42 to 1.70)'; '' where it was not tested."""
        if self.verdict == UNTESTED:
            return ""
        ratio = self.part.asks == "varies less"
        scale, sign, unit = (1, "", "times") if ratio else (100, "+", "points")
        if not math.isfinite(self.effect):
            return "no variance to compare"
        text = f"{scale * self.effect:{sign}.2f} {unit}"
        if math.isfinite(self.low):
            text += f" ({scale * self.low:.2f} to {scale * self.high:.2f})"
        return text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Verdict:
    """What the records of one track say of a claim."""

    claim: Claim
    track: str
    verdict: str
    findings: tuple[Finding, ...]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(task.split("/")[0] for found in self.findings for task in found.tasks))

    @property
    def tested(self) -> bool:
        return any(found.verdict != UNTESTED for found in self.findings)


@dataclass(frozen=True)
class Assessment:
    """A claim with a verdict of every track that has records; ``best`` is of the one that tests it on most datasets."""

    claim: Claim
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def best(self) -> Verdict | None:
        return max(self.verdicts, key=lambda one: (one.verdict != UNTESTED, len(one.datasets)), default=None)

    @property
    def verdict(self) -> str:
        return self.best.verdict if self.best else UNTESTED


def claims(suite: str) -> tuple[Claim, ...]:
    """The claims of a suite, or none where it has no claims.py."""
    path = paths.suites() / suite / "claims.py"
    if not path.is_file():
        return ()
    paths.importable()
    found: tuple[Claim, ...] = tuple(importlib.import_module(f"suites.{suite}.claims").CLAIMS)
    twice = sorted({claim.id for claim in found if sum(other.id == claim.id for other in found) > 1})
    if twice:
        raise UsageError(f"{path}: claims with one id: {', '.join(twice)}")
    return found


def assess(suite: Suite, records: Iterable[Record]) -> list[Assessment]:
    """Every claim of the suite on every track that has records."""
    known, current = list(records), board.currency(suite)
    evidence = []
    for track in suite.tracks.values():
        found = Evidence(suite, track, known, current)
        if found.board.rows:
            evidence.append(found)
    return [Assessment(claim, tuple(judge(claim, found) for found in evidence)) for claim in claims(suite.name)]


class Evidence:
    """The records of a track: metrics of each method at its tuned trial, task by task and seed by seed."""

    def __init__(
        self, suite: Suite, track: Track, records: Sequence[Record], current: Callable[[Record], bool] | None = None
    ) -> None:
        current = current or board.currency(suite)
        wanted = {task.id for task in track.tasks}
        self.suite, self.track = suite, track
        self.best = {
            key: record
            for key, record in resolve((r for r in records if r.id in wanted), current).items()
            if current(record)
        }
        self.board: Board = board.build(suite, track, list(self.best.values()))
        self.rows = {row.method: row for row in self.board.rows}
        self.seeds = {task.name: block.seeds for block in track.blocks for task in block.tasks}

    def values(self, method: str, task: Task, metric: str, smaller: bool) -> dict[int, float] | None:
        """Seed -> value at the tuned trial, a failure as the worst (0, or 1 where smaller is better); None if a seed
        is missing."""
        row = self.rows.get(method)
        score = row.tasks.get(task.name) if row else None
        if score is None:
            return None
        found = {}
        for seed in self.seeds[task.name]:
            record = self.best.get((method, task.id, seed, score.trial))
            if record is None:
                return None
            value = record.metrics.get(metric, math.nan) if record.status == "ok" else math.nan
            found[seed] = value if math.isfinite(value) else float(smaller)
        return found


Strata = Mapping[str, Sequence[float]]  # dataset -> a value for each seed


def _gains(evidence: Evidence, part: Comparison, tasks: Sequence[Task]) -> Strata:
    """Dataset -> by how much ours is better, for each seed: the mean over the dataset's tasks."""
    sign = -1.0 if part.smaller else 1.0
    groups: dict[str, list[dict[int, float]]] = {}
    for task in tasks:
        ours, other = (evidence.values(m, task, _metric(evidence, part), part.smaller) for m in (part.ours, part.other))
        assert ours is not None
        assert other is not None
        groups.setdefault(task.dataset, []).append({seed: sign * (ours[seed] - other[seed]) for seed in ours})
    return {key: [float(np.mean([each[seed] for each in found])) for seed in found[0]] for key, found in groups.items()}


def _metric(evidence: Evidence, part: Comparison) -> str:
    return part.metric or evidence.suite.metrics.rank


def _better(evidence: Evidence, part: Comparison, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    return _mean(_gains(evidence, part, tasks), tasks, level)


def _loses_less(evidence: Evidence, part: Comparison, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    clean = {task.dataset: task for task in evidence.track.tasks if task.corruption.kind == CLEAN}
    noisy, before = (_gains(evidence, part, chosen) for chosen in (tasks, [clean[name] for name in _datasets(tasks)]))
    change = {key: [a - b for a, b in zip(noisy[key], before[key], strict=True)] for key in noisy}
    return _mean(change, tasks, level)


def _mean(values: Strata, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    weights = {key: sum(task.dataset == key for task in tasks) / len(tasks) for key in values}
    return statistics.stratified(values, weights, level)


def _varies_less(evidence: Evidence, part: Comparison, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    """Logarithm of the ratio of the standard deviations over seeds, with the half-width of its F interval.

    Variances are pooled over tasks. The tasks of a dataset share their draws, so a dataset has the degrees of freedom
    of one of them; that the two methods are paired makes the interval wider than need be.
    """
    pooled = []
    for method in (part.ours, part.other):
        found = [evidence.values(method, task, _metric(evidence, part), part.smaller) for task in tasks]
        pooled.append(float(np.mean([np.var(list(each.values()), ddof=1) for each in found if each is not None])))
    freedom = sum(len(evidence.seeds[_first(tasks, name).name]) - 1 for name in _datasets(tasks))
    if min(pooled) <= 0:
        return math.nan, math.nan
    from scipy.stats import f

    return 0.5 * math.log(pooled[0] / pooled[1]), 0.5 * math.log(float(f.ppf((1 + level) / 2, freedom, freedom)))


def _datasets(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(task.dataset for task in tasks))


def _first(tasks: Sequence[Task], dataset: str) -> Task:
    return next(task for task in tasks if task.dataset == dataset)


@dataclass(frozen=True)
class _Question:
    """How an effect is estimated, and above which the interval must lie to hold, below which to fail."""

    estimate: Callable[[Evidence, Comparison, Sequence[Task], float], tuple[float, float]]
    holds_above: float
    fails_below: float


ASKS = {
    "better": _Question(_better, 0.0, MATTERS),
    "not worse": _Question(_better, -MATTERS, -MATTERS),
    "loses less": _Question(_loses_less, 0.0, MATTERS),
    "varies less": _Question(_varies_less, math.nan, math.nan),  # a ratio: below 1 holds, above fails
}


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """The verdict of one track's records."""
    level = 1 - (1 - LEVEL) / len(claim.parts)
    findings = tuple(_finding(part, evidence, level) for part in claim.parts)
    seen = {found.verdict for found in findings}
    verdict = next((each for each in (FAILS, UNTESTED, OPEN) if each in seen), HOLDS)
    return Verdict(claim, evidence.track.name, verdict, findings)


def _finding(part: Comparison, evidence: Evidence, level: float) -> Finding:
    tasks = [task for task in evidence.track.tasks if part.on.holds(task)]
    if part.asks == "loses less":
        clean = {task.dataset for task in evidence.track.tasks if task.corruption.kind == CLEAN}
        tasks = [task for task in tasks if task.dataset in clean]
    reason = _untested(part, evidence, tasks)
    if reason:
        return Finding(part, UNTESTED, reason=reason)
    question = ASKS[part.asks]
    names = tuple(task.name for task in tasks)
    counts = [len(evidence.seeds[name]) for name in names]
    mean, half = question.estimate(evidence, part, tasks, level)
    if max(counts) < statistics.FEWEST:
        half = math.nan
    low, high = mean - half, mean + half
    if part.asks == "varies less":
        mean, low, high = (math.exp(value) for value in (mean, low, high))
        verdict = HOLDS if high < 1 else FAILS if low > 1 else OPEN
    else:
        verdict = HOLDS if low > question.holds_above else FAILS if high < question.fails_below else OPEN
    return Finding(part, verdict, mean, low, high, names, min(counts))


def _untested(part: Comparison, evidence: Evidence, tasks: Sequence[Task]) -> str:
    """Why the records do not speak to a comparison; '' if they do."""
    if not tasks:
        return f"the track has no task with {part.on.words}"
    needed = list(tasks)
    if part.asks == "loses less":
        needed += [t for t in evidence.track.tasks if t.corruption.kind == CLEAN and t.dataset in _datasets(tasks)]
    for method in (part.ours, part.other):
        missing = [
            task.name
            for task in needed
            if evidence.values(method, task, _metric(evidence, part), part.smaller) is None
            or not _tuned(evidence, method, task)
        ]
        if missing:
            return f"{method} has no complete records of {missing[0]}" + (" and others" if len(missing) > 1 else "")
    return ""


def _tuned(evidence: Evidence, method: str, task: Task) -> bool:
    """Whether every trial and seed of the task is measured: else the chosen trial may change."""
    block = next(block for block in evidence.track.blocks if task in block.tasks)
    trials = range(len(block.budget.learning_rates(task.recipe, method)))
    return all((method, task.id, seed, trial) in evidence.best for seed in block.seeds for trial in trials)


def as_json(found: Iterable[Assessment]) -> list[dict[str, Any]]:
    """For programs; numbers that do not exist are null."""
    return [
        {
            "id": each.claim.id,
            "statement": each.claim.statement,
            "source": each.claim.source,
            "evidence": each.claim.evidence,
            "verdict": each.verdict,
            "tracks": [
                {"track": one.track, "verdict": one.verdict, "comparisons": [_comparison(f) for f in one.findings]}
                for one in each.verdicts
            ],
        }
        for each in found
    ]


def _comparison(found: Finding) -> dict[str, Any]:
    part = found.part
    numbers = {key: getattr(found, key) for key in ("effect", "low", "high")}
    return {
        "ours": part.ours,
        "other": part.other,
        "asks": part.asks,
        "metric": part.metric,
        "on": part.on.words,
        "verdict": found.verdict,
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        "tasks": list(found.tasks),
        "seeds": found.seeds,
        "reason": found.reason,
    }

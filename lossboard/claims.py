"""Claims: what papers say of methods, as checks over records. No torch.

A claim is a statement in our words with its source and a list of comparisons that must all hold. A comparison is an
effect with a simultaneous 95 % interval over seeds, paired by construction (same data, noise, weights and batches), on
tasks that the claim names; it speaks of these tasks. The verdict follows from the interval and nothing else:

- *holds*: every comparison's interval lies on the side that the claim says.
- *does not hold*: some comparison's interval lies on the other side, or is so close to zero that nothing matters.
- *not resolved*: neither, or fewer than five seeds.
- *not tested*: a method or every task that it needs has no complete records.

Every board of every track judges a claim; where they contradict each other it *depends on the track*
(:class:`Assessment`).

A suite's claims are ``CLAIMS`` in ``suites/<suite>/claims.py``.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossboard import board, paths, statistics
from lossboard.board import Board
from lossboard.errors import UsageError
from lossboard.protocol import Suite, Task, Track
from lossboard.records import MEASURED, Record, resolve
from lossboard.scales import SCALES

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "not resolved", "not tested"
DEPENDS = "depends on the track"
MATTERS = 0.005  # half a point of accuracy: less is no reason to choose a method
LEVEL = 0.95  # of all intervals of a claim at once (Bonferroni)
LOSES_LESS, GAINS_MORE = "loses less", "gains more"  # what comparisons of differences ask
VERDICTS = {  # as they are shown, and what each means
    HOLDS: "every comparison comes out as the claim says",
    DEPENDS: "it holds on one board or kind of track, and does not hold on another",
    FAILS: "some comparison comes out the other way, or with no difference that matters",
    OPEN: "the intervals allow both",
    UNTESTED: "a method or the tasks that it needs have no complete records",
}
EVIDENCE = {  # how we know that the source says so
    "code": "it is in the authors' code",
    "abstract": "the abstract says so",
    "secondary": "a later publication says that they do",
    "derived": "our conclusion from what they prove",
    "recalled": "recalled from the paper, not confirmed",
}


@dataclass(frozen=True)
class On:
    """The tasks that a claim is about: kinds of corruption, their rates, the numbers of classes, and datasets."""

    kinds: tuple[str, ...] = ()  # of corruption; none: every kind with labels that are wrong
    least: float = 0.0  # noise rate
    most: float = 1.0
    classes: int = 2  # at least so many
    datasets: tuple[str, ...] = ()  # none: all of them

    def holds(self, task: Task) -> bool:
        from lossboard.data import pins

        kind, rate = task.corruption.kind, task.corruption.rate
        wanted = kind in (self.kinds or (kind,)) and (kind == CLEAN) == (self.kinds == (CLEAN,))
        wanted = wanted and (not self.datasets or task.dataset in self.datasets)
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
        text += f", at least {self.classes} classes" if self.classes > 2 else ""
        return text + (f", of {' and '.join(self.datasets)}" if self.datasets else "")


CLEAN = "clean"
UNIFORM = ("uniform_ldr", "symmetric")  # over all classes, and over the others
CLASS_DEPENDENT = ("class_dependent", "asymmetric", "asymmetric_apl")
KINDS = {**dict.fromkeys(UNIFORM, "uniform"), **dict.fromkeys(CLASS_DEPENDENT, "class-dependent")}


@dataclass(frozen=True)
class Comparison:
    """``ours`` beside ``other`` on some tasks, at their tuned trials. What is asked of the effect is one of

    - ``better``: the mean metric is better. It fails where it is worse, or where both ends of the interval are within
      ``matters`` of zero: a gain that is sure, but too small to matter, is none.
    - ``not worse``: it is not worse by more than ``matters``.
    - ``gains more``: it is further ahead on these tasks than on those of ``beyond``; judged as ``better`` is.
    - ``loses less``: from the clean labels of the same datasets to these tasks the metric falls less; judged as
      ``better`` is. A method that is poor everywhere loses little, so a claim asks more than this.
    - ``varies less``: the standard deviation over seeds is smaller; the effect is the ratio of the two.

    A metric is a share, from 0 to 1; a failed run has the worst of the two.
    """

    ours: str
    other: str
    on: On
    asks: str = "better"
    metric: str = ""  # of the records; empty: the one that ranks
    smaller: bool = False  # the smaller value of the metric is better
    matters: float = MATTERS  # differences below this are no reason to choose a method
    beyond: On | None = None  # of ``gains more``: the tasks whose gain is taken off

    @property
    def where(self) -> str:
        return self.on.words + (f", beside {self.beyond.words}" if self.beyond else "")


@dataclass(frozen=True)
class Claim:
    """One statement of a publication."""

    id: str
    statement: str
    source: str  # as the citation of a method's module
    evidence: str  # one of EVIDENCE
    parts: tuple[Comparison, ...]
    remark: str = ""

    @property
    def methods(self) -> list[str]:
        return sorted({method for part in self.parts for method in (part.ours, part.other)})

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise UsageError(f"claim '{self.id}': an id is lower-case words and numbers with hyphens between them")
        if self.evidence not in EVIDENCE:
            raise UsageError(f"claim '{self.id}': evidence '{self.evidence}'; there are: {', '.join(EVIDENCE)}")
        if not self.parts or any(part.asks not in ASKS for part in self.parts):
            raise UsageError(f"claim '{self.id}': comparisons that ask one of: {', '.join(ASKS)}")
        if any((part.asks == GAINS_MORE) is (part.beyond is None) for part in self.parts):
            raise UsageError(f"claim '{self.id}': beyond=... goes with '{GAINS_MORE}', and with nothing else")


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
    def difference(self) -> tuple[float, float] | None:
        """The effect with its half-width, for a picture; None of a ratio, and where nothing was tested."""
        known = self.verdict != UNTESTED and self.part.asks != "varies less"
        return (self.effect, self.high - self.effect) if known else None

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
    kind: tuple[str, ...] = ()  # of the track, see :func:`_kind`

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(task.split("/")[0] for found in self.findings for task in found.tasks))

    @property
    def tested(self) -> bool:
        return any(found.verdict != UNTESTED for found in self.findings)

    @property
    def decided(self) -> bool:
        return self.verdict in (HOLDS, FAILS)

    def overrules(self, other: Verdict) -> bool:
        """Whether it decides the same question on more datasets."""
        return self.decided and self.kind == other.kind and len(self.datasets) > len(other.datasets)


@dataclass(frozen=True)
class Assessment:
    """A claim with a verdict of every track that has records.

    Tracks of one kind ask the same at several sizes, ``quick`` of one dataset and ``cpu`` of nine: of those that decide
    the claim the one with the most datasets counts, and what a smaller one says to the contrary is told beside it.
    Different boards of one track (sets with few labels, and with many) and different kinds of tracks (networks that are
    trained, and predictions that are given) ask different things, so that none overrules another however many datasets
    it has: if one of them holds and another does not, the claim depends on the track.

    ``best`` is of the track that decides it, or else tests it, on the most datasets.
    """

    claim: Claim
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def best(self) -> Verdict | None:
        def weight(one: Verdict) -> tuple[bool, bool, int]:
            return one.decided, one.verdict != UNTESTED, len(one.datasets)

        return max(self.verdicts, key=weight, default=None)

    @property
    def shown(self) -> tuple[Verdict, ...]:
        """What makes the verdict: the best, or all that count where these contradict each other."""
        counting = [one for one in self.verdicts if one.decided and not self._overruling(one)]
        if len({one.verdict for one in counting}) > 1:
            return tuple(sorted(counting, key=lambda one: (one.verdict != HOLDS, -len(one.datasets))))
        return (self.best,) if self.best else ()

    @property
    def dissenting(self) -> tuple[Verdict, ...]:
        """What smaller tracks say to the contrary."""
        return tuple(
            one
            for one in self.verdicts
            if one.decided and any(other.verdict != one.verdict for other in self._overruling(one))
        )

    def _overruling(self, one: Verdict) -> list[Verdict]:
        return [other for other in self.verdicts if other.overrules(one)]

    @property
    def verdict(self) -> str:
        found = {one.verdict for one in self.shown}
        return DEPENDS if len(found) > 1 else next(iter(found), UNTESTED)

    @property
    def contradictions(self) -> str:
        """'holds on cpu-many; does not hold on cpu-multilabel', 'does not hold on quick, of fewer datasets', or ''."""
        counting = self.shown if self.verdict == DEPENDS else ()
        said = [f"{one.verdict} on {one.track}" for one in counting]
        return "; ".join([*said, *(f"{one.verdict} on {one.track}, of fewer datasets" for one in self.dissenting)])


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


def by_verdict(found: Sequence[Assessment]) -> list[tuple[str, list[Assessment]]]:
    """The claims of each verdict that there is, in the order of :data:`VERDICTS`."""
    groups = {word: [each for each in found if each.verdict == word] for word in VERDICTS}
    return [(word, group) for word, group in groups.items() if group]


def assess(suite: Suite, records: Iterable[Record]) -> list[Assessment]:
    """Every claim of the suite on every track that has records."""
    known, current = list(records), board.currency(suite)
    evidence = []
    for part, own in (each for track in suite.tracks.values() for each in board.standings(suite, track, known)):
        found = Evidence(suite, part, own, current)
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
            if current(record) and record.status in MEASURED
        }
        self.board: Board = board.build(suite, track, list(self.best.values()))
        self.rows = {row.method: row for row in self.board.rows}
        self.seeds = {task.name: block.seeds for block in track.blocks for task in block.tasks}

    def values(self, method: str, task: Task, metric: str, smaller: bool) -> dict[int, float] | None:
        """Seed -> value at the tuned trial, that of a diverged run as the worst (0, or 1 where smaller is better).

        None where a seed has no record, or its record not this metric.

        Raises:
            UsageError: the metric is no share.
        """
        row = self.rows.get(method)
        score = row.tasks.get(task.name) if row else None
        if score is None:
            return None
        found = {}
        for seed in self.seeds[task.name]:
            record = self.best.get((method, task.id, seed, score.trial))
            if record is None or (record.status == "ok" and metric not in record.metrics):
                return None
            value = record.metrics[metric] if record.status == "ok" else math.nan
            if not 0 <= value <= 1 and math.isfinite(value):
                raise UsageError(f"claims compare shares from 0 to 1; {metric} of {method} on {task.name} is {value:g}")
            found[seed] = value if math.isfinite(value) else float(smaller)
        return found


Strata = Mapping[str, Sequence[float]]  # dataset -> a value for each seed


def _gains(evidence: Evidence, part: Comparison, tasks: Sequence[Task]) -> Strata:
    """Dataset -> by how much ours is better, for each seed: the mean over the dataset's tasks."""
    smaller = _smaller(evidence, part)
    sign = -1.0 if smaller else 1.0
    groups: dict[str, list[dict[int, float]]] = {}
    for task in tasks:
        ours, other = (evidence.values(m, task, _metric(evidence, part), smaller) for m in (part.ours, part.other))
        assert ours is not None
        assert other is not None
        groups.setdefault(task.dataset, []).append({seed: sign * (ours[seed] - other[seed]) for seed in ours})
    return {key: [float(np.mean([each[seed] for each in found])) for seed in found[0]] for key, found in groups.items()}


def _metric(evidence: Evidence, part: Comparison) -> str:
    return part.metric or evidence.suite.metrics.rank


def _smaller(evidence: Evidence, part: Comparison) -> bool:
    """Whether the smaller value is better: as the comparison says, or the suite's scale of the metric that ranks."""
    return part.smaller or (not part.metric and SCALES[evidence.suite.metrics.scale].smaller)


def _better(evidence: Evidence, part: Comparison, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    return _mean(_gains(evidence, part, tasks), tasks, level)


def _contrast(evidence: Evidence, part: Comparison, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    """By how much more ours is ahead on these tasks than on those whose gain is taken off; datasets are strata."""
    terms: dict[str, list[list[float]]] = {}
    for sign, chosen in ((1, tasks), (-1, _taken_off(evidence, part, tasks))):
        for key, share in _shares(chosen).items():
            own = _gains(evidence, part, [task for task in chosen if task.dataset == key])[key]
            terms.setdefault(key, []).append([sign * share * each for each in own])
    change = {key: [sum(seed) for seed in zip(*found, strict=True)] for key, found in terms.items()}
    return statistics.stratified(change, dict.fromkeys(change, 1.0), level)


def _taken_off(evidence: Evidence, part: Comparison, tasks: Sequence[Task]) -> list[Task]:
    """Of ``loses less`` the clean labels of each task's dataset, of ``gains more`` what the comparison names."""
    if part.beyond:
        return [task for task in evidence.track.tasks if part.beyond.holds(task)]
    clean = _clean(evidence) if part.asks == LOSES_LESS else {}
    return [clean[task.dataset] for task in tasks if task.dataset in clean]


def _clean(evidence: Evidence) -> dict[str, Task]:
    return {task.dataset: task for task in evidence.track.tasks if task.corruption.kind == CLEAN}


def _mean(values: Strata, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    return statistics.stratified(values, _shares(tasks), level)


def _shares(tasks: Sequence[Task]) -> dict[str, float]:
    """Dataset -> its share of the tasks."""
    return {key: sum(task.dataset == key for task in tasks) / len(tasks) for key in _datasets(tasks)}


def _varies_less(evidence: Evidence, part: Comparison, tasks: Sequence[Task], level: float) -> tuple[float, float]:
    """Logarithm of the ratio of the standard deviations over seeds, with the half-width of its interval.

    Variances are pooled over the tasks of a dataset, which share their draws. One dataset has the F interval of one of
    them; that the methods are paired makes it wider than need be. Several, whose variances need not be alike, have the
    t interval of their logarithms.
    """
    logs = {}
    for name in _datasets(tasks):
        pooled = []
        for method in (part.ours, part.other):
            own = (task for task in tasks if task.dataset == name)
            smaller = _smaller(evidence, part)
            found = [evidence.values(method, task, _metric(evidence, part), smaller) for task in own]
            pooled.append(float(np.mean([np.var(list(each.values()), ddof=1) for each in found if each is not None])))
        if min(pooled) <= 0:
            return math.nan, math.nan
        logs[name] = [0.5 * math.log(pooled[0] / pooled[1])]
    if len(logs) > 1:
        return statistics.across(logs, level)
    from scipy.stats import f

    freedom = len(evidence.seeds[tasks[0].name]) - 1
    return logs[tasks[0].dataset][0], 0.5 * math.log(float(f.ppf((1 + level) / 2, freedom, freedom)))


def _datasets(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(task.dataset for task in tasks))


def _improves(low: float, high: float, matters: float) -> str:
    nothing = low > -matters and high < matters
    return FAILS if high < 0 or nothing else HOLDS if low > 0 else OPEN


def _keeps_up(low: float, high: float, matters: float) -> str:
    return HOLDS if low > -matters else FAILS if high < -matters else OPEN


def _is_below(low: float, high: float, matters: float) -> str:
    """Of the logarithm of a ratio."""
    return HOLDS if high < 0 else FAILS if low > 0 else OPEN


ASKS = {  # what is asked -> how the effect is estimated, and the verdict on its interval
    "better": (_better, _improves),
    "not worse": (_better, _keeps_up),
    LOSES_LESS: (_contrast, _improves),
    GAINS_MORE: (_contrast, _improves),
    "varies less": (_varies_less, _is_below),
}


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """The verdict of one track's records."""
    level = 1 - (1 - LEVEL) / len(claim.parts)
    findings = tuple(_finding(part, evidence, level) for part in claim.parts)
    seen = {found.verdict for found in findings}
    verdict = next((each for each in (FAILS, UNTESTED, OPEN) if each in seen), HOLDS)
    return Verdict(claim, evidence.track.name, verdict, findings, _kind(evidence.track))


def _kind(track: Track) -> tuple[str, ...]:
    """What tracks that ask the same at different sizes have in common: the board, and what their tasks are made of."""
    return (track.blocks[0].ranked_on, *sorted({section for task in track.tasks for section in task.parts}))


def _finding(part: Comparison, evidence: Evidence, level: float) -> Finding:
    tasks = [task for task in evidence.track.tasks if part.on.holds(task)]
    if part.asks == LOSES_LESS:
        tasks = [task for task in tasks if task.dataset in _clean(evidence)]
    reason = _untested(part, evidence, tasks)
    if reason:
        return Finding(part, UNTESTED, reason=reason)
    estimate, decide = ASKS[part.asks]
    beyond = _taken_off(evidence, part, tasks) if part.beyond else []
    names = tuple(task.name for task in (*tasks, *beyond))
    counts = [len(evidence.seeds[name]) for name in names]
    mean, half = estimate(evidence, part, tasks, level)
    constant = half < 1e-12 < abs(mean) and 2.0 ** (1 - max(counts)) > 1 - level  # then the sign test decides
    if max(counts) < statistics.FEWEST or constant:
        half = math.nan
    low, high = mean - half, mean + half
    verdict = decide(low, high, part.matters)  # nothing that is compared with nan holds or fails
    if part.asks == "varies less":
        mean, low, high = (math.exp(value) for value in (mean, low, high))
    return Finding(part, verdict, mean, low, high, names, min(counts))


def _untested(part: Comparison, evidence: Evidence, tasks: Sequence[Task]) -> str:
    """Why the records do not speak to a comparison; '' if they do."""
    beyond = _taken_off(evidence, part, tasks)
    for on, found in ((part.on, tasks), *([(part.beyond, beyond)] if part.beyond else [])):
        if not found:
            return f"the track has no task with {on.words}"
    needed = list(dict.fromkeys([*tasks, *beyond]))
    if any(task.folds > 1 for task in needed):
        return "the folds of a round share their noise: there are no independent seeds"
    for method in (part.ours, part.other):
        missing = [
            task.name
            for task in needed
            if evidence.values(method, task, _metric(evidence, part), _smaller(evidence, part)) is None
            or not _tuned(evidence, method, task)
        ]
        if missing:
            what = f" with {part.metric}" if part.metric else ""
            more = " and others" if len(missing) > 1 else ""
            return f"{method} has no complete records{what} of {missing[0]}{more}"
    return ""


def _tuned(evidence: Evidence, method: str, task: Task) -> bool:
    """Whether every trial and seed of the task is measured: else the chosen trial may change."""
    block = next(block for block in evidence.track.blocks if task in block.tasks)
    trials = range(len(block.budget.learning_rates(task.rate, method)))
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
            "contradictions": each.contradictions,
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
        "on": part.where,
        "verdict": found.verdict,
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        "tasks": list(found.tasks),
        "seeds": found.seeds,
        "reason": found.reason,
    }

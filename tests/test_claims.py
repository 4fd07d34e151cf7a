"""Claims: verdicts from intervals, what is not tested and why, simulation with known truth, and the suite's own."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy
from scipy import stats

from lossboard import board, claims, protocol
from lossboard.claims import DEPENDS, FAILS, GAINS_MORE, HOLDS, OPEN, UNTESTED, Claim, Comparison, Evidence, On, judge
from lossboard.errors import UsageError
from lossboard.records import Header, Record
from reference.methods import catalogue

HEADER = Header("toy", "toy_method", "s", "0" * 40, False, {}, {}, "2026", "batch")
NOISE, CLEAN = On(), On(("clean",))


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> protocol.Suite:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(toy.make(tmp_path)))
    monkeypatch.setattr(board, "source", lambda module: "s")
    return protocol.load("toy")


def fill(suite: protocol.Suite, method: str, score) -> list[Record]:
    """A record for each cell, with score(task, seed); the second trial is never chosen."""
    return [
        Record(
            method, task.name, task.id, seed, trial, {"lr": [0.1, 0.2][trial]}, "ok",
            {"last": score(task.name, seed), "val": 0.5 - trial, "ece": score(task.name, seed)}, header=HEADER,
        )
        for task in suite.track("quick").tasks
        for seed in range(5)
        for trial in range(2)
    ]  # fmt: skip


def found(suite: protocol.Suite, records: list[Record], *parts: Comparison) -> claims.Verdict:
    claim = Claim("id", "statement", "source", "abstract", parts)
    return judge(claim, Evidence(suite, suite.track("quick"), records))


def wobble(seed: int, size: float = 0.01) -> float:
    return size * [0.0, 1.0, -1.0, 0.4, 0.1][seed]


def test_an_effect_is_the_paired_t_interval(suite: protocol.Suite) -> None:
    ours, other = (np.random.default_rng(i).normal(0.8, 0.02, 5) for i in (1, 2))
    records = fill(suite, "a", lambda task, seed: ours[seed]) + fill(suite, "b", lambda task, seed: other[seed])
    (one,) = found(suite, records, Comparison("a", "b", NOISE)).findings
    expected = stats.ttest_rel(ours, other).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((expected.low, expected.high))
    assert one.effect == pytest.approx((ours - other).mean())
    assert (one.tasks, one.seeds) == (("digits/dirty",), 5)


def test_the_intervals_of_a_claim_hold_at_once(suite: protocol.Suite) -> None:
    records = [r for i in range(3) for r in fill(suite, "abc"[i], lambda t, s, i=i: 0.5 + wobble(s) * (i + 1))]
    alone = found(suite, records, Comparison("a", "b", NOISE)).findings[0]
    both = found(suite, records, Comparison("a", "b", NOISE), Comparison("a", "c", NOISE)).findings[0]
    ratio = stats.t.ppf(1 - 0.025 / 2, 4) / stats.t.ppf(1 - 0.025, 4)
    assert (both.high - both.low) / (alone.high - alone.low) == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("gain", "size", "asks", "verdict"),
    [
        (0.05, 0.01, "better", HOLDS),
        (-0.05, 0.01, "better", FAILS),
        (0.0, 0.0001, "better", FAILS),  # the interval excludes a gain that matters
        (0.001, 0.0001, "better", FAILS),  # better for sure, by what does not matter
        (-0.001, 0.0001, "better", FAILS),
        (0.005, 0.0001, "better", HOLDS),  # a gain that matters is not excluded
        (0.0, 0.05, "better", OPEN),
        (0.004, 0.006, "better", OPEN),  # too small or large enough, it cannot be said
        (-0.001, 0.0001, "not worse", HOLDS),
        (-0.02, 0.001, "not worse", FAILS),
        (-0.005, 0.05, "not worse", OPEN),
    ],
)
def test_verdicts(suite: protocol.Suite, gain: float, size: float, asks: str, verdict: str) -> None:
    records = fill(suite, "a", lambda t, s: 0.5 + gain + wobble(s, size)) + fill(suite, "b", lambda t, s: 0.5)
    assert found(suite, records, Comparison("a", "b", NOISE, asks)).verdict == verdict


def test_losing_less_is_a_difference_of_differences(suite: protocol.Suite) -> None:
    def steady(task: str, seed: int) -> float:
        return 0.6 + wobble(seed)

    def falling(task: str, seed: int) -> float:
        return 0.9 + wobble(4 - seed) if task == "digits/clean" else 0.7 + wobble(seed)

    records = fill(suite, "steady", steady) + fill(suite, "falling", falling)
    one = found(suite, records, Comparison("steady", "falling", NOISE, "loses less")).findings[0]
    assert one.effect == pytest.approx(0.2), "though it is less accurate everywhere"
    assert one.verdict == HOLDS


def test_gaining_more_is_a_difference_of_gains_over_data_sets(suite: protocol.Suite) -> None:
    """Two sets of each kind, paired by seed: the mean gain on two less that on two others, variances added."""
    draw = np.random.default_rng(5)
    one = suite.track("quick").tasks[0]
    names = ("letter", "satimage", "digits", "mnist")
    tasks = [replace(one, dataset=name, name=f"{name}/clean") for name in names]
    scores = {(method, name): draw.normal(0.5, 0.02, 5) for method in "ab" for name in names}
    on = On(("clean",), datasets=names[:2])
    part = Comparison("a", "b", on, GAINS_MORE, metric="last", beyond=replace(on, datasets=names[2:]))

    class Drawn:
        track = replace(suite.track("quick"), blocks=(replace(suite.track("quick").blocks[0], tasks=tuple(tasks)),))

        def __init__(self) -> None:
            self.suite = suite

        def values(self, method: str, task: protocol.Task, *_: object) -> dict[int, float]:
            return dict(enumerate(scores[method, task.dataset]))

    mean, half = claims._contrast(Drawn(), part, tasks[:2], 0.95)  # type: ignore[arg-type]
    gains = {name: scores["a", name] - scores["b", name] for name in names}
    assert mean == pytest.approx(sum((1 if name in names[:2] else -1) * gains[name].mean() / 2 for name in names))
    parts = [gains[name].var(ddof=1) / 5 / 4 for name in names]
    freedom = sum(parts) ** 2 / sum(each**2 / 4 for each in parts)
    assert half == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)))


def test_gaining_more_is_no_matter_of_being_better_everywhere(suite: protocol.Suite) -> None:
    def ahead(task: str, seed: int) -> float:
        return 0.7 + wobble(seed)

    records = fill(suite, "ahead", ahead) + fill(suite, "plain", lambda *_: 0.5)
    part = Comparison("ahead", "plain", NOISE, GAINS_MORE, beyond=CLEAN)
    one = found(suite, records, part).findings[0]
    assert (one.verdict, one.effect) == (FAILS, pytest.approx(0)), "as far ahead here as there"
    assert one.tasks == ("digits/dirty", "digits/clean")
    falling = fill(suite, "plain", lambda task, seed: 0.5 if task == "digits/clean" else 0.4 + wobble(seed, 0.005))
    more = found(suite, records[: len(records) // 2] + falling, part).findings[0]
    assert (more.verdict, more.effect) == (HOLDS, pytest.approx(0.1, abs=0.002))
    assert more.part.where == "noise, beside clean labels"
    none = found(suite, records, replace(part, beyond=On(("clean",), classes=20))).findings[0]
    assert (none.verdict, none.reason) == (UNTESTED, "the track has no task with clean labels, at least 20 classes")


def test_smaller_is_better_where_the_claim_says_so(suite: protocol.Suite) -> None:
    records = fill(suite, "a", lambda t, s: 0.1 + wobble(s)) + fill(suite, "b", lambda t, s: 0.3)
    assert found(suite, records, Comparison("a", "b", NOISE, metric="ece", smaller=True)).verdict == HOLDS
    assert found(suite, records, Comparison("a", "b", NOISE, metric="ece")).verdict == FAILS


def test_a_failure_is_the_worst_value(suite: protocol.Suite) -> None:
    def broken(records: list[Record]) -> list[Record]:
        return [replace(r, status="diverged", metrics={}) if r.seed == 0 else r for r in records]

    records = broken(fill(suite, "a", lambda *_: 0.5)) + fill(suite, "b", lambda *_: 0.5)
    assert found(suite, records, Comparison("a", "b", NOISE)).findings[0].effect == pytest.approx(-0.1)
    one = found(suite, records, Comparison("a", "b", NOISE, metric="ece", smaller=True)).findings[0]
    assert one.effect == pytest.approx(-0.1), "of a metric whose worst is 1"


def test_varying_less_is_an_f_interval_on_one_dataset(suite: protocol.Suite) -> None:
    draw = np.random.default_rng(3)
    a, b = draw.normal(0.5, 0.001, (2, 5)), draw.normal(0.5, 0.1, (2, 5))
    rows = {"digits/clean": 0, "digits/dirty": 1}
    records = fill(suite, "a", lambda t, s: a[rows[t], s]) + fill(suite, "b", lambda t, s: b[rows[t], s])
    everywhere = Comparison("a", "b", NOISE, "varies less")
    one = found(suite, records, everywhere).findings[0]
    ratio = math.sqrt(a[1].var() / b[1].var())
    factor = math.sqrt(stats.f.ppf(0.975, 4, 4))
    assert (one.effect, one.low, one.high) == pytest.approx((ratio, ratio / factor, ratio * factor))
    assert one.verdict == HOLDS
    assert found(suite, records, replace(everywhere, ours="b", other="a")).verdict == FAILS
    constant = fill(suite, "a", lambda *_: 0.5) + fill(suite, "b", lambda t, s: b[0, s])
    none = found(suite, constant, everywhere).findings[0]
    assert (none.verdict, none.words) == (OPEN, "no variance to compare")


def test_five_seeds_without_variance_are_a_sign_test(suite: protocol.Suite) -> None:
    """2^-4 is more than 5 %: as on the board, where such methods are tied."""
    records = fill(suite, "a", lambda *_: 0.7) + fill(suite, "b", lambda *_: 0.5)
    assert found(suite, records, Comparison("a", "b", NOISE)).verdict == OPEN


def test_few_seeds_decide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = toy.PINS.replace("seeds = [0, 1, 2, 3, 4]", "seeds = [0, 1, 2, 3]")
    monkeypatch.setenv("LOSSBOARD_ROOT", str(toy.make(tmp_path, pins)))
    monkeypatch.setattr(board, "source", lambda module: "s")
    few = protocol.load("toy")
    records = fill(few, "a", lambda t, s: 0.9 + wobble(s)) + fill(few, "b", lambda *_: 0.1)
    one = found(few, records, Comparison("a", "b", NOISE)).findings[0]
    assert (one.verdict, one.seeds) == (OPEN, 4)
    assert one.effect == pytest.approx(0.8, abs=0.01)
    assert math.isnan(one.low)


def test_a_metric_that_records_lack_is_not_tested_and_one_that_is_no_share_refused(suite: protocol.Suite) -> None:
    records = fill(suite, "a", lambda t, s: 0.5 + wobble(s)) + fill(suite, "b", lambda *_: 0.5)
    one = found(suite, records, Comparison("a", "b", NOISE, "not worse", metric="top5")).findings[0]
    assert (one.verdict, one.reason) == (UNTESTED, "a has no complete records with top5 of digits/dirty")
    loud = [replace(r, metrics={**r.metrics, "nll": 2.5}) for r in records]
    with pytest.raises(UsageError, match=r"shares from 0 to 1; nll of a on digits/dirty is 2\.5"):
        found(suite, loud, Comparison("a", "b", NOISE, metric="nll", smaller=True))


def test_what_could_not_be_measured_is_no_result(suite: protocol.Suite) -> None:
    records = fill(suite, "a", lambda t, s: 0.5 + wobble(s)) + fill(suite, "b", lambda *_: 0.5)
    broken = [replace(r, status="oom", metrics={}) if (r.method, r.seed) == ("a", 1) else r for r in records]
    assert found(suite, broken, Comparison("a", "b", NOISE)).verdict == UNTESTED


def test_folds_of_one_round_are_one_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = toy.PINS.replace('kind = "random"\nval = 0.2\ntest = 0.2', 'kind = "folds"\nval = 0.2')
    monkeypatch.setenv("LOSSBOARD_ROOT", str(toy.make(tmp_path, pins)))
    monkeypatch.setattr(board, "source", lambda module: "s")
    suite = protocol.load("toy")
    records = fill(suite, "a", lambda t, s: 0.9 + wobble(s)) + fill(suite, "b", lambda *_: 0.1)
    one = found(suite, records, Comparison("a", "b", NOISE)).findings[0]
    assert one.verdict == UNTESTED
    assert "folds of a round share their noise" in one.reason
    rows = board.build(suite, suite.track("quick"), records).rows
    assert [row.rank for row in rows] == [(1, 2), (1, 2)]
    assert all(list(row.tasks["digits/dirty"].seeds) == [0] and math.isnan(row.half) for row in rows)


def test_the_track_that_decides_is_shown_before_one_with_more_data() -> None:
    small, large = verdict("small", FAILS, 1), verdict("large", OPEN, 2)
    absent, larger = verdict("absent", UNTESTED, 0), verdict("larger", HOLDS, 2)
    for shown, best in (((absent, large, small), small), ((absent, large), large), ((small, larger), larger)):
        assert claims.Assessment(small.claim, shown).best is best


def verdict(track: str, word: str, datasets: int, *kind: str) -> claims.Verdict:
    part = Comparison("a", "b", NOISE)
    tasks = tuple(f"{i}/dirty" for i in range(datasets))
    finding = claims.Finding(part, word, tasks=tasks)
    return claims.Verdict(Claim("id", "", "", "abstract", (part,)), track, word, (finding,), kind)


def test_boards_that_contradict_each_other_are_both_shown() -> None:
    few, many = verdict("cpu-few", FAILS, 9, "few"), verdict("cpu-many", HOLDS, 4, "many")
    found = claims.Assessment(few.claim, (few, many))
    assert (found.verdict, found.shown, found.dissenting) == (DEPENDS, (many, few), ())
    assert found.contradictions == "holds on cpu-many; does not hold on cpu-few"
    agreed = claims.Assessment(few.claim, (replace(few, verdict=HOLDS), many))
    assert (agreed.verdict, agreed.contradictions) == (HOLDS, "")
    undecided = claims.Assessment(few.claim, (replace(few, verdict=OPEN), many))
    assert (undecided.verdict, undecided.shown) == (HOLDS, (many,))


def test_a_smaller_track_overrules_no_larger_one_of_its_kind_and_is_told_of() -> None:
    quick, cpu = verdict("quick", HOLDS, 1, "loss"), verdict("cpu", FAILS, 9, "loss")
    found = claims.Assessment(cpu.claim, (quick, cpu))
    assert (found.verdict, found.shown, found.dissenting) == (FAILS, (cpu,), (quick,))
    assert found.contradictions == "holds on quick, of fewer datasets"
    assert claims.as_json([found])[0]["contradictions"] == found.contradictions
    as_large = claims.Assessment(cpu.claim, (quick, verdict("gpu", FAILS, 1, "loss")))
    assert as_large.verdict == DEPENDS
    other = claims.Assessment(cpu.claim, (replace(quick, kind=("predictions",)), cpu))
    assert other.verdict == DEPENDS, "predictions that are given are no small track of networks"
    assert claims.Assessment(cpu.claim, ()).verdict == UNTESTED


def test_kinds_of_tracks_are_boards_and_what_tasks_are_made_of() -> None:
    def kind(suite: str, track: str) -> tuple[str, ...]:
        return claims._kind(protocol.load(suite).track(track))

    assert kind("calibration", "quick") == kind("calibration", "cpu") != kind("calibration", "predictions")
    assert kind("multilabel", "quick-multilabel") == kind("multilabel", "cpu-multilabel")
    assert kind("multilabel", "cpu-many") != kind("multilabel", "cpu-multilabel")


def test_varying_less_over_several_datasets_is_rarely_wrong(suite: protocol.Suite) -> None:
    """Nine datasets, one ten times as variable, both methods alike: the interval holds 1 in about 95 %."""
    draw = np.random.default_rng(8)
    one = suite.track("quick").tasks[0]
    tasks = [replace(one, dataset=str(i), name=f"{i}/clean") for i in range(9)]
    size = np.array([10.0, *[1.0] * 8])

    class Drawn:
        seeds = dict.fromkeys((task.name for task in tasks), range(5))

        def values(self, method: str, task: protocol.Task, *_: object) -> dict[int, float]:
            return dict(enumerate(draw.normal(0, size[int(task.dataset)], 5)))

    part = Comparison("a", "b", CLEAN, "varies less", metric="last")
    found = (claims._varies_less(Drawn(), part, tasks, 0.95) for _ in range(400))  # type: ignore[arg-type]
    assert sum(abs(mean) > half for mean, half in found) / 400 <= 0.08


def test_what_is_not_tested_says_why(suite: protocol.Suite) -> None:
    records = fill(suite, "a", lambda *_: 0.5) + fill(suite, "b", lambda *_: 0.5)
    part = Comparison("a", "b", NOISE)

    def reason(records: list[Record], part: Comparison) -> str:
        one = found(suite, records, part).findings[0]
        assert one.verdict == UNTESTED
        return one.reason

    assert "c has no complete records of digits/dirty" in reason(records, replace(part, ours="c"))
    assert "no task with noise of 60 % and more" in reason(records, replace(part, on=On(least=0.6)))
    assert "at least 20 classes" in reason(records, replace(part, on=On(("clean",), classes=20)))
    assert "b has no complete" in reason([r for r in records if (r.method, r.seed, r.trial) != ("b", 2, 1)], part)
    assert "a has no complete records of digits/clean" in reason(
        [r for r in records if (r.method, r.task) != ("a", "digits/clean")], replace(part, asks="loses less")
    )
    stale = [replace(r, header=replace(HEADER, source="old")) if r.method == "a" else r for r in records]
    assert "a has no complete" in reason(stale, part)


def test_a_claim_is_as_good_as_its_worst_comparison(suite: protocol.Suite) -> None:
    gains = {"a": 0.1, "b": 0.0, "c": 0.2}
    records = [r for name, g in gains.items() for r in fill(suite, name, lambda t, s, g=g: 0.5 + g * (1 + wobble(s)))]
    good, bad, absent = (Comparison("a", other, NOISE) for other in "bcd")
    assert found(suite, records, good).verdict == HOLDS
    assert found(suite, records, good, absent).verdict == UNTESTED
    assert found(suite, records, good, bad, absent).verdict == FAILS


def test_simulated_claims_are_rarely_wrong(suite: protocol.Suite) -> None:
    """Two comparisons, nothing to be found: a false "holds" or a false "does not hold" in at most 5 %, nearly."""
    draw = np.random.default_rng(4)
    claim = Claim("id", "", "", "abstract", (Comparison("a", "b", NOISE), Comparison("c", "b", NOISE)))
    wrong = 0
    for _ in range(300):
        scores = draw.normal(0.5, 0.1, (3, 5))
        records = [r for i in range(3) for r in fill(suite, "abc"[i], lambda t, s, row=scores[i]: row[s])]
        wrong += judge(claim, Evidence(suite, suite.track("quick"), records)).verdict != OPEN
    assert wrong / 300 <= 0.08


def test_a_claim_that_cannot_be_is_refused() -> None:
    part = Comparison("a", "b", NOISE)
    with pytest.raises(UsageError, match="evidence 'hearsay'; there are: code"):
        Claim("id", "", "", "hearsay", (part,))
    with pytest.raises(UsageError, match="ask one of: better"):
        Claim("id", "", "", "abstract", (replace(part, asks="is"),))
    with pytest.raises(UsageError, match="lower-case words"):
        Claim("../up", "", "", "abstract", (part,))
    with pytest.raises(UsageError, match="comparisons"):
        Claim("id", "", "", "abstract", ())
    for one in (replace(part, asks=GAINS_MORE), replace(part, beyond=CLEAN)):
        with pytest.raises(UsageError, match="goes with 'gains more'"):
            Claim("id", "", "", "abstract", (one,))


def test_words() -> None:
    assert On(("clean",)).words == "clean labels"
    assert On(("uniform_ldr", "symmetric"), least=0.6).words == "uniform noise of 60 % and more"
    assert On(most=0.3, classes=20).words == "noise to 30 %, at least 20 classes"
    one = claims.Finding(Comparison("a", "b", NOISE), FAILS, -0.0123, -0.02, 0.001)
    assert one.words == "\N{MINUS SIGN}1.23 points (\N{MINUS SIGN}2.00 to 0.10)"


def test_a_suite_without_claims_has_none(suite: protocol.Suite) -> None:
    assert claims.claims("toy") == ()
    assert claims.assess(suite, fill(suite, "a", lambda *_: 0.5)) == []


# -- the noisy suite's own ---------------------------------------------------------------------------------------------


def test_every_claim_names_methods_metrics_and_tasks_that_exist() -> None:
    suite, methods = protocol.load("noisy"), catalogue("loss")
    assert len(claims.claims("noisy")) >= 10
    for claim in claims.claims("noisy"):
        assert claim.source.endswith(")"), "with authors, venue and year"
        for part in claim.parts:
            assert {part.ours, part.other} <= methods.keys(), claim.id
            assert not part.metric or part.metric in suite.metrics.columns, claim.id
            assert part.metric != "top5" or part.on.classes > 5, claim.id
            assert any(part.on.holds(task) for task in suite.track("cpu").tasks), claim.id


def test_at_least_ten_can_be_judged_by_published_records() -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "lossboard", "claims", "noisy", "--json"]
    environ = os.environ | {"LOSSBOARD_ROOT": str(root)}
    result = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=True)
    assert sum(each["verdict"] != UNTESTED for each in json.loads(result.stdout)) >= 10


def test_the_command_shows_claims_and_says_where_there_are_none(tmp_path: Path) -> None:
    root = toy.make(tmp_path)
    assert "suite 'toy' has no claims" in toy.call(root, "claims", "toy").stdout
    (root / "suites" / "toy" / "claims.py").write_text(
        "from lossboard.claims import Claim, Comparison, On\n"
        "part = Comparison('two', 'one', On(('dirty',)))\n"
        "CLAIMS = (Claim('two-beats-one', 'Two is more than one.', 'Peano (1889)', 'derived', (part,)),)\n"
    )
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    shown = toy.call(root, "claims", "toy", "--local").stdout
    assert "two-beats-one: Two is more than one." in shown
    assert "+10.00 points" in shown
    assert "1 claim: 1 not resolved" in shown, "five seeds without variance"

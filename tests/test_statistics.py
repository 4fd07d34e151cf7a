"""Statistics against closed forms, scipy, and simulation with known truth."""

import numpy as np
import pytest
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from lossboard import statistics


def test_t_interval_is_scipys() -> None:
    values = [0.31, 0.29, 0.35, 0.33, 0.30]
    mean, half = statistics.t_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.isnan(statistics.t_interval([0.5])[1])


def test_one_stratum_is_the_paired_t_test() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(4, 10))
    p = statistics.paired_p_values({"digits": scores}, {"digits": 1.0})
    for i in range(4):
        for j in range(4):
            if i != j:
                assert p[i, j] == pytest.approx(stats.ttest_rel(scores[i], scores[j]).pvalue)


def test_two_strata_are_welchs_test_of_the_differences() -> None:
    """The difference of a method from a constant 0, in two datasets with opposite sign, is Welch's two-sample test."""
    draw = np.random.default_rng(1)
    first, second = draw.normal(0.5, 1, 8), draw.normal(0, 3, 5)
    zeros = {8: np.zeros(8), 5: np.zeros(5)}
    scores = {"a": np.stack([first, zeros[8]]), "b": np.stack([zeros[5], second])}
    p = statistics.paired_p_values(scores, {"a": 0.5, "b": 0.5})[0, 1]
    assert p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)


def test_equal_and_constantly_different_methods() -> None:
    same = np.array([[0.5, 0.6, 0.7, 0.5, 0.6], [0.5, 0.6, 0.7, 0.5, 0.6], [0.4, 0.5, 0.6, 0.4, 0.5]])
    p = statistics.paired_p_values({"d": same}, {"d": 1.0})
    assert p[0, 1] == 1
    assert p[0, 2] == 2**-4, "the sign test's: all five differences have one sign"


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_few_seeds_tell_nothing(seeds: int) -> None:
    scores = np.random.default_rng(0).normal([[0.1], [0.9]], 0.001, size=(2, seeds))
    assert (statistics.paired_p_values({"d": scores}, {"d": 1.0}) == 1).all()


@pytest.mark.parametrize("seeds", [5, 10])
def test_equal_methods_scored_on_few_rows_are_rarely_told_apart(seeds: int) -> None:
    """28 equal methods, accuracies of 7 tasks of 360 rows: a board has a false difference in about 5 %."""
    draw = np.random.default_rng(3)
    boards = [draw.binomial(360, 0.85, size=(28, seeds, 7)).mean(2) / 360 for _ in range(300)]
    false = sum(statistics.significantly_better({"d": scores}, {"d": 1.0}).any() for scores in boards)
    assert false / 300 <= 0.09


def test_holm_by_hand_and_by_definition() -> None:
    p = np.array([0.01, 0.02, 0.03, 0.9])
    assert statistics.holm(p) == pytest.approx([0.04, 0.06, 0.06, 0.9])
    shuffled = np.array([2, 0, 3, 1])
    assert statistics.holm(p[shuffled]) == pytest.approx(statistics.holm(p)[shuffled])
    assert (statistics.holm(np.array([0.5, 0.6])) == 1).all()


def test_rank_intervals_and_groups_by_hand() -> None:
    better = np.zeros((4, 4), dtype=bool)
    better[0, 2] = better[0, 3] = better[1, 3] = True
    assert statistics.rank_intervals(better) == [(1, 2), (1, 3), (2, 4), (3, 4)]
    assert statistics.tie_groups([0, 1, 2, 3], better) == [1, 1, 2, 2]


def test_intervals_cover_the_truth() -> None:
    """Ten methods, some truly equal, ten seeds: t intervals cover 93-97 %, rank intervals all at once at least 95 %."""
    truth = np.array([0.9, 0.9, 0.89, 0.89, 0.88, 0.85, 0.85, 0.8, 0.8, 0.5])
    lowest = [int((truth > value).sum()) + 1 for value in truth]
    highest = [int((truth >= value).sum()) for value in truth]
    draw = np.random.default_rng(2)
    covered, ranks_covered, trials = 0, 0, 1500
    for _ in range(trials):
        shared = draw.normal(0, 0.02, size=(1, 10))
        scores = truth[:, None] + shared + draw.normal(0, 0.01, size=(10, 10))
        mean, half = statistics.t_interval(scores[0])
        covered += abs(mean - truth[0]) <= half
        better = statistics.significantly_better({"d": scores}, {"d": 1.0})
        intervals = statistics.rank_intervals(better)
        ranks_covered += all(
            low <= a and b <= high for (low, high), a, b in zip(intervals, lowest, highest, strict=True)
        )
    assert 0.93 <= covered / trials <= 0.97
    assert ranks_covered / trials >= 0.95
    assert np.mean([high - low for low, high in intervals]) < 5, "and they do tell methods apart"


def test_strata_are_welchs_interval() -> None:
    """The mean difference of two independent samples is twice the mean of the one and of the other's negative."""
    draw = np.random.default_rng(4)
    first, second = draw.normal(1, 1, 9), draw.normal(0, 4, 6)
    mean, half = statistics.stratified({"a": first, "b": -second}, {"a": 0.5, "b": 0.5}, level=0.9)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    assert (2 * (mean - half), 2 * (mean + half)) == pytest.approx((expected.low, expected.high))
    assert np.isnan(statistics.stratified({"a": [1.0], "b": [1.0, 2.0]}, {"a": 0.5, "b": 0.5})[1])
    assert statistics.stratified({"a": [0.5, 0.5]}, {"a": 1.0}) == (0.5, 0.0)


def test_across_covers_a_dataset_not_measured() -> None:
    """Nine datasets whose effects vary about 1: an interval over seeds alone misses the mean of all, this one holds."""
    draw = np.random.default_rng(5)
    covered = naive = 0
    for _ in range(1000):
        values = {str(i): draw.normal(draw.normal(1, 2), 0.5, size=5) for i in range(9)}
        mean, half = statistics.across(values)
        covered += abs(mean - 1) <= half
        naive += abs(mean - 1) <= statistics.stratified(values, dict.fromkeys(values, 1 / 9))[1]
    assert 0.93 <= covered / 1000 <= 0.97
    assert naive / 1000 < 0.5


@pytest.mark.parametrize("rounded", [False, True])
def test_friedman_is_scipys_and_nemenyi_scikit_posthocs(rounded: bool) -> None:
    scores = np.random.default_rng(6).normal([[0.0], [0.3], [0.6], [2.0]], 1, size=(4, 12))
    scores = scores.round() if rounded else scores  # with ties
    found = statistics.friedman(scores)
    expected = stats.friedmanchisquare(*scores)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.mean_ranks == pytest.approx(stats.rankdata(-scores, axis=0).mean(axis=1))
    p = posthoc_nemenyi_friedman(scores.T).to_numpy()
    apart = np.abs(np.subtract.outer(found.mean_ranks, found.mean_ranks)) > found.difference
    assert (apart == (p < 0.05)).all()
    assert apart.any()
    assert not apart.all()


def test_critical_differences_of_the_published_table() -> None:
    """Demsar (JMLR 2006), table 5 (a): q for 2 to 10 methods at 0.05."""
    table = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)
    for methods, q in enumerate(table, 2):
        scores = np.random.default_rng(0).normal(size=(methods, 6))
        found = statistics.friedman(scores).difference / np.sqrt(methods * (methods + 1) / 36)
        assert found == pytest.approx(q, abs=1.1e-3)


def test_friedman_wants_two() -> None:
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="two or more"):
            statistics.friedman(np.zeros(shape))
    assert statistics.friedman(np.zeros((3, 4))).p == 1


def test_equal_methods_are_rarely_rejected_by_friedman() -> None:
    draw = np.random.default_rng(7)
    rejected = sum(statistics.friedman(draw.normal(size=(8, 20))).p < 0.05 for _ in range(1000))
    assert rejected <= 70

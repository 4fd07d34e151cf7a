"""Intervals, paired tests and rank intervals over seeds. Seeds are sampled, tasks are fixed. No torch.

Only :func:`across` speaks of other datasets than those measured: there the datasets are the sample.

Methods are paired by construction: one seed of one dataset gives every method the same split, noise, initial weights
and batches. So two methods are compared by their differences seed by seed. Tasks that share a dataset share those
draws; their scores are averaged within a seed first. Datasets are independent strata.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST = 5  # seeds: with 3, simulated boards of equal methods had a false difference in 13 %, with 5 in 5 %
Floats = npt.NDArray[np.float64]


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its t interval; the half-width is nan for a single value.

    >>> mean, half = t_interval([1.0, 2.0, 3.0])
    >>> round(mean, 3), round(half, 3)
    (2.0, 2.484)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        return float(x.mean()), float("nan")
    return float(x.mean()), quantile((1 + level) / 2, len(x) - 1) * float(x.std(ddof=1)) / len(x) ** 0.5


def stratified(
    values: Mapping[str, Sequence[float]], weights: Mapping[str, float], level: float = 0.95
) -> tuple[float, float]:
    """Weighted mean over strata (datasets) of their means over seeds, and the half-width of its t interval.

    The variances of the strata add; degrees of freedom are Welch and Satterthwaite's. The half-width is nan where a
    stratum has a single seed, and 0 where nothing varies.

    >>> mean, half = stratified({"digits": [1.0, 2.0, 3.0]}, {"digits": 1.0})
    >>> round(mean, 3), round(half, 3)
    (2.0, 2.484)
    """
    mean = sum(weights[key] * float(np.mean(found)) for key, found in values.items())
    if min(map(len, values.values())) < 2:
        return mean, math.nan
    parts = [
        (weights[key] ** 2 * float(np.var(found, ddof=1)) / len(found), len(found) - 1) for key, found in values.items()
    ]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return mean, 0.0
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    return mean, quantile((1 + level) / 2, freedom) * math.sqrt(variance)


def across(values: Mapping[str, Sequence[float]], level: float = 0.95) -> tuple[float, float]:
    """Mean over datasets of their means over seeds, and the half-width of its t interval for a dataset not measured.

    The datasets are taken as drawn from those that the statement is about: what varies is their means. Each dataset
    counts as one, however many tasks and seeds it has. With a single dataset the half-width is nan.
    """
    return t_interval([float(np.mean(found)) for found in values.values()], level)


@functools.lru_cache(maxsize=4096)
def quantile(probability: float, freedom: float) -> float:
    """Of Student's t distribution; remembered, because boards ask for few and scipy is slow to answer."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def paired_p_values(scores: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Two-sided p-values (methods, methods) that two methods have equal weighted mean score.

    ``scores`` maps a stratum (dataset) to scores (methods, seeds), ``weights`` to its share of the mean. One stratum is
    the paired t-test; several add their variances, with Welch and Satterthwaite's degrees of freedom. Accuracies are
    shares of few rows, so with few seeds differences often agree by chance: below ``FEWEST`` seeds in every stratum, or
    one seed in any, nothing is told apart (1 everywhere), and differences without variance get the p-value of the sign
    test in the stratum with the most seeds, 2^(1 - seeds).
    """
    from scipy.stats import t

    first = next(iter(scores.values()))
    seeds = [values.shape[1] for values in scores.values()]
    if max(seeds) < FEWEST or min(seeds) < 2:
        return np.ones((len(first), len(first)))
    mean = np.zeros((len(first), len(first)))
    variance, spread = np.zeros_like(mean), np.zeros_like(mean)
    for stratum, values in scores.items():
        count = values.shape[1]
        difference = values[:, None, :] - values[None, :, :]
        part = weights[stratum] ** 2 * difference.var(axis=2, ddof=1) / count
        mean += weights[stratum] * difference.mean(axis=2)
        variance += part
        spread += part**2 / (count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(mean) / np.sqrt(variance)
        freedom = variance**2 / spread
    known = variance > 1e-30  # equal in every seed, or different by the same amount in every seed
    p = np.where(np.abs(mean) > 1e-12, 2.0 ** (1 - max(seeds)), 1.0)
    p[known] = 2 * t.sf(statistic[known], freedom[known])
    return p


def holm(p_values: Floats) -> Floats:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 1979), in the order given.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    count = len(p_values)
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def significantly_better(
    scores: Mapping[str, Floats], weights: Mapping[str, float], level: float = 0.05
) -> npt.NDArray[np.bool_]:
    """(methods, methods): whether row is better than column, over all pairs at this family-wise level."""
    p = paired_p_values(scores, weights)
    upper = np.triu_indices(len(p), 1)
    adjusted = np.ones_like(p)
    adjusted[upper] = holm(p[upper])
    adjusted.T[upper] = adjusted[upper]
    mean = sum(weights[stratum] * values.mean(axis=1) for stratum, values in scores.items())
    return (adjusted < level) & (np.subtract.outer(mean, mean) > 0)


def rank_intervals(better: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Simultaneous rank intervals: 1 + how many are better, to the count less how many are worse.

    With pairs tested at family-wise level 0.05, all intervals cover the true ranks at once with at least 95 %.
    """
    count = len(better)
    return [(1 + int(better[:, i].sum()), count - int(better[i].sum())) for i in range(count)]


def tie_groups(order: Sequence[int], better: npt.NDArray[np.bool_]) -> list[int]:
    """Group number (1, 2, ...) of each method, walking down ``order`` (best first).

    A group is its first method and those after it, up to the first that the group's first is significantly better than.
    """
    groups = [0] * len(order)
    leader, number = None, 0
    for i in order:
        if leader is None or better[leader, i]:
            leader, number = i, number + 1
        groups[i] = number
    return groups


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of equal methods, with Nemenyi's critical difference of mean ranks."""

    mean_ranks: tuple[float, ...]  # of the methods; 1 is best, equal scores share their mean rank
    statistic: float  # corrected for ties
    p: float
    difference: float  # two methods whose mean ranks differ by less are not told apart


def friedman(scores: Floats, level: float = 0.05) -> Friedman:
    """Ranks of methods within blocks, for scores (methods, blocks), larger better (Demsar, JMLR 2006).

    Raises:
        ValueError: fewer than two methods or blocks.
    """
    from scipy.stats import chi2, rankdata

    methods, blocks = scores.shape
    if methods < 2 or blocks < 2:
        raise ValueError(f"{methods} methods in {blocks} blocks: ranks are compared for two or more of both")
    ranks = rankdata(-scores, axis=0)
    mean = ranks.mean(axis=1)
    spread = ranks.var(axis=0).mean()  # within blocks; (methods^2 - 1) / 12 without ties
    statistic = (methods - 1) * blocks * float(((mean - (methods + 1) / 2) ** 2).mean()) / spread if spread else 0.0
    critical = _studentized_range(1 - level, methods) / math.sqrt(2)
    difference = critical * math.sqrt(methods * (methods + 1) / (6 * blocks))
    return Friedman(tuple(map(float, mean)), float(statistic), float(chi2.sf(statistic, methods - 1)), difference)


@functools.lru_cache(maxsize=64)
def _studentized_range(probability: float, count: int) -> float:
    """Quantile of the range of so many standard normal draws."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(probability, count, np.inf))

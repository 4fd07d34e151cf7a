"""Intervals, paired tests and rank intervals over seeds. Seeds are sampled, tasks are fixed. No torch.

Methods are paired by construction: one seed of one dataset gives every method the same split, noise, initial weights
and batches. So two methods are compared by their differences seed by seed. Tasks that share a dataset share those
draws; their scores are averaged within a seed first. Datasets are independent strata.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

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
    if len(x) < 2:
        return float(x.mean()), float("nan")
    return float(x.mean()), quantile((1 + level) / 2, len(x) - 1) * float(x.std(ddof=1)) / len(x) ** 0.5


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
    test, 2^(1 - seeds).
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
    p = np.where(np.abs(mean) > 1e-12, 2.0 ** (1 - sum(seeds)), 1.0)
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

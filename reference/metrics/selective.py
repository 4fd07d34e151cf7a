"""Selective prediction: the risk of what is accepted against how much is accepted, by falling score.

Where scores tie, every order of the tied samples counts: the risk is its mean over them. So results do not depend on
the order of the samples, and the curve of a constant score is flat.

    >>> import torch
    >>> curve = risk_curve(torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    >>> curve.risk.tolist(), curve.coverage_at(0.3), round(curve.aurc, 4)
    ([0.0, 0.0, 0.3333333333333333, 0.25], 1.0, 0.1458)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reference.metrics.predictions import top_label


@dataclass(frozen=True)
class RiskCurve:
    """The share of errors (N,) among the k samples of largest score, for k = 1..N."""

    risk: Tensor

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve (Geifman et al., ICLR 2019, arXiv:1805.08206): the mean of the N risks.

        One well-known library takes the trapezoid rule over 1 - 1/N instead, which is a little different.
        """
        return float(self.risk.mean())

    @property
    def excess_aurc(self) -> float:
        """AURC less that of the best order, which puts all errors last (the same paper)."""
        n = len(self.risk)
        errors = round(float(self.risk[-1]) * n)
        k = torch.arange(n - errors + 1, n + 1, dtype=torch.float64)
        return self.aurc - float(((k - (n - errors)) / k).sum()) / n

    def coverage_at(self, risk: float) -> float:
        """The largest share of samples whose risk is at most this; 0 where there is none."""
        allowed = (self.risk <= risk).nonzero()
        return (int(allowed[-1]) + 1) / len(self.risk) if len(allowed) else 0.0

    def risk_at(self, coverage: float) -> float:
        """The risk of this share of samples, rounded up to a whole sample."""
        return float(self.risk[max(1, int(np.ceil(coverage * len(self.risk) - 1e-9))) - 1])


def risk_curve(score: Tensor, wrong: Tensor) -> RiskCurve:
    """The curve of scores (N,), larger is accepted first, and errors (N,), 1 where the prediction is wrong."""
    group = score.unique(return_inverse=True)[1]
    group = group.max() - group  # 0 has the largest score
    return RiskCurve(_risk(group, wrong.double(), int(group.max()) + 1))


def _risk(group: Tensor, wrong: Tensor, groups: int) -> Tensor:
    """The mean risk (N,) over the orders within groups (N,) of tied samples: errors grow linearly within a group."""
    ends = np.concatenate([[0.0], torch.bincount(group, minlength=groups).cumsum(0).double().numpy()])
    errors = np.concatenate([[0.0], torch.bincount(group, wrong, groups).cumsum(0).numpy()])
    k = np.arange(1, len(group) + 1)
    return torch.from_numpy(np.interp(k, ends, errors) / k)


@dataclass(frozen=True)
class Interval:
    """Bounds (...,) between which a value lies in a given share of the resamples."""

    low: Tensor
    high: Tensor


def risk_intervals(
    score: Tensor,
    wrong: Tensor,
    coverages: Tensor,
    generator: torch.Generator,
    *,
    level: float = 0.95,
    draws: int = 500,
) -> Interval:
    """Percentile bootstrap intervals of the risk at each coverage (K,), samples being drawn anew with their scores.

    The predictor and the scores' maker stay as they are: intervals are of the test set's sampling alone.
    """
    group = score.unique(return_inverse=True)[1]
    group, n = group.max() - group, len(score)
    at = (coverages.double() * n - 1e-9).ceil().clamp(1, n).long() - 1
    drawn = (torch.randint(n, (n,), generator=generator) for _ in range(draws))
    risks = torch.stack([_risk(group[rows], wrong.double()[rows], int(group.max()) + 1)[at] for rows in drawn])
    tail = (1 - level) / 2
    return Interval(risks.quantile(tail, 0), risks.quantile(1 - tail, 0))


def aurc(log_p: Tensor, target: Tensor) -> float:
    """Area under the risk-coverage curve by confidence, for log-probabilities (N, C) and targets (N,)."""
    confidence, right = top_label(log_p, target)
    return risk_curve(confidence, 1 - right).aurc


def coverage_at_risk(log_p: Tensor, target: Tensor, risk: float) -> float:
    """The largest share that can be accepted by confidence at this risk or less, as seen on these samples."""
    confidence, right = top_label(log_p, target)
    return risk_curve(confidence, 1 - right).coverage_at(risk)


def margin(log_p: Tensor) -> Tensor:
    """A score (N,): the largest probability less the second, of log-probabilities (N, C)."""
    first, second = log_p.double().topk(2, 1).values.exp().unbind(1)
    return first - second


def negative_entropy(log_p: Tensor) -> Tensor:
    """A score (N,): less the entropy in nats, of log-probabilities (N, C)."""
    return -torch.special.entr(log_p.double().exp()).sum(1)


def threshold_at(score: Tensor, wrong: Tensor, risk: float) -> float:
    """The score from which on held-out samples have at most this risk and the largest coverage; inf where none has."""
    found = risk_curve(score, wrong)
    ordered = score.double().sort(descending=True).values
    last = torch.cat([ordered[1:] < ordered[:-1], torch.ones(1, dtype=torch.bool)])  # ties are accepted together
    allowed = ((found.risk <= risk) & last).nonzero()
    return float(ordered[allowed[-1]]) if len(allowed) else float("inf")

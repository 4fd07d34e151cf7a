"""Proper scores, and how sharp predictions are, of log-probabilities (N, C) and targets (N,)."""

import math

import torch
from torch import Tensor

from reference.metrics.predictions import in_chunks, top_label

FLOOR = 1e-12  # probabilities below count as this, so that one impossible event does not make every mean infinite


def accuracy(log_p: Tensor, target: Tensor) -> float:
    """Share of rows whose most probable class, the lowest index among ties, is the target."""
    return float(top_label(log_p, target).right.mean())


def nll(log_p: Tensor, target: Tensor, *, floor: float = FLOOR) -> float:
    """Mean negative log-likelihood in nats: of the target's probability, or ``floor`` where that is smaller."""
    return float(each_nll(log_p, target, floor=floor).mean())


def each_nll(log_p: Tensor, target: Tensor, *, floor: float = FLOOR) -> Tensor:
    """The same of each row (N,), float64."""
    return -log_p.gather(1, target[:, None])[:, 0].double().clamp(min=math.log(floor))


def brier(log_p: Tensor, target: Tensor) -> float:
    """Brier score (Brier, Monthly Weather Review 1950): the mean over rows of sum_k (p_k - 1[k = y])^2, in [0, 2].

    >>> import torch
    >>> brier(torch.tensor([[0.0, -torch.inf]]), torch.tensor([1]))
    2.0
    """
    total = 0.0
    for p, labels in in_chunks(log_p, target):
        p[torch.arange(len(p)), labels] -= 1
        total += float(p.square_().sum())
    return total / len(target)


def sharpness(log_p: Tensor) -> float:
    """Mean over rows of sum_k p_k^2, in [1/C, 1]: a property of the predictions alone (Gneiting et al., JRSSB 2007).

    Were the labels drawn from the predictions, the mean Brier score would be 1 less this (Brocker, QJRMS 2009).
    """
    rows = torch.zeros(len(log_p), dtype=torch.long)
    return sum(float(p.square_().sum()) for p, _ in in_chunks(log_p, rows)) / len(log_p)


def entropy(log_p: Tensor) -> float:
    """Mean entropy of the rows in nats: the mean NLL were the labels drawn from the predictions."""
    rows = torch.zeros(len(log_p), dtype=torch.long)
    return sum(float(torch.special.entr(p).sum()) for p, _ in in_chunks(log_p, rows)) / len(log_p)


def changed(before: Tensor, after: Tensor) -> float:
    """Share of rows whose predicted class differs between two log-probabilities (N, C)."""
    return float((before.argmax(1) != after.argmax(1)).double().mean())

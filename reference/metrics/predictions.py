"""What most metrics of calibration begin with: the predicted class of each row, and rows in chunks."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 2**20  # probabilities that are held at once in float64: 8 MiB


class TopLabel(NamedTuple):
    """Of each row: the probability of the predicted class (N,), and 1.0 where that is the label (N,); float64."""

    confidence: Tensor
    right: Tensor


def top_label(log_p: Tensor, target: Tensor) -> TopLabel:
    """The predicted class of log-probabilities (N, C), the lowest index among ties, against the target (N,).

    >>> import torch
    >>> top_label(torch.tensor([[0.5, 0.5], [0.2, 0.8]]).log(), torch.tensor([0, 0])).right.tolist()
    [1.0, 0.0]
    """
    largest, predicted = log_p.max(1)
    return TopLabel(largest.double().exp().clamp(max=1), (predicted == target).double())


def in_chunks(log_p: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities (n, C) in float64 and targets (n,) of successive rows of log-probabilities (N, C)."""
    rows = max(1, CHUNK // log_p.shape[1])
    for part, labels in zip(log_p.split(rows), target.split(rows), strict=True):
        yield part.double().exp(), labels


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Targets (N,) as rows of 0 and 1 (N, C), float64."""
    return torch.nn.functional.one_hot(target, classes).double()

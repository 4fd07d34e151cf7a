"""What calibrators are made of: their type, the floor of their probabilities, and a new confidence for a row."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Calibrated = Callable[..., Tensor]  # logits (M, C) -> log-probabilities (M, C), float64

FLOOR = 1e-12  # of a probability that was counted, so that one unseen event does not make an infinite loss
MARGIN = 1e-9  # by which the predicted class stays ahead, relative to the next


class Top(NamedTuple):
    """The predicted class of each row (N,): its log-probability, its index, and whether it is the label."""

    log_confidence: Tensor
    predicted: Tensor
    right: Tensor


def top(log_p: Tensor, target: Tensor) -> Top:
    """The predicted class of log-probabilities (N, C), the lowest index among ties, against the target (N,)."""
    log_confidence, predicted = log_p.max(1)
    return Top(log_confidence, predicted, (predicted == target).double())


def normalised(p: Tensor) -> Tensor:
    """Logarithms of weights (M, C) >= 0 divided by their sums, none below FLOOR; a row of zeros becomes uniform."""
    log_p = p.clamp(min=FLOOR).log()
    return log_p - log_p.logsumexp(1, keepdim=True)


def with_confidence(log_p: Tensor, confidence: Tensor) -> Tensor:
    """Log-probabilities (M, C) whose predicted class has this confidence (M,), the others sharing the rest as before.

    A confidence too small for the predicted class to stay the most probable is raised until it is, by MARGIN.
    """
    predicted = log_p.argmax(1, keepdim=True)
    others = log_p.scatter(1, predicted, -torch.inf)
    rest = others.logsumexp(1, keepdim=True)  # log of 1 - confidence before, exact where the confidence is near 1
    second = (others.amax(1, keepdim=True) - rest).exp()  # share of the rest that the runner-up has
    least = second / (1 + second) * (1 + MARGIN)
    wanted = torch.maximum(confidence.double()[:, None], least).clamp(max=1 - FLOOR)
    return (others - rest + (1 - wanted).log()).scatter(1, predicted, wanted.log())


def binned(values: Tensor, bins: int) -> Tensor:
    """The bin in 0..bins-1 of each value in [0, 1]: bins of equal width, open below and closed above."""
    edges = torch.arange(1, bins, dtype=torch.float64, device=values.device) / bins
    return torch.bucketize(values.double(), edges)

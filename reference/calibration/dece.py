"""Differentiable expected calibration error (Bohdal, Yang & Hospedales, TMLR 2023, arXiv:2106.09613)."""

import torch
from torch import Tensor

from reference.methods import calibration_loss
from reference.metrics.bins import BINS
from reference.softmax import pick, softmax, target_log_softmax

SHARP = 0.01  # temperature of the membership of bins, and of the comparison of probabilities


def membership(confidence: Tensor) -> Tensor:
    """How far each confidence (N,) belongs to each bin of equal width: (N, 15), rows that sum to 1."""
    k = torch.arange(1, BINS + 1, device=confidence.device, dtype=confidence.dtype)
    return softmax((k * confidence[:, None] - k * (k - 1) / (2 * BINS)) / SHARP)


def soft_right(p: Tensor, target: Tensor) -> Tensor:
    """A differentiable version of whether the target has the largest probability (N, C): (N,), in [0, 1]."""
    own = pick(p, target)
    larger = torch.sigmoid((p - own[:, None]) / SHARP).sum(-1) - 0.5  # of the others: its own is 1/2
    return (1 - larger).clamp(min=0)


@calibration_loss(batchwise=True, search={"weight": (0.1, 4.0)}, tags=("penalty",))
def dece(logits: Tensor, target: Tensor, *, weight: float = 1.0) -> Tensor:
    r"""Cross-entropy plus the batch's calibration error in soft bins, for logits (N, C) and target (N,); returns the
    batch's mean, a scalar.

    $$ \frac{1}{N} \sum_i -\log p_{i, y_i} + \lambda \sum_b \frac{1}{N} \left| \sum_i o_b(c_i) (c_i - \tilde{a}_i)
    \right|, \quad o(c) = \mathrm{softmax}_k\left( \frac{k c - k (k - 1) / 2 M}{\tau} \right) $$

    M is 15, c the confidence, and the soft accuracy is 2 minus the label's soft rank among the probabilities. The paper
    does not add its DECE to the loss: it is what the meta-learner of another regulariser minimises on held-out data.
    This is the term alone, as one would use it without a meta-learner; lambda, weight, and the temperature 0.01 are
    ours.
    """
    p = softmax(logits)
    confidence = p.amax(-1)
    gap = membership(confidence) * (confidence - soft_right(p, target))[:, None]
    return -target_log_softmax(logits, target).mean() + weight * gap.mean(-2).abs().sum(-1)

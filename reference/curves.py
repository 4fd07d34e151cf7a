"""The shape of a loss: its value and the size of its gradient along one line through the space of logits.

The label's logit is the margin m, all others are 0; so with C classes the softmax gives the label the probability
e^m / (e^m + C - 1). Measured at the author's hyperparameters in float64, without label noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from reference.methods import Method, supply
from reference.theory import clean, left_out

CLASSES = 10
REACH = 10.0  # margins go from -REACH to REACH
POINTS = 81


@dataclass(frozen=True)
class Curves:
    """At each margin: the label's softmax probability, the loss, and the norm of its gradient in the logits."""

    classes: int
    margins: tuple[float, ...]
    probabilities: tuple[float, ...]
    values: tuple[float, ...]
    weights: tuple[float, ...]


def curves(method: Method) -> Curves | str:
    """The curves of a loss, or why it has none."""
    reason = left_out(replace(method, tags=()))  # what is held constant in a gradient is no obstacle here
    if reason:
        return reason
    margins = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    logits = torch.zeros(POINTS, CLASSES, dtype=torch.float64)
    logits[:, 0] = margins
    logits.requires_grad_()
    given = supply(method.supplied, {"transition": clean(CLASSES)})
    values = method.function(logits, torch.zeros(POINTS, dtype=torch.int64), **given)
    (gradients,) = torch.autograd.grad(values.sum(), logits)
    found = (margins, logits.detach().softmax(-1)[:, 0], values.detach(), gradients.norm(dim=-1))
    if not all(bool(each.isfinite().all()) for each in found):
        return "its values or gradients are not finite everywhere"
    return Curves(CLASSES, *(tuple(float(f"{value:.5g}") + 0.0 for value in each.tolist()) for each in found))

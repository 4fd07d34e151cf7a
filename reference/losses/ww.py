"""Weston-Watkins multiclass hinge loss (Weston & Watkins, Royal Holloway technical report 1998)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import pick


@loss(search={"margin": Range(0.1, 10, log=True)}, tags=("margin",))
def ww(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    r"""Sum over the other classes of the target's margin shortfalls, for logits (N, C) and target (N,); returns (N,).

    $$ \sum_{k \neq y} \max(0, \; m + z_k - z_y) $$

    m is the margin, z the logits; no softmax. The code of Zhu et al. (ICML 2023) takes the mean over the C classes, the
    target's zero included, which divides this sum by C.
    """
    # The target's own term is exactly the margin, so subtracting it needs no mask.
    return torch.relu(margin + (logits - pick(logits, target)[..., None])).sum(-1) - margin

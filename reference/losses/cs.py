"""Crammer-Singer multiclass hinge loss (Crammer & Singer, JMLR 2001)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import pick


@loss(search={"margin": Range(0.1, 10, log=True)}, tags=("margin",))
def cs(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    r"""Shortfall of the target's margin over its strongest rival, for logits (N, C) and target (N,); returns (N,).

    $$ \max \left( 0, \; m + \max_{k \neq y} z_k - z_y \right) $$

    m is the margin, z the logits; no softmax. Only the rival and the target have a gradient, 0 where the margin is just
    met.
    """
    others = torch.arange(logits.shape[-1], device=logits.device) != target[..., None]
    rival = torch.where(others, logits, -torch.inf).amax(-1)
    return torch.relu(margin + (rival - pick(logits, target)))

"""Rescaled square loss (Hui & Belkin, ICLR 2021, arXiv:2006.07322)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import pick


def other_squares(logits: Tensor, target: Tensor) -> Tensor:
    """The sum of the squared logits of all classes but the target: (N,)."""
    others = torch.arange(logits.shape[-1], device=logits.device) != target[..., None]
    return (torch.where(others, logits, 0) ** 2).sum(-1)


@loss(search={"k": Range(1, 30, log=True), "m": Range(1, 30, log=True)})
def rsq(logits: Tensor, target: Tensor, *, k: float = 1.0, m: float = 1.0) -> Tensor:
    r"""Mean squared distance of the logits from m times the one-hot label, the target's part k-fold, for logits (N, C)
    and target (N,); returns (N,).

    $$ \frac{1}{C} \left( k (z_y - m)^2 + \sum_{j \neq y} z_j^2 \right) $$

    z are the logits; no softmax. k = m = 1 is the plain square loss, whose best logits are the labels' probabilities;
    the authors rescale only for many classes (42 and more). The ranges are ours. It usually wants a learning rate of
    its own.
    """
    return (k * (pick(logits, target) - m) ** 2 + other_squares(logits, target)) / logits.shape[-1]

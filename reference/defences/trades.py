"""TRADES (Zhang et al., ICML 2019, arXiv:1901.08573)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import Found
from reference.attacks.search import Search
from reference.defences.divergence import kl
from reference.methods import Range, defence


def furthest(model: Any, x: Tensor, target: Tensor, search: Search) -> Found:
    """PGD on the divergence of the prediction from that for the input as it is, from right beside it."""
    with torch.no_grad():
        clean = model(x)
    return search.ascend(model, x, target, lambda logits, _: kl(clean, logits), search.near(x))


@defence(search={"weight": Range(0.5, 12, log=True)}, inner=furthest)
def trades(
    target: Tensor,
    *,
    clean: Tensor,
    adversarial: Tensor,
    base: Callable[[Tensor, Tensor], Tensor],
    weight: float = 6.0,
) -> Tensor:
    r"""The loss for the inputs as they are and the divergence that the adversary reaches, for target (N,); returns
    (N,).

    $$ \ell(f(x), y) + \beta \max_{x' \in B(x, \epsilon)} \mathrm{KL}(p(x) \,\|\, p(x')) $$

    beta is weight: accuracy on one side, constancy in the ball on the other. The default is the authors' for CIFAR-10;
    on MNIST their code has 1.
    """
    return base(clean, target) + weight * kl(clean, adversarial)

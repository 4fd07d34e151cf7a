"""Virtual adversarial training (Miyato et al., TPAMI 2018, arXiv:1704.03976)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import Found, frozen, slope
from reference.attacks.ball import steepest
from reference.attacks.search import Search
from reference.defences.divergence import kl
from reference.methods import Range, defence

FAR = 1e-2  # length of the probing step; the authors' 1e-6 is lost in float32, and they take 0.1 in low precision


def virtual(model: Any, x: Tensor, target: Tensor, search: Search, *, reach: float) -> Found:
    """One power iteration: from a random direction to the one in which the prediction changes most, not cut to [0, 1].

    The change has the length of a corner of an "linf" ball, eps sqrt(features), or the radius of an "l2" one, times
    ``reach``.
    """
    with torch.no_grad():
        clean = model(x)
    drawn = steepest(search.near(x) - x, "l2")
    with frozen(model):
        found = slope(model, x + FAR * drawn, target, lambda logits, _: kl(clean, logits))
    length = search.eps * (x[0].numel() ** 0.5 if search.norm == "linf" else 1)
    return Found(x + reach * length * steepest(found.gradient, "l2"), torch.zeros_like(target))


@defence(search={"weight": Range(0.1, 10, log=True), "reach": Range(0.3, 3, log=True)}, inner=virtual)
def vat(
    target: Tensor,
    *,
    clean: Tensor,
    adversarial: Tensor,
    base: Callable[[Tensor, Tensor], Tensor],
    weight: float = 1.0,
    reach: float = 1.0,
) -> Tensor:
    r"""The loss, and how much the prediction changes in the direction in which it changes most, for target (N,);
    returns (N,).

    $$ \ell(f(x), y) + \alpha \, \mathrm{KL}(\bar{p}(x) \,\|\, p(x + r)), \quad
    r = \epsilon \frac{g}{\|g\|_2}, \quad g = \nabla_r \mathrm{KL}(\bar{p}(x) \,\|\, p(x + r)) $$

    The gradient does not go through the prediction for the clean input. alpha is weight, the authors' 1. They tune the
    length of r for each data set (10 on whitened CIFAR-10); here it is reach times the length of the longest change
    that the ball of the attacks allows. It was made for unlabelled data; here it regularises labelled ones.
    """
    return base(clean, target) + weight * kl(clean.detach(), adversarial)

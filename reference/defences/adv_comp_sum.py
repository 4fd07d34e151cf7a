"""Smooth adversarial comp-sum losses (Mao, Mohri & Zhong, ICML 2023, arXiv:2304.07288)."""

from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import Found
from reference.attacks.search import Search
from reference.losses.comp import comp
from reference.methods import Range, defence
from reference.softmax import pick

TINY = 1e-12  # inside the square root, whose slope at 0 has no bound


def moved(adversarial: Tensor, clean: Tensor, target: Tensor) -> Tensor:
    """The Euclidean distance (N,) between the margins z_y - z_k, k != y, of two sets of logits (N, C)."""
    change = adversarial - clean
    return ((pick(change, target)[:, None] - change).square().sum(1) + TINY).sqrt()


def least_stable(model: Any, x: Tensor, target: Tensor, search: Search) -> Found:
    """PGD on how far the margins move, from a random point: at the input itself the gradient is 0."""
    with torch.no_grad():
        clean = model(x)
    return search.ascend(model, x, target, lambda logits, y: moved(logits, clean, y), search.anywhere(x))


@defence(search={"nu": Range(0.1, 10, log=True), "tau": (0.0, 2.0)}, inner=least_stable)
def adv_comp_sum(
    target: Tensor, *, clean: Tensor, adversarial: Tensor, tau: float = 1.0, nu: float = 1.0, rho: float = 1.0
) -> Tensor:
    r"""A comp-sum loss for the inputs as they are, and how far the adversary moves the margins, for target (N,);
    returns (N,).

    $$ \Phi^\tau\Big(\sum_{k \ne y} e^{-\Delta_k(x) / \rho}\Big)
    + \nu \max_{x' \in B(x, \epsilon)} \|\Delta(x') - \Delta(x)\|_2, \quad \Delta_k = z_y - z_k $$

    The first term is the comp-sum loss of the logits over rho: tau = 0 is the sum-exponential loss, tau = 1
    cross-entropy, 1 < tau < 2 generalized cross-entropy and tau = 2 the mean absolute error. rho stays at 1, since nu
    and the size of the logits have its effect. That tau, nu and rho are 1 in the authors' experiments is unverified;
    they published no code, and the derivation, with an exponential for their rho-margin loss, is ours.
    """
    return comp(clean / rho, target, tau=tau) + nu * moved(adversarial, clean, target)

"""Friendly adversarial training (Zhang et al., ICML 2020, arXiv:2002.11242)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from reference.attacks.ascent import Found
from reference.attacks.objectives import ce
from reference.attacks.search import Search
from reference.methods import defence


def just_wrong(model: Any, x: Tensor, target: Tensor, search: Search, *, further: float) -> Found:
    """PGD on cross-entropy that stops so many steps after a sample is first misclassified."""
    return search.ascend(model, x, target, ce, search.anywhere(x), patience=int(further))


@defence(inner=just_wrong)
def fat(
    target: Tensor, *, adversarial: Tensor, base: Callable[[Tensor, Tensor], Tensor], further: float = 0.0
) -> Tensor:
    r"""The loss for the first misclassified iterate of PGD, for target (N,); returns (N,).

    $$ \ell(f(x'), y), \quad x' = x_{t^* + \tau}, \quad t^* = \min \{t : \arg\max_k f_k(x_t) \ne y\} $$

    An adversary that is no worse than it has to be, which costs less clean accuracy and less time: a sample that is
    misclassified needs no more steps. tau is further; the authors raise it during the training from 0 to 3, here it
    stays.
    """
    return base(adversarial, target)

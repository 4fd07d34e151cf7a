"""Fast gradient sign method (Goodfellow, Shlens & Szegedy, ICLR 2015, arXiv:1412.6572)."""

from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import ascend, attacked
from reference.attacks.objectives import ce
from reference.methods import attack


@attack(norms=("linf", "l2"))
def fgsm(model: Any, x: Tensor, target: Tensor, *, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    r"""One step of the whole radius along the gradient of cross-entropy, for inputs (N, ...) and target (N,); returns
    inputs (N, ...).

    $$ \Pi_{[0,1]}(x + \epsilon \, \mathrm{sign} \, \nabla_x \ell(f(x), y)) $$

    The weakest of the attacks with gradients: a network that withstands it alone has been shown nothing. In the norm
    "l2" the gradient is divided by its length.
    """

    def once(x: Tensor, target: Tensor, attempt: int, rows: Tensor) -> Tensor:
        return ascend(model, x, target, ce, x, eps=eps, norm=norm, step=eps, steps=1).x

    return attacked(model, x, target, once)

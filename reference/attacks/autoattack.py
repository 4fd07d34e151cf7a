"""AutoAttack (Croce & Hein, ICML 2020, arXiv:2003.01690), the standard version."""

from typing import Any

import torch
from torch import Tensor

from reference.attacks.apgd import apgd_ce, apgd_t
from reference.attacks.ascent import attacked
from reference.attacks.fab import fab_t
from reference.attacks.square import square
from reference.methods import attack

STANDARD = {"apgd_ce": apgd_ce, "apgd_t": apgd_t, "fab_t": fab_t, "square": square}  # in this order


@attack(norms=("linf", "l2"), classes=4)
def autoattack(model: Any, x: Tensor, target: Tensor, *, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    r"""Four different attacks in turn, each on what is still right, for inputs (N, ...) and target (N,); returns inputs
    (N, ...).

    $$ \min_{a \in \{\text{APGD-CE}, \, \text{APGD-T}, \, \text{FAB-T}, \, \text{Square}\}}
    [\arg\max_k f_k(a(x)) = y] $$

    Auto-PGD on cross-entropy once, towards 9 targets, the fast adaptive boundary attack towards 9 targets and 5,000
    queries of the square attack: a sample counts as robust where all of them fail. Inputs are images (N, channels,
    height, width).
    """
    turns = list(STANDARD.values())

    def once(x: Tensor, target: Tensor, attempt: int, rows: Tensor) -> Tensor:
        return turns[attempt](model, x, target, eps=eps, norm=norm, generator=generator)

    return attacked(model, x, target, once, len(turns))

"""Fast adaptive boundary attack (Croce & Hein, ICML 2020, arXiv:1907.02044), as its authors implement it."""

from typing import Any

import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor

from reference.attacks.borrowed import perturbed
from reference.methods import attack


@attack(norms=("linf", "l2"))
def fab_t(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float = 100,
    targets: float = 9,
) -> Tensor:
    r"""The smallest change that crosses the boundary to another class, for inputs (N, ...) and target (N,); returns
    inputs (N, ...).

    $$ x_{t+1} = (1 - \alpha)(x_t + \eta \, d_t) + \alpha (x + \eta \, d_0) $$

    d_t and d_0 lead from the iterate and from the input to where the difference of two logits, taken as linear, is 0.
    It counts where the change is within eps. The other classes are tried one after the other, in the order of their
    logits, up to the number of targets; steps is for each. The authors' own program does the work (the package
    pyautoattack), with their eta = 1.05, alpha of at most 0.1 and backward step of 0.9.
    """

    def run(forward: Any, x: Tensor, target: Tensor, seed: int) -> Tensor:
        with torch.no_grad():
            others = min(int(targets), model(x[:1]).shape[1] - 1)
        size = {"n_iter": int(steps), "n_target_classes": others, "n_restarts": 1}
        how = {"norm": norm.capitalize(), "eps": eps, "targeted": True, "seed": seed, "device": x.device}
        return FABAttack_PT(forward, **size, **how).perturb(x, target)

    return perturbed(run, model, x, target, eps, norm, generator)

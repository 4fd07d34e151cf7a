"""Square attack (Andriushchenko et al., ECCV 2020, arXiv:1912.00049), as its authors implement it."""

from typing import Any

import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

from reference.attacks.borrowed import perturbed
from reference.methods import attack


@attack(norms=("linf", "l2"), black_box=True)
def square(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    queries: float = 5000,
    share: float = 0.8,
) -> Tensor:
    r"""Random search with changes in the form of squares, without gradients, for inputs (N, ...) and target (N,);
    returns inputs (N, ...).

    $$ x_{t+1} = \arg\min_{x' \in \{x_t, \; \Pi(x_t + \delta_t)\}} \left(z_y - \max_{k \ne y} z_k\right)(x') $$

    Inputs are images (N, channels, height, width). delta is 2 eps or minus that in a square of each channel, whose area
    begins as share of the image and shrinks on a schedule; queries is how many are tried. The authors' own program does
    the work (the package pyautoattack).
    """

    def run(forward: Any, x: Tensor, target: Tensor, seed: int) -> Tensor:
        size = {"n_queries": int(queries), "p_init": share, "n_restarts": 1, "resc_schedule": False, "loss": "margin"}
        how = {"norm": norm.capitalize(), "eps": eps, "seed": seed, "device": x.device}
        return SquareAttack(forward, **size, **how).perturb(x, target)

    return perturbed(run, model, x, target, eps, norm, generator)

"""Geometry-aware instance-reweighted adversarial training (Zhang et al., ICLR 2021, arXiv:2010.01736)."""

from collections.abc import Callable

import torch
from torch import Tensor

from reference.defences.inner import loudest
from reference.methods import defence


@defence(search={"shift": (-2.0, 2.0)}, inner=loudest)
def gairat(
    target: Tensor,
    *,
    adversarial: Tensor,
    right_steps: Tensor,
    base: Callable[[Tensor, Tensor], Tensor],
    progress: Tensor,
    shift: float = -1.0,
    steps: float = 10.0,
    burn_in: float = 0.5,
) -> Tensor:
    r"""Adversarial training in which samples near the boundary count more, for target (N,); returns (N,).

    $$ w_i \, \ell(f(x_i'), y_i), \quad
    w_i \propto \frac{1}{2}\left(1 + \tanh\left(\lambda + 5 \left(1 - \frac{2 \kappa_i}{K}\right)\right)\right) $$

    kappa counts the steps of the inner search at which the sample is still classified correctly: few, where it lies
    near the boundary. lambda is shift, K steps, which has to be that of the search, and the weights have mean 1 over
    the batch. Before the share burn_in of the training all weights are 1; the authors' 60 of 120 epochs. Known to be
    less robust against stronger attacks than against PGD.
    """
    share = right_steps.to(adversarial.dtype) / steps
    near = (1 + torch.tanh(shift + 5 * (1 - 2 * share))) / 2
    weight = torch.where(progress < burn_in, 1.0, near / near.mean())
    return weight * base(adversarial, target)

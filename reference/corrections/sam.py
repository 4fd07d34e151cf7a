"""Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv:2010.01412)."""

import torch
from torch import Tensor

from reference.methods import Range, correction


@correction(at="weights", search={"rho": Range(0.01, 0.5, log=True)})
def sam(weights: list[Tensor], gradients: list[Tensor], *, rho: float = 0.05) -> list[Tensor]:
    r"""The weights at distance rho up the gradient, where the gradient of the step is taken, for weights and gradients,
    a tensor for each parameter of the network; returns such a list.

    $$ w + \rho \frac{g}{\| g \| + 10^{-12}} $$

    The norm is over all parameters together. To first order these are the worst weights within rho, so that the step
    descends the largest loss around, and prefers flat minima. Two gradients for each step. The default is the authors'
    for CIFAR-10.
    """
    length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    scale = rho / (length + 1e-12)
    return [w + scale * g for w, g in zip(weights, gradients, strict=True)]

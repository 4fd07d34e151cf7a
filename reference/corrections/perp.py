"""Orthogonal gradients, perp-Grad (Prieto et al., ICLR 2025, arXiv:2501.04697)."""

import torch
from torch import Tensor

from reference.methods import correction


@correction(at="gradients")
def perp(weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    r"""The part of the gradient that is orthogonal to the weights, at the gradient's length, for weights and gradients,
    a tensor for each parameter of the network; returns such a list.

    $$ \frac{\| g \|}{\| g_\perp \|} \, g_\perp, \quad
    g_\perp = g - \frac{\langle w, g \rangle}{\langle w, w \rangle} w $$

    Each parameter tensor by itself. The weights then do not grow just to scale the logits up, which lowers the loss of
    samples that are fitted already. Where almost nothing of the gradient is orthogonal it is lengthened a
    thousandfold at most, so that rounding errors do not become steps.
    """
    along = _products(weights, gradients) / (_products(weights, weights) + 1e-30)
    rest = [g - a * w for w, g, a in zip(weights, gradients, along, strict=True)]
    length, left = (_products(tensors, tensors).sqrt() for tensors in (gradients, rest))
    scale = length / torch.maximum(left, 1e-3 * length + 1e-30)
    return [s * r for s, r in zip(scale, rest, strict=True)]


def _products(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """The inner product of each pair of tensors (K,). One tensor of them all: TorchInductor fails on K of them."""
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)])

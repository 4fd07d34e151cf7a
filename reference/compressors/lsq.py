"""Learned step size quantisation, LSQ (Esser et al., ICLR 2020, arXiv:1902.08153)."""

import torch
from torch import Tensor, nn

from reference.compressors.grid import SMALLEST, Grid, Scales, codes, grouped, rounded, spread
from reference.compressors.layers import layers, weight
from reference.compressors.packing import Packed, quantized
from reference.compressors.training import Training, Weights, descend, parameters
from reference.methods import compressor


@compressor()
def lsq(network: nn.Module, inputs: Tensor, *, grid: Grid, training: Training) -> dict[str, Packed | Tensor]:
    """Training goes on with rounded weights, and the steps between levels are trained with them, for a network and
    inputs (N, ...), which it does not look at; returns packed weights and the other parameters.

    Zero is always a level, so no zero-points are written. Our reading: what is trained of a step is its part m = s
    sqrt(p) / 2, at first the weights' mean magnitude, so that AdamW, for which the size of a gradient is nothing,
    changes steps and weights at one pace; the paper's factor of a step's gradient is for that, and for SGD.

    $$ \\hat w = s \\lfloor \\mathrm{clip}(w / s, -n, p) \\rceil, \\quad
       \\frac{\\partial \\hat w}{\\partial s} = \\lfloor w / s \\rceil - w / s, \\; -n \\text{ or } p $$
    """
    form = Grid(grid.bits, grid.group, symmetric=True)
    pace = 2 / _largest(form) ** 0.5
    weights = parameters(network)
    own = layers(network)
    for name in own:
        first = mean_magnitude(weights[f"{name}.weight"].detach().flatten(1), grid.group)
        weights[f"{name}.step"] = first.clamp(min=SMALLEST / pace).requires_grad_()

    def constrain(current: Weights, _: float) -> Weights:
        made = {f"{n}.weight": learned(current[f"{n}.weight"], pace * current[f"{n}.step"], form) for n in own}
        return {**current, **made}

    weights = descend(network, training, weights, constrain=constrain)
    found: dict[str, Packed | Tensor] = {name: p.detach() for name, p in weights.items() if not name.endswith(".step")}
    for name, layer in own.items():
        flat = weights[f"{name}.weight"].detach().flatten(1)
        step = rounded(pace * weights[f"{name}.step"].detach())
        stored = Scales(step, torch.full_like(step, form.levels // 2))
        chosen = codes(flat, *stored.over(flat.shape, grid.group), form.levels)
        found[f"{name}.weight"] = quantized(chosen, stored, form, weight(layer).shape)
    return found


def _largest(grid: Grid) -> int:
    """p: the largest level above zero."""
    return grid.levels // 2 - 1


def mean_magnitude(w: Tensor, group: int) -> Tensor:
    """The mean of |w| (rows, groups) of what shares a step in a matrix (o, d)."""
    return grouped(w.abs(), group).sum(2) / grouped(torch.ones_like(w), group).sum(2)


def learned(w: Tensor, step: Tensor, grid: Grid) -> Tensor:
    """A weight (o, ...) on levels of these steps (rows, groups), with LSQ's gradients for both."""
    flat = w.flatten(1)
    s = spread(step.clamp(min=SMALLEST), flat.shape, grid.group)
    inside = (flat / s).clamp(-(grid.levels // 2), _largest(grid))
    return (s * (inside + (inside.round() - inside).detach())).view_as(w)

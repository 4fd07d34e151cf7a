"""AdaRound (Nagel, Amjad, van Baalen, Louizos & Blankevoort, ICML 2020, arXiv:2004.10568)."""

import torch
from torch import Tensor, nn

from reference.compressors.grid import Grid, Scales, nearest, scales
from reference.compressors.layers import compressing, inputs_of, weight
from reference.compressors.packing import Packed, quantized
from reference.methods import Range, compressor

ZETA, GAMMA = 1.1, -0.1  # the sigmoid is stretched to these ends, so that 0 and 1 are reached
STEPS, RATE = 1000, 1e-2  # the authors take 20,000 noisy steps at 1e-3; here a step sees all calibration rows
WARM = 0.2  # of the steps, without the regulariser
SHARP = (20.0, 2.0)  # of the regulariser: its exponent at first and at last


@compressor(search={"penalty": Range(3.0, 100.0, log=True)})
def adaround(network: nn.Module, inputs: Tensor, *, grid: Grid, penalty: float = 30.0) -> dict[str, Packed]:
    """Each weight is rounded down or up as the layer's outputs want it, for a network and inputs (N, ...); returns
    packed weights.

    Scales are those of rounding to nearest, so that rounding alone differs. Layers are rounded in turn: a layer is to
    give for inputs X' of the quantised layers before it the outputs that it has for X of the full network. Our reading:
    outputs are compared before the activation, every step sees all rows, through X'^T X', and the change of the outputs
    is in units of what rounding to nearest costs a weight in the mean, so that one penalty suits layers of any scale.

    $$ \\min_V \\lVert X W^\\top - X' \\hat W^\\top \\rVert^2
       + \\lambda \\sum \\left( 1 - |2 h(V) - 1|^\\beta \\right), \\quad
       \\hat w = s \\left( \\lfloor w / s \\rfloor + h(V) \\right) $$
    """
    found: dict[str, Packed] = {}
    for name, layer, x in compressing(network, inputs):
        w = weight(layer).detach().flatten(1)
        own = scales(w, grid)
        up = relaxed(w, x, inputs_of(network, name, inputs), own, grid, penalty) >= 0.5
        packed = quantized(chosen(w, up, own, grid), own, grid, weight(layer).shape)
        with torch.no_grad():
            weight(layer).copy_(packed.dense().view_as(weight(layer)))
        found[f"{name}.weight"] = packed
    return found


def relaxed(w: Tensor, x: Tensor, full: Tensor, own: Scales, grid: Grid, penalty: float) -> Tensor:
    """h(V) (o, d) at the end, in [0, 1]: how much of a step each weight is rounded up.

    ``x`` (n, d) are the layer's inputs as they are, ``full`` (n, d) those of the full network.
    """
    step, zero = own.over(w.shape, grid.group)
    low = torch.floor(w / step)
    rest = w / step - low
    v = -torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1)
    gram, wanted = x.mT @ x, x.mT @ full @ w.T
    plain = nearest(w, step, zero, grid.levels)
    unit = w.numel() / ((plain - w) @ gram * (plain - w)).sum().clamp(min=1e-20)
    v.requires_grad_()
    optimizer = torch.optim.Adam([v], RATE, fused=True)
    for i in range(STEPS):
        h = stretched(v)
        levels = (low + zero + h).clamp(0, grid.levels - 1)
        error = step * (levels - zero)
        loss = unit * ((error @ gram * error).sum() - 2 * (error.T * wanted).sum())
        done = i / STEPS
        if done >= WARM:
            share = (done - WARM) / (1 - WARM)
            beta = SHARP[0] + share * (SHARP[1] - SHARP[0])
            loss = loss + penalty * (1 - (2 * h - 1).abs() ** beta).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return stretched(v.detach())


def stretched(v: Tensor) -> Tensor:
    """h(V): a sigmoid that reaches 0 and 1."""
    return (v.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def chosen(w: Tensor, up: Tensor, own: Scales, grid: Grid) -> Tensor:
    """Codes (o, d) of weights that are rounded up where ``up`` is true, else down."""
    step, zero = own.over(w.shape, grid.group)
    return (torch.floor(w / step) + zero + up).clamp(0, grid.levels - 1)

"""Quantisation-aware training with straight-through gradients (Bengio, Leonard & Courville 2013, arXiv:1308.3432)."""

from torch import Tensor, nn

from reference.compressors.grid import Grid, codes, scales, spread
from reference.compressors.layers import layers, weight
from reference.compressors.packing import Packed, quantized
from reference.compressors.training import Training, Weights, descend, held, parameters
from reference.methods import compressor


@compressor()
def qat(network: nn.Module, inputs: Tensor, *, grid: Grid, training: Training) -> dict[str, Packed | Tensor]:
    """Training goes on with weights that are rounded to nearest in the forward pass, for a network and inputs (N, ...),
    which it does not look at; returns packed weights and the other parameters.

    Scales follow the weights. Gradients pass the rounding as if it were not there, where a weight is within the range.

    $$ \\frac{\\partial \\ell}{\\partial w} := \\frac{\\partial \\ell}{\\partial \\hat w} $$
    """
    return _trained(network, grid, training, 1.0)


@compressor(id="qat_half")
def qat_half(network: nn.Module, inputs: Tensor, *, grid: Grid, training: Training) -> dict[str, Packed | Tensor]:
    """Training goes on in full precision for half of the steps at a constant rate, and with rounded weights for the
    others, in which the rate decays, for a network and inputs (N, ...), which it does not look at; returns packed
    weights and the other parameters.

    The fused cooldown of compute-optimal quantisation-aware training (Dremov et al., ICLR 2026, arXiv:2509.22935).

    $$ D = D_\\mathrm{fp} + D_\\mathrm{qat}, \\quad D_\\mathrm{qat} = D / 2 $$
    """
    return _trained(network, grid, training, 0.5)


@compressor(id="qat_tenth")
def qat_tenth(network: nn.Module, inputs: Tensor, *, grid: Grid, training: Training) -> dict[str, Packed | Tensor]:
    """As qat_half with rounded weights in the last tenth of the steps alone, for a network and inputs (N, ...), which
    it does not look at; returns packed weights and the other parameters.

    $$ D = D_\\mathrm{fp} + D_\\mathrm{qat}, \\quad D_\\mathrm{qat} = D / 10 $$
    """
    return _trained(network, grid, training, 0.1)


def _trained(network: nn.Module, grid: Grid, training: Training, share: float) -> dict[str, Packed | Tensor]:
    """The last ``share`` of the steps with rounded weights, those before in full precision at a constant rate."""
    names, first = [f"{name}.weight" for name in layers(network)], 1 - share

    def constrain(current: Weights, done: float) -> Weights:
        if done < first:
            return current
        return {**current, **{name: straight_through(current[name], grid) for name in names}}

    weights = descend(network, training, parameters(network), constrain=constrain, schedule=held(first))
    return stored(network, weights, grid)


def straight_through(w: Tensor, grid: Grid) -> Tensor:
    """A weight (o, ...) rounded to nearest, whose gradient is that of what it is rounded to, 0 out of the range."""
    flat = w.flatten(1)
    found = scales(flat.detach(), grid)
    step, zero = (spread(each, flat.shape, grid.group) for each in (found.step, found.zero))
    inside = flat.clamp(-step * zero, step * (grid.levels - 1 - zero))
    chosen = step * (codes(inside.detach(), step, zero, grid.levels) - zero)
    return (inside + (chosen - inside).detach()).view_as(w)


def stored(network: nn.Module, weights: Weights, grid: Grid) -> dict[str, Packed | Tensor]:
    """Trained parameters, those of layers rounded to nearest."""
    found: dict[str, Packed | Tensor] = {name: w.detach() for name, w in weights.items()}
    for name, layer in layers(network).items():
        flat = weights[f"{name}.weight"].detach().flatten(1)
        own = scales(flat, grid)
        step, zero = own.over(flat.shape, grid.group)
        found[f"{name}.weight"] = quantized(codes(flat, step, zero, grid.levels), own, grid, weight(layer).shape)
    return found

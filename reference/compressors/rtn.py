"""Round to nearest: the plain form of uniform quantisation (Jacob et al., CVPR 2018, arXiv:1712.05877)."""

from torch import Tensor, nn

from reference.compressors.grid import Grid, Scales, codes, least_error, scales
from reference.compressors.layers import layers, weight
from reference.compressors.packing import Packed, quantized
from reference.methods import compressor


@compressor()
def rtn(network: nn.Module, inputs: Tensor, *, grid: Grid) -> dict[str, Packed]:
    """Each weight becomes the nearest level between the smallest and the largest of those that share a scale, for a
    network and inputs (N, ...), which it does not look at; returns packed weights.

    $$ \\hat w = s \\left( \\mathrm{clip}\\left( \\lfloor w / s \\rceil + z, 0, 2^b - 1 \\right) - z \\right) $$
    """
    return {f"{name}.weight": _packed(layer, scales(matrix, grid), grid) for name, layer, matrix in _layers(network)}


@compressor(id="mse")
def mse(network: nn.Module, inputs: Tensor, *, grid: Grid) -> dict[str, Packed]:
    """Round to nearest within the range, shrunk by up to 79 percent, that has the least error of the weights, for a
    network and inputs (N, ...), which it does not look at; returns packed weights.

    The search of GPTQ's code: of the ranges shrunk by whole percents the one with the least sum of errors to the power
    2.4, for each of those that share a scale.

    $$ \\min_p \\sum \\left| \\hat w(p) - w \\right|^{2.4} $$
    """
    found = _layers(network)
    return {f"{name}.weight": _packed(layer, least_error(matrix, grid), grid) for name, layer, matrix in found}


def _layers(network: nn.Module) -> list[tuple[str, nn.Module, Tensor]]:
    return [(name, layer, weight(layer).detach().flatten(1)) for name, layer in layers(network).items()]


def _packed(layer: nn.Module, found: Scales, grid: Grid) -> Packed:
    w = weight(layer).detach()
    step, zero = found.over(w.flatten(1).shape, grid.group)
    return quantized(codes(w.flatten(1), step, zero, grid.levels), found, grid, w.shape)

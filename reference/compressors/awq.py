"""AWQ (Lin et al., MLSys 2024, arXiv:2306.00978)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.compressors.grid import Grid, Scales, codes, grouped, nearest, scales
from reference.compressors.layers import in_turn, layers, moments, weight
from reference.compressors.packing import Packed, quantized
from reference.methods import compressor

POWERS = tuple(i / 20 for i in range(20))
SHRINKS = tuple(1 - i / 20 for i in range(10))  # of the range: down to 0.55, as the authors' code has it


@compressor()
def awq(network: nn.Module, inputs: Tensor, *, grid: Grid) -> dict[str, Packed]:
    """Columns with large inputs are made larger before they are rounded, and smaller behind that, for a network and
    inputs (N, ...); returns packed weights.

    The power of the inputs' mean magnitude is searched for each layer, then the range of each group is shrunk where it
    lessens the error of its share of the outputs. Our reading: a block is one layer, and the factors of its columns are
    stored with it instead of in the layer before, which need not be linear; both ends of a range are shrunk alike and
    zero stays in it, where the authors clip symmetrically, and no layer is left out of that.

    $$ \\hat W = Q(W \\, \\mathrm{diag}(s)) \\, \\mathrm{diag}(s)^{-1}, \\quad
       s_j = (\\mathrm{mean}_t |X_{tj}|)^\\alpha $$
    """
    own = layers(network)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        h = moments(x) / len(x)
        found = [factors(x.abs().mean(0), power) for power in POWERS]
        best = min(found, key=lambda s: float(output_error(scaled(w, s, grid) - w, h)))
        clipped = least_output_error(w * best, h / torch.outer(best, best), grid)
        step, zero = clipped.over(w.shape, grid.group)
        return quantized(codes(w * best, step, zero, grid.levels), clipped, grid, weight(own[name]).shape, best)

    return in_turn(network, inputs, compress)


def factors(size: Tensor, power: float) -> Tensor:
    """s (d,) of inputs of this mean magnitude (d,): numbers of float16 around 1."""
    s = (size**power).clamp(min=1e-4)
    return (s / (s.max() * s.min()).sqrt()).half().float()


def scaled(w: Tensor, s: Tensor, grid: Grid) -> Tensor:
    """Weights (o, d) rounded to nearest when columns are s (d,) times as large."""
    step, zero = scales(w * s, grid).over(w.shape, grid.group)
    return nearest(w * s, step, zero, grid.levels) / s


def output_error(change: Tensor, h: Tensor) -> Tensor:
    """The squared change of the outputs for a change (o, d) of the weights, the mean of X^T X being h (d, d)."""
    return (change @ h * change).sum()


def least_output_error(w: Tensor, h: Tensor, grid: Grid) -> Scales:
    """Of ranges shrunk by up to 45 percent the one that changes each group's share of the outputs least."""
    best, least = scales(w, grid), torch.tensor(torch.inf)
    for shrink in SHRINKS:
        tried = scales(w, grid, shrink)
        step, zero = tried.over(w.shape, grid.group)
        error = _shares(nearest(w, step, zero, grid.levels) - w, h, grid.group)
        better = error < least
        least = torch.where(better, error, least)
        best = Scales(torch.where(better, tried.step, best.step), torch.where(better, tried.zero, best.zero))
    return best


def _shares(change: Tensor, h: Tensor, group: int) -> Tensor:
    """The squared change of each group's share of the outputs (rows, groups)."""
    if group < 0:
        return output_error(change, h).view(1, 1)
    if group == 0:
        return (change @ h * change).sum(1, keepdim=True)
    parts = grouped(change, group)
    padding = parts.shape[1] * group - len(h)
    blocks = F.pad(h, (0, padding, 0, padding)).unflatten(0, (-1, group)).unflatten(2, (-1, group))
    own = blocks.diagonal(dim1=0, dim2=2)  # (group, group, groups)
    return torch.einsum("rgi,ijg,rgj->rg", parts, own, parts)

"""BAQ (Zhang et al., BAQ: Efficient Bit Allocation Quantization, 2025, arXiv:2506.05664)."""

import torch
from torch import Tensor, nn

from reference.compressors.gptq import rounded
from reference.compressors.grid import SMALLEST, Grid, codes, grouped
from reference.compressors.layers import in_turn, layers, moments, weight
from reference.compressors.packing import MIDDLE, Columnwise, Packed, column_bytes, column_scales, quantized
from reference.compressors.solver import by_columns, factor
from reference.methods import compressor

MOST = 256  # levels of a column
EPSILON = 1e-8  # inside the logarithm


@compressor()
def baq(network: nn.Module, inputs: Tensor, *, grid: Grid, theta: float = 1.95) -> dict[str, Packed]:
    """GPTQ whose columns have as many levels as makes their losses alike, for a network and inputs (N, ...); returns
    packed weights.

    A first GPTQ with equal bits says what each column loses. The number of levels is whole, no power of two, at most
    256; a column of one level is zero. Levels are as many as a file may hold that is no longer than GPTQ's with the
    grid's bits, the numbers of levels included: the authors' code asks for that mean of R, rounds, and may exceed it.
    Where that is expected to lose more than equal bits do, as in layers of few rows, bits are equal. Ranges are those
    of the rows.

    $$ R_j = \\bar R + \\tfrac{1}{\\theta} \\log_2 \\frac{L_j}{\\left( \\prod_k L_k \\right)^{1/d}} $$
    """
    own = layers(network)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        h = moments(x)
        found, chosen, losses = rounded(w, h, grid)
        levels = allocated(losses, len(w), grid.bits, theta)
        if not pays(losses, levels, grid.bits):
            return quantized(chosen, found, grid, weight(own[name]).shape)
        return _solved(w, h, levels, grid, weight(own[name]).shape)

    return in_turn(network, inputs, compress)


def allocated(losses: Tensor, rows: int, bits: int, theta: float = 1.95) -> Tensor:
    """Levels (d,), int64, of columns with these losses (d,): the most that ``bits`` a weight can write.

    ``rows`` (o) decides what the numbers of levels themselves weigh.
    """
    most = -(-rows * len(losses) * bits // 8)
    logs = (losses.double() + EPSILON).log2()
    wanted = bits + (logs - logs.mean()) / theta
    low, high = -40.0, 20.0  # what is added to all: at first each has one level, at last the most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if column_bytes(_levels(wanted + middle) - 1, rows) <= most else (low, middle)
    return _levels(wanted + low)


def pays(losses: Tensor, levels: Tensor, bits: int) -> bool:
    """Whether columns with these losses (d,) at equal bits are expected to lose less with these levels (d,).

    A loss is taken to fall with the square of the number of levels, as the paper has it.
    """
    return bool((losses.double() * (2.0**bits / levels) ** 2).sum() < losses.double().sum())


def _levels(bits: Tensor) -> Tensor:
    return torch.round(2**bits).clamp(1, MOST).long()


def _solved(w: Tensor, h: Tensor, levels: Tensor, grid: Grid, shape: torch.Size) -> Columnwise:
    """A matrix (o, d) with these levels (d,), columns rounded in turn as in GPTQ."""
    parts = grouped(w, grid.group)
    low, high = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
    if grid.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    span, most = (high - low).clamp(SMALLEST, 65504).half().float(), (levels - 1).to(torch.uint8)
    place = torch.round(-low / span * 2 * MIDDLE).clamp(0, 2 * MIDDLE)
    step, zero = column_scales(span, place, most, w.shape, grid.group)
    chosen = torch.zeros(w.T.shape, dtype=torch.uint8)

    def decide(j: int, column: Tensor) -> Tensor:
        if levels[j] == 1:
            return torch.zeros_like(column)
        q = codes(column, step[:, j], zero[:, j], int(levels[j]))
        chosen[j] = q.to(torch.uint8)
        return step[:, j] * (q - zero[:, j])

    r, dead = factor(h)
    left = w.clone()
    left[:, dead] = 0
    by_columns(left, r, decide)
    return Columnwise(chosen.T.contiguous(), most, span, place, grid.group, tuple(shape), grid.symmetric)

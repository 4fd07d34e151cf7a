"""GPTQ (Frantar, Ashkboos, Hoefler & Alistarh, ICLR 2023, arXiv:2210.17323)."""

import torch
from torch import Tensor, nn

from reference.compressors.grid import Grid, Scales, codes, scales
from reference.compressors.layers import in_turn, layers, moments, weight
from reference.compressors.packing import Packed, quantized
from reference.compressors.solver import by_columns, factor
from reference.methods import compressor


@compressor()
def gptq(network: nn.Module, inputs: Tensor, *, grid: Grid) -> dict[str, Packed]:
    """Columns are rounded one by one, and those not rounded yet make up for the error in the layer's outputs, for a
    network and inputs (N, ...); returns packed weights.

    Layers are quantised in turn, with the inputs that those before, already quantised, give. A group's scales are made
    of the weights as they are when its first column comes; where a whole row or the matrix shares one, of the first.

    $$ e_j = \\frac{w_j - \\hat w_j}{U_{jj}}, \\quad w_k \\leftarrow w_k - e_j U_{jk} \\; (k > j),
       \\quad (X^\\top X)^{-1} = U^\\top U $$
    """
    return _layer_by_layer(network, inputs, grid, "current")


@compressor(id="gptq_script")
def gptq_script(network: nn.Module, inputs: Tensor, *, grid: Grid) -> dict[str, Packed]:
    """GPTQ as the authors' code has it, for a network and inputs (N, ...); returns packed weights.

    A group's scales are made of the weights as they were before the block of 128 columns that it lies in. It is the
    same as the paper's where groups are whole rows.

    $$ s_g = s(W^{(B)}_{:,g}), \\quad B = 128 \\lfloor g / 128 \\rfloor $$
    """
    return _layer_by_layer(network, inputs, grid, "block")


@compressor(id="gptq_order")
def gptq_order(network: nn.Module, inputs: Tensor, *, grid: Grid) -> dict[str, Packed]:
    """GPTQ that rounds the columns with the largest inputs first, for a network and inputs (N, ...); returns packed
    weights.

    The code's "act-order" with static groups: scales are those of the weights before any is rounded, so that a group is
    still one of consecutive columns.

    $$ \\text{columns } j \\text{ in the order of decreasing } \\sum_t X_{tj}^2 $$
    """
    return _layer_by_layer(network, inputs, grid, "order")


def _layer_by_layer(network: nn.Module, inputs: Tensor, grid: Grid, how: str) -> dict[str, Packed]:
    own = layers(network)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        found, chosen, _ = rounded(w, moments(x), grid, how)
        return quantized(chosen, found, grid, weight(own[name]).shape)

    return in_turn(network, inputs, compress)


def rounded(w: Tensor, h: Tensor, grid: Grid, how: str = "current") -> tuple[Scales, Tensor, Tensor]:
    """Scales, codes (o, d) and column losses (d,) of a matrix w (o, d) for inputs with X^T X = h (d, d).

    ``how``: where the scales of groups come from, "current" weights or those before the "block"; or "order", see
    :func:`gptq_order`. Weights of inputs that are always zero become zero after the scales are taken.
    """
    if how == "order":
        order = h.diagonal().argsort(descending=True, stable=True)
        found, chosen, losses = _in_order(w[:, order], h[order][:, order], scales(w, grid), grid, order, how)
        back = order.argsort()
        return found, chosen[:, back], losses[back]
    return _in_order(w.clone(), h, scales(w, grid), grid, torch.arange(len(h)), how)


def _in_order(
    w: Tensor, h: Tensor, first: Scales, grid: Grid, order: Tensor, how: str
) -> tuple[Scales, Tensor, Tensor]:
    """The same of columns that are in the order in which they are rounded; w is changed."""
    r, dead = factor(h)
    w[:, dead] = 0
    steps = _Steps(w, first, grid, order, how)
    together = 1 if how == "order" else max(grid.group, 1)
    _, losses = by_columns(w, r, steps.decide, steps.begin, together=together)
    return steps.scales, steps.codes.T.contiguous(), losses


class _Steps:
    """The rounding of one matrix at work: scales as they are made, and codes (d, o) so far."""

    def __init__(self, w: Tensor, first: Scales, grid: Grid, order: Tensor, how: str) -> None:
        self.scales = Scales(first.step.clone(), first.zero.clone())
        self.grid, self.order, self.how = grid, order.tolist(), how
        self.codes = w.new_empty(w.T.shape)

    def begin(self, first: int, columns: Tensor, _: Tensor) -> None:
        self.first, self.columns = first, columns
        self.before = columns.clone() if self.how == "block" else columns

    def decide(self, j: int, column: Tensor) -> Tensor:
        group, place = self.grid.group, self.order[j]
        if group > 0 and j % group == 0 and self.how != "order":
            self._measure(j)
        at = place // group if group > 0 else 0
        step, zero = self.scales.step[:, at], self.scales.zero[:, at]
        own = codes(column, step, zero, self.grid.levels)
        self.codes[j] = own
        return step * (own - zero)

    def _measure(self, j: int) -> None:
        """Scales of the group that begins at column j. Of one that goes beyond its block (of another width) the part in
        the block is measured."""
        start = j - self.first
        part = self.before[start : start + self.grid.group].T
        found = scales(part, Grid(self.grid.bits, 0, self.grid.symmetric))
        self.scales.step[:, j // self.grid.group] = found.step[:, 0]
        self.scales.zero[:, j // self.grid.group] = found.zero[:, 0]

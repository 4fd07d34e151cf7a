"""SparseGPT (Frantar & Alistarh, ICML 2023, arXiv:2301.00774)."""

import torch
from torch import Tensor, nn

from reference.compressors.layers import in_turn, layers, moments, weight
from reference.compressors.packing import Packed, sparse
from reference.compressors.pattern import Pattern, group_mask, largest
from reference.compressors.solver import BLOCK, by_columns, factor
from reference.methods import compressor


@compressor(semi_structured=True)
def sparsegpt(network: nn.Module, inputs: Tensor, *, pattern: Pattern) -> dict[str, Packed]:
    """Of every block of columns the weights are cut that cost least, and the columns after them make up for it, for a
    network and inputs (N, ...); returns packed weights.

    Layers are pruned in turn, with the inputs that those before, already pruned, give. Up to the end of every block of
    128 columns exactly floor(s n) weights are cut: the authors' code cuts one more of each block. Where n of every m
    are kept, a block has fewer columns if m does not divide 128.

    $$ \\varepsilon_{rj} = \\frac{w_{rj}^2}{U_{jj}^2}, \\quad (X^\\top X)^{-1} = U^\\top U $$
    """
    own = layers(network)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        pruned, mask = solved(w, moments(x), pattern)
        return sparse(pruned, mask, weight(own[name]).shape)

    return in_turn(network, inputs, compress)


def solved(w: Tensor, h: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """The weights (o, d) that are left of a matrix for inputs with X^T X = h (d, d), and their mask (o, d)."""
    r, dead = factor(h)
    left = w.clone()
    left[:, dead] = 0
    steps = _Steps(w.T.shape, pattern)
    m = pattern.m or 1
    decided, _ = by_columns(left, r, steps.decide, steps.begin, together=m, block=max(BLOCK // m, 1) * m)
    return decided, steps.mask.T.contiguous()


class _Steps:
    """The pruning of one matrix at work: the mask is decided at the start of each block, or of each group."""

    def __init__(self, shape: torch.Size, pattern: Pattern) -> None:
        self.pattern = pattern
        self.mask = torch.ones(shape, dtype=torch.bool)  # (d, o)
        self.cut = 0  # so far: blocks of few weights round down, later ones make up for it

    def begin(self, first: int, columns: Tensor, diagonal: Tensor) -> None:
        self.first, self.columns, self.diagonal = first, columns, diagonal
        if not self.pattern.m:
            scores = self._scores(0, len(columns)).T
            count = self.pattern.cut((first + len(columns)) * len(scores)) - self.cut
            self.cut += count
            self.mask[first : first + len(columns)] = largest(scores, scores.numel() - count).T

    def decide(self, j: int, column: Tensor) -> Tensor:
        m = self.pattern.m
        if m and j % m == 0:
            start = j - self.first
            self.mask[j : j + m] = group_mask(self._scores(start, start + m), self.pattern.n)
        return torch.where(self.mask[j], column, 0.0)

    def _scores(self, start: int, end: int) -> Tensor:
        """(end - start, o) of these columns of the block."""
        return (self.columns[start:end] / self.diagonal[start:end, None]).square()

"""Wanda (Sun, Liu, Bair & Kolter, ICLR 2024, arXiv:2306.11695)."""

from torch import Tensor, nn

from reference.compressors.layers import in_turn, layers, weight
from reference.compressors.packing import Packed, sparse
from reference.compressors.pattern import Pattern, in_groups, in_rows, kept_in_rows
from reference.methods import compressor


@compressor(semi_structured=True)
def wanda(network: nn.Module, inputs: Tensor, *, pattern: Pattern) -> dict[str, Packed]:
    """Of every row the weights are cut that are smallest by magnitude times the size of their input, for a network and
    inputs (N, ...); returns packed weights.

    Layers are pruned in turn, with the inputs that those before, already pruned, give. Every row is cut by the same
    number, or by one more so that the layer's share is met.

    $$ S_{rj} = |w_{rj}| \\, \\lVert X_j \\rVert_2 $$
    """
    own = layers(network)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        return sparse(w, mask(w.abs() * x.norm(dim=0), pattern), weight(own[name]).shape)

    return in_turn(network, inputs, compress)


def mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Of scores (o, d) the largest of each row, or of each group of columns."""
    if pattern.m:
        return in_groups(scores, pattern.n, pattern.m)
    return in_rows(scores, kept_in_rows(scores.shape, pattern))

"""Magnitude pruning (Han et al., NeurIPS 2015, arXiv:1506.02626; Gupta et al. 2022, arXiv:2209.14624)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reference.compressors.layers import layers, matrices, weight
from reference.compressors.packing import Packed, sparse
from reference.compressors.pattern import Pattern, kept_of_all, largest, matrix_mask, with_floor
from reference.methods import compressor

FLOOR = 0.0005  # of all weights: what each layer keeps at least


@compressor(semi_structured=True)
def magnitude(network: nn.Module, inputs: Tensor, *, pattern: Pattern) -> dict[str, Packed]:
    """Of every layer the same share of weights is cut, the smallest, for a network and inputs (N, ...), which it does
    not look at; returns packed weights.

    $$ m_{rj} = [\\, |w_{rj}| \\text{ is among the largest } (1 - s)\\, n_\\ell \\text{ of its layer} \\,] $$
    """
    found = matrices(network)
    return packed(network, {name: matrix_mask(w.abs(), pattern) for name, w in found.items()})


@compressor(id="global_magnitude")
def global_magnitude(network: nn.Module, inputs: Tensor, *, pattern: Pattern) -> dict[str, Packed]:
    """The smallest weights of the whole network are cut, but of each layer so many are kept as 0.05 percent of all
    weights, for a network and inputs (N, ...), which it does not look at; returns packed weights.

    The floor is the paper's minimum threshold: without it a layer may lose all of its weights. What a layer is given is
    taken from the others in proportion.

    $$ m_{rj} = [\\, |w_{rj}| \\ge \\tau \\,] $$
    """
    return packed(network, global_masks(matrices(network), pattern))


@compressor(id="lamp")
def lamp(network: nn.Module, inputs: Tensor, *, pattern: Pattern) -> dict[str, Packed]:
    """Layer-adaptive magnitude (Lee et al., ICLR 2021, arXiv:2010.07611): weights are compared over all layers by
    their share of what is left of the layer, for a network and inputs (N, ...), which it does not look at; returns
    packed weights.

    $$ \\frac{w_u^2}{\\sum_{v : |w_v| \\ge |w_u|} w_v^2} $$
    """
    found = {name: lamp_scores(w) for name, w in matrices(network).items()}
    kept = kept_of_all(found, pattern)
    return packed(network, {name: largest(scores, kept[name]) for name, scores in found.items()})


def lamp_scores(w: Tensor) -> Tensor:
    """Of each weight (o, d): its square over the sum of the squares of those that are no smaller, itself included."""
    square = w.flatten().double().square()
    order = square.argsort(stable=True)
    left = square[order].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(square)
    scores[order] = square[order] / left.clamp(min=1e-300)
    return scores.view(w.shape)


def global_masks(weights: Mapping[str, Tensor], pattern: Pattern) -> dict[str, Tensor]:
    """Masks of the largest of all these weights (o, d), with the floor; or of the largest of every group of columns."""
    found = {name: w.abs() for name, w in weights.items()}
    if pattern.m:
        return {name: matrix_mask(w, pattern) for name, w in found.items()}
    sizes = {name: w.numel() for name, w in found.items()}
    kept = with_floor(kept_of_all(found, pattern), sizes, int(FLOOR * sum(sizes.values())))
    return {name: largest(w, kept[name]) for name, w in found.items()}


def packed(network: nn.Module, masks: dict[str, Tensor]) -> dict[str, Packed]:
    """The network's weights under these masks (o, d)."""
    own = layers(network)
    return {
        f"{name}.weight": sparse(weight(own[name]).detach().flatten(1), mask, weight(own[name]).shape)
        for name, mask in masks.items()
    }

"""Layer-adaptive weight pruning by rate and distortion (Xu et al., ICCV 2023, arXiv:2308.10438)."""

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reference.compressors.layers import matrices, weights_replaced
from reference.compressors.magnitude import packed
from reference.compressors.packing import Packed
from reference.compressors.pattern import Pattern, largest
from reference.methods import compressor

AMOUNTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, *(i / 20 for i in range(4, 21)))  # kept, of a layer
OUTPUTS = 4096  # that a distortion is a mean of, at most: 128 rows of images, 32 windows of 128 tokens
AROUND = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # times what is kept in the mean

Floats = npt.NDArray[np.float64]


@compressor()
def rdprune(network: nn.Module, inputs: Tensor, *, pattern: Pattern) -> dict[str, Packed]:
    """Of each layer so many of the smallest weights are cut that the outputs change least in all, for a network and
    inputs (N, ...); returns packed weights.

    The change that a layer's pruning makes is measured alone, on at most 4,096 outputs; changes are taken to add up,
    and the amounts are chosen by dynamic programming over the number of kept weights. The authors' code is not exact;
    this is. What the amounts leave of the budget goes to the largest weights that were cut.

    $$ \\min_{\\varphi} \\sum_\\ell d_\\ell(\\varphi_\\ell) \\quad \\text{with} \\quad
       \\sum_\\ell \\varphi_\\ell n_\\ell \\le (1 - s)\\, n $$
    """
    found = matrices(network)
    total = sum(w.numel() for w in found.values())
    budget = total - pattern.cut(total)
    share = budget / total
    kept = [_amounts(w.numel(), share) for w in found.values()]
    bends = [distortions(network, inputs, name, counts) for name, counts in zip(found, kept, strict=True)]
    chosen = allocated(kept, bends, budget)
    masks = {name: largest(w.abs(), int(n)) for (name, w), n in zip(found.items(), chosen, strict=True)}
    return packed(network, _filled(found, masks, budget - sum(chosen)))


def _amounts(size: int, share: float) -> list[int]:
    return sorted({round(min(1.0, each) * size) for each in (*AMOUNTS, *(share * factor for factor in AROUND))})


@torch.no_grad()
def distortions(network: nn.Module, inputs: Tensor, name: str, kept: Sequence[int]) -> list[float]:
    """The mean squared change of the outputs when of one layer so many of the largest weights are kept."""
    model = copy.deepcopy(network)
    each = len(model(inputs[:1]).flatten(0, -2))
    inputs = inputs[: max(1, OUTPUTS // each)]
    full, w = model(inputs), matrices(model)[name]
    found = []
    for count in kept:
        with weights_replaced(model, {name: w * largest(w.abs(), count)}):
            found.append(float((model(inputs) - full).square().flatten(1).sum(1).mean()))
    return found


def allocated(kept: Sequence[Sequence[int]], cost: Sequence[Sequence[float]], budget: int) -> list[int]:
    """How many weights each layer keeps, one of its numbers in ``kept``, so that the sum of the costs is least.

    In all at most ``budget`` are kept. Exact; the time is linear in layers, amounts and budget.

    Raises:
        ValueError: the least numbers of all layers exceed the budget.
    """
    best: Floats = np.zeros(budget + 1)
    choices = []
    for counts, own in zip(kept, cost, strict=True):
        new: Floats = np.full(budget + 1, np.inf)
        choice = np.zeros(budget + 1, np.int16)
        for i, (count, change) in enumerate(zip(counts, own, strict=True)):
            if count <= budget:
                tried = best[: budget + 1 - count] + change
                better = tried < new[count:]
                new[count:][better] = tried[better]
                choice[count:][better] = i
        best = new
        choices.append(choice)
    if not np.isfinite(best[budget]):
        raise ValueError(f"no choice of amounts keeps at most {budget} weights")
    found, left = [], budget
    for counts, choice in zip(reversed(kept), reversed(choices), strict=True):
        found.append(int(counts[choice[left]]))
        left -= found[-1]
    return found[::-1]


def _filled(weights: dict[str, Tensor], masks: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Masks that keep ``count`` more, the largest of all that were cut."""
    cut = torch.cat([(w.abs() * ~masks[name] - masks[name].to(w.dtype)).flatten() for name, w in weights.items()])
    more = largest(cut, count).split([w.numel() for w in weights.values()])
    return {name: masks[name] | part.view(w.shape) for (name, w), part in zip(weights.items(), more, strict=True)}

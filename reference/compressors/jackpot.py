"""Lottery jackpots (Zhang et al. 2021, arXiv:2104.08700)."""

from torch import Tensor, nn

from reference.compressors.layers import layers, matrices
from reference.compressors.magnitude import global_masks, packed
from reference.compressors.packing import Packed
from reference.compressors.pattern import Pattern, in_groups, largest
from reference.compressors.training import Training, Weights, descend
from reference.methods import compressor


@compressor(semi_structured=True)
def jackpot(network: nn.Module, inputs: Tensor, *, pattern: Pattern, training: Training) -> dict[str, Packed]:
    """Weights stay as they are, and which of them are kept is trained, for a network and inputs (N, ...), which it does
    not look at; returns packed weights.

    Every weight has a score, its magnitude at first; those with the largest scores are kept, of each layer as many as
    global magnitude pruning keeps, and gradients reach scores as if they were the mask. Our reading: AdamW as for all
    methods here, and no limit on how many weights change sides in a step.

    $$ \\min_m \\ell([\\, m \\ge \\tau_\\ell(m) \\,] \\odot w), \\quad
       \\frac{\\partial \\ell}{\\partial m} := \\frac{\\partial \\ell}{\\partial [\\, m \\ge \\tau_\\ell \\,]} $$
    """
    fixed = {name: p.detach() for name, p in network.named_parameters()}
    kept = {name: int(mask.sum()) for name, mask in global_masks(matrices(network), pattern).items()}
    scores = {name: w.abs().requires_grad_() for name, w in matrices(network).items()}

    def mask(name: str, score: Tensor) -> Tensor:
        return in_groups(score, pattern.n, pattern.m) if pattern.m else largest(score, kept[name])

    def constrain(current: Weights, _: float) -> Weights:
        found = dict(fixed)
        for name, score in current.items():
            chosen = mask(name, score.detach()).to(score.dtype) + (score - score.detach())
            whole = f"{name}.weight"
            found[whole] = fixed[whole] * chosen.view_as(fixed[whole])
        return found

    scores = descend(network, training, scores, constrain=constrain)
    return packed(network, {name: mask(name, scores[name].detach()) for name in layers(network)})

"""Magnitude pruning with training (Han et al., NeurIPS 2015, arXiv:1506.02626; Zhu & Gupta 2017, arXiv:1710.01878)."""

from collections.abc import Mapping

from torch import Tensor, nn

from reference.compressors.layers import layers, matrices, weight
from reference.compressors.magnitude import global_masks
from reference.compressors.packing import Packed, sparse
from reference.compressors.pattern import Pattern
from reference.compressors.training import Objective, Training, Weights, descend, held, parameters
from reference.methods import compressor

RAMP = 0.75  # of a gradual schedule: the share of the steps in which more and more is cut
CUTS = 20  # at so many times
FLAT = 0.2  # of the steps: those of SAM, which take two gradients each
RADIUS = 0.05  # of SAM

Masks = Mapping[str, Tensor]  # name of a layer -> what is kept of its matrix (o, d)


@compressor(semi_structured=True)
def fine_tuned(
    network: nn.Module, inputs: Tensor, *, pattern: Pattern, training: Training
) -> dict[str, Packed | Tensor]:
    """The smallest weights of the whole network are cut and the others are trained further, for a network and inputs
    (N, ...), which it does not look at; returns packed weights and the other parameters.

    $$ \\min_w \\ell(m \\odot w), \\quad m = [\\, |w| \\ge \\tau \\,] $$
    """
    masks = global_masks(matrices(network), pattern)
    return pruned(network, masked(network, training, parameters(network), masks), masks)


@compressor(semi_structured=True)
def gradual(network: nn.Module, inputs: Tensor, *, pattern: Pattern, training: Training) -> dict[str, Packed | Tensor]:
    """More and more of the smallest weights are cut while training goes on, for a network and inputs (N, ...), which it
    does not look at; returns packed weights and the other parameters.

    The cubic schedule over the first three quarters of the steps. Of every m weights n are kept from the start on,
    where that is asked for.

    $$ s_t = s \\left( 1 - (1 - t / T)^3 \\right) $$
    """
    masks: dict[str, Tensor] = {}
    stage = -1

    def constrain(current: Weights, done: float) -> Weights:
        nonlocal masks, stage
        now = min(CUTS, int(done / RAMP * CUTS) + 1)
        if now != stage:
            stage = now
            left = {name: flat(current, name) * masks.get(name, 1.0) for name in layers(network)}
            share = pattern.sparsity * (1 - (1 - now / CUTS) ** 3)
            masks = global_masks(left, Pattern(share, pattern.n, pattern.m))
        return under(current, masks)

    weights = descend(network, training, parameters(network), constrain=constrain)
    left = {name: flat(weights, name) * masks.get(name, 1.0) for name in layers(network)}
    return pruned(network, weights, global_masks(left, pattern))


@compressor(semi_structured=True)
def sam_pruned(
    network: nn.Module, inputs: Tensor, *, pattern: Pattern, training: Training
) -> dict[str, Packed | Tensor]:
    """A third of the gradients looks for a flat minimum before the smallest weights are cut, two thirds train what is
    left, for a network and inputs (N, ...), which it does not look at; returns packed weights and the other parameters.

    Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv:2010.01412) before pruning, at a constant rate. Its
    steps cost two gradients each: five sixths of the steps are taken, so that all methods have as many gradients.

    $$ \\min_w \\max_{\\lVert e \\rVert \\le \\rho} \\ell(w + e) $$
    """
    masks: Masks = {}

    def cut(current: Weights) -> Masks:
        return global_masks({name: flat(current, name) for name in layers(network)}, pattern)

    def constrain(current: Weights, done: float) -> Weights:
        nonlocal masks
        if done >= FLAT and not masks:
            masks = cut(current)
        return under(current, masks)

    weights = descend(
        network,
        training.of(1 / (1 + FLAT)),
        parameters(network),
        constrain=constrain,
        schedule=held(FLAT),
        sharpness=lambda done: RADIUS if done < FLAT else 0.0,
    )
    return pruned(network, weights, masks or cut(weights))


def masked(
    network: nn.Module, training: Training, weights: Weights, masks: Masks, objective: Objective | None = None
) -> Weights:
    """Train these parameters under fixed masks."""
    return descend(network, training, weights, objective=objective, constrain=lambda now, _: under(now, masks))


def flat(weights: Weights, name: str) -> Tensor:
    """The matrix (o, d) of a layer, without gradient."""
    return weights[f"{name}.weight"].detach().flatten(1)


def under(weights: Weights, masks: Masks) -> Weights:
    """Parameters with layers' weights under masks."""
    found = {f"{name}.weight": weights[f"{name}.weight"] for name in masks}
    return {
        **weights,
        **{key: w * mask.view_as(w) for (key, w), mask in zip(found.items(), masks.values(), strict=True)},
    }


def pruned(network: nn.Module, weights: Weights, masks: Masks) -> dict[str, Packed | Tensor]:
    """Trained parameters of the network, those of layers under masks."""
    found: dict[str, Packed | Tensor] = {name: weights[name].detach() for name, _ in network.named_parameters()}
    for name, layer in layers(network).items():
        found[f"{name}.weight"] = sparse(flat(weights, name), masks[name], weight(layer).shape)
    return found

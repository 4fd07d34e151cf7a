"""Elastic quantisation, EQ-Net (Xu et al., ICCV 2023, arXiv:2308.07650)."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from reference.compressors.distilled import divergence
from reference.compressors.grid import SMALLEST, Grid
from reference.compressors.layers import layers
from reference.compressors.packing import Packed
from reference.compressors.qat import stored, straight_through
from reference.compressors.training import Training, Weights, descend, parameters
from reference.methods import compressor

MOST = 8  # bits
KURTOSIS = 1.8  # of a uniform distribution, which loses least to evenly spaced levels

Grids = Mapping[str, Grid]  # name of a layer -> how its weight is rounded


@compressor(id="eqnet", search={"shape": (0.0, 1.0)})
def eqnet(
    network: nn.Module,
    inputs: Tensor,
    *,
    grid: Grid,
    training: Training,
    generator: Generator,
    alpha: float = 0.5,
    shape: float = 0.01,
) -> dict[str, Packed | Tensor]:
    """Training goes on with weights that have to do for several numbers of bits at once, for a network and inputs (N,
    ...), which it does not look at; returns packed weights of the bits asked for and the other parameters.

    Every step trains the network at 8 bits, at bits drawn for each layer, and at the bits asked for, each also towards
    the outputs of the one before; weights are pushed towards even distributions. A step has three gradients: a third
    of the steps are taken, so that all methods have as many. Our reading: bits from those asked for on instead of from
    2, scales shared as asked for, the weight of that push, and that no mixture of bits is searched for.

    $$ \\sum_i (1 - \\alpha)\\, \\ell(z_i, y) + \\alpha\\, \\mathrm{KL}(q_{i-1} \\Vert q_i) +
       \\lambda\\, \\overline{(\\mathrm{kurt}(w_l) - 1.8)^2 + \\mathrm{skew}(w_l)^2} $$
    """
    names = list(layers(network))
    weights = parameters(network)

    def alike(bits: int) -> Grids:
        return dict.fromkeys(names, replace(grid, bits=bits))

    def drawn() -> Grids:
        bits = torch.randint(grid.bits, MOST + 1, (len(names),), generator=generator).tolist()
        return {name: replace(grid, bits=b) for name, b in zip(names, bits, strict=True)}

    def objective(outputs: Tensor, x: Tensor, target: Tensor, done: float) -> Tensor:
        total = training.mean_loss(outputs, x, target, done) + shape * unevenness(weights, names[1:])
        for grids in (drawn(), alike(grid.bits)):
            wanted = outputs.detach().flatten(0, -2)
            outputs = functional_call(network, rounded(weights, grids), (x,))
            apart = divergence(outputs.flatten(0, -2), wanted)
            total = total + (1 - alpha) * training.mean_loss(outputs, x, target, done) + alpha * apart
        return total

    descend(
        network,
        training.of(1 / 3),
        weights,
        objective=objective,
        constrain=lambda now, _: rounded(now, alike(MOST)),
    )
    return stored(network, weights, grid)


def rounded(weights: Weights, grids: Grids) -> Weights:
    """Parameters with these layers' weights rounded, and straight-through gradients."""
    made = {f"{name}.weight": straight_through(weights[f"{name}.weight"], grid) for name, grid in grids.items()}
    return {**weights, **made}


def unevenness(weights: Weights, names: list[str]) -> Tensor:
    """How far weights are from evenly distributed: the mean over layers of (kurtosis - 1.8)^2 + skewness^2.

    >>> even = torch.linspace(-1, 1, 1001)
    >>> round(unevenness({"a.weight": even}, ["a"]).item(), 4)
    0.0
    """
    found = [torch.zeros(())]
    for name in names:
        w = weights[f"{name}.weight"].flatten()
        z = (w - w.mean()) / w.std(correction=0).clamp(min=SMALLEST)
        found.append(((z**4).mean() - KURTOSIS) ** 2 + (z**3).mean() ** 2)
    return torch.stack(found).sum() / max(1, len(names))

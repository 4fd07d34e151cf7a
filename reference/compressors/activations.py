"""Activations in few bits: what layers are given is rounded, by ranges that calibration rows decide.

No compressor imports this, so no record's source names it: whoever changes it raises the suite's ``version``.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reference.compressors.grid import Grid, codes, least_error
from reference.compressors.layers import layers

MOST = 1 << 18  # values of a layer's inputs that the search for its range looks at, evenly spread


@torch.no_grad()
def ranges(network: nn.Module, inputs: Tensor, bits: int) -> dict[str, Tensor]:
    """Of each layer's inputs one step and zero-point, (2,), by name, for network inputs (N, ...).

    Of the ranges from the smallest to the largest input, shrunk by 0 to 79 percent, the one with the least error, as
    for weights (:func:`reference.compressors.grid.least_error`).
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        step = -(-x.numel() // MOST)
        while math.gcd(step, x.numel()) > 1:  # of channels and columns it would see some alone
            step += 1
        seen[name] = x.flatten()[::step]

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: keep(name, given[0]))
        for name, layer in layers(network).items()
    ]
    network(inputs)
    for hook in hooks:
        hook.remove()
    found = {name: least_error(x[None], Grid(bits)) for name, x in seen.items()}
    return {name: torch.cat([each.step.view(1), each.zero.view(1)]) for name, each in found.items()}


def rounding(network: nn.Module, found: Mapping[str, Tensor], bits: int) -> nn.Module:
    """A copy of the network that rounds what its layers are given to 2^bits levels; gradients pass where in range."""
    model = copy.deepcopy(network)
    for name, layer in layers(model).items():
        layer.register_forward_pre_hook(_Rounding(found[name], 1 << bits))
    return model


class _Rounding:
    def __init__(self, found: Tensor, levels: int) -> None:
        self.step, self.zero = found
        self.levels = levels

    def __call__(self, _: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        (x,) = given
        inside = x.clamp(-self.step * self.zero, self.step * (self.levels - 1 - self.zero))
        chosen = self.step * (codes(inside.detach(), self.step, self.zero, self.levels) - self.zero)
        return inside + (chosen - inside).detach()

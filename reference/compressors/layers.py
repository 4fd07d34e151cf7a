"""The layers that compressors act on, as matrices: weights (o, d), one row an output, and their inputs (n, d)."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.compressors.packing import Packed

Weights = Mapping[str, Tensor]  # name of a layer -> its weight as a matrix (o, d)


class _Reached(Exception):
    """The forward pass got to the layer that was asked for."""


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer and convolution (of one group) by name, in the order of declaration."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }


def matrices(network: nn.Module) -> dict[str, Tensor]:
    """The weight of every layer as a matrix (o, d), a copy without gradient."""
    return {name: weight(layer).detach().flatten(1).clone() for name, layer in layers(network).items()}


def weight(layer: nn.Module) -> Tensor:
    """The weight (o, ...) of a linear layer or convolution."""
    found = layer.weight
    assert isinstance(found, Tensor)
    return found


def unfolded(layer: nn.Module, x: Tensor) -> Tensor:
    """What the rows of the layer's matrix are multiplied with: inputs (n, d); of images a row for each position."""
    if isinstance(layer, nn.Conv2d):
        padding, stride, dilation = layer.padding, layer.stride, layer.dilation
        assert not isinstance(padding, str)
        columns = F.unfold(x, layer.kernel_size, dilation=dilation, padding=padding, stride=stride)
        return columns.transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)


@torch.no_grad()
def positions(network: nn.Module, inputs: Tensor) -> dict[str, int]:
    """How many rows each layer's matrix is multiplied with for inputs (1, ...): pixels, or tokens.

    Layers stand in the order in which a forward pass first comes to them.
    """
    found: dict[str, int] = {}

    def count(name: str, layer: nn.Module, given: Tensor) -> None:
        found[name] = found.get(name, 0) + len(unfolded(layer, given))

    hooks = [
        layer.register_forward_pre_hook(lambda module, given, name=name: count(name, module, given[0]))
        for name, layer in layers(network).items()
    ]
    network(inputs)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def inputs_of(network: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """What a layer is given (n, d) when the network is given inputs (N, ...); nothing behind it is computed."""
    layer = layers(network)[name]
    seen: list[Tensor] = []

    def stop(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(unfolded(layer, given[0]))
        raise _Reached

    hook = layer.register_forward_pre_hook(stop)
    with contextlib.suppress(_Reached):
        network(inputs)
    hook.remove()
    return seen[0]


def moments(x: Tensor) -> Tensor:
    """H = X^T X (d, d) of inputs X (n, d)."""
    return x.mT @ x


@torch.no_grad()
def in_turn(network: nn.Module, inputs: Tensor, compress: Callable[[str, Tensor, Tensor], Packed]) -> dict[str, Packed]:
    """Compress layer by layer, each with the inputs that the layers before it give when they are compressed already.

    ``compress(name, weight (o, d), inputs (n, d))`` returns the packed matrix. Returns packed weights by parameter.
    """
    found: dict[str, Packed] = {}
    for name, layer, x in compressing(network, inputs):
        packed = compress(name, weight(layer).flatten(1), x)
        weight(layer).copy_(packed.dense().view_as(weight(layer)))
        found[f"{name}.weight"] = packed
    return found


def compressing(network: nn.Module, inputs: Tensor) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """The layers of a copy of the network in the order of a forward pass, and the inputs (n, d) of each.

    Inputs are those that the copy gives when its turn comes: a caller writes what it made of a layer into it.
    """
    model = copy.deepcopy(network)
    own = layers(model)
    for name in positions(model, inputs[:1]):
        yield name, own[name], inputs_of(model, name, inputs)


@contextlib.contextmanager
def weights_replaced(network: nn.Module, weights: Weights) -> Iterator[None]:
    """These layers have other matrices (o, d) while the context lasts."""
    own = layers(network)
    kept = {name: weight(own[name]).data for name in weights}
    for name, matrix in weights.items():
        weight(own[name]).data = matrix.reshape(kept[name].shape)
    try:
        yield
    finally:
        for name, data in kept.items():
            weight(own[name]).data = data

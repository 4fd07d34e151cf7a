"""Bounds on the logits of a network over a box of inputs, layer by layer (Gowal et al. 2018, arXiv:1810.12715).

A box is its centre and radius. An affine layer W maps them to W c + b and |W| r; a layer that rises in every input maps
the two ends. What comes out contains every value the layer takes in the box, and more the deeper the network is.

    >>> from reference.models.mlp import MLP
    >>> model = MLP(2, [8], 4, torch.Generator().manual_seed(0))
    >>> lower, upper = interval(model, torch.zeros(1, 2), torch.ones(1, 2))
    >>> bool((lower <= model(torch.full((1, 2), 0.3))).all())
    True
"""

import copy
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.cnn import CNN
from reference.models.mlp import MLP
from reference.models.pixels import Scaled

Layer = nn.Module | Callable[[Tensor], Tensor]  # affine, or a function that rises in every input


@singledispatch
def layers(model: Any) -> list[Layer]:
    """What a network does, in order: linear layers and convolutions as they are, and functions that rise.

    The last one is linear: its outputs are the logits.

    Raises:
        TypeError: nothing is known of this kind of network.
    """
    raise TypeError(f"interval bounds of a {type(model).__name__} are not known; register reference.bounds.layers")


@layers.register
def _(model: MLP) -> list[Layer]:
    *hidden, head = model.layers
    found: list[Layer] = []
    for layer in hidden:
        found += [layer, torch.tanh]
    return [*found, head]


@layers.register
def _(model: CNN) -> list[Layer]:
    return [model.first, _pooled, model.second, _pooled, _flat, model.hidden, F.relu, model.head]


@layers.register
def _(model: Scaled) -> list[Layer]:
    return [model.scaled, *([_flat] if model.flat else []), *layers(model.network)]  # deviations are positive


def _pooled(x: Tensor) -> Tensor:
    return F.relu(F.max_pool2d(x, 2))


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def ball(x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """The ends (N, ...) of the box of inputs in [0, 1] that no feature lies further than eps from x in."""
    return (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)


def through(stack: list[Layer], lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the box (N, ...) after these layers."""
    for layer in stack:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            lower, upper = _affine(layer, (upper + lower) / 2, (upper - lower) / 2)
        else:
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def _affine(layer: nn.Linear | nn.Conv2d, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    centre = layer(centre)
    if isinstance(layer, nn.Linear):
        radius = F.linear(radius, layer.weight.abs())
    else:
        how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
        radius = F.conv2d(radius, layer.weight.abs(), None, **how)  # type: ignore[arg-type]
    return centre - radius, centre + radius


def interval(model: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (N, C) of the logits over the box from ``lower`` to ``upper`` (N, ...).

    Raises:
        TypeError: nothing is known of this kind of network.
    """
    return through(layers(model), lower, upper)


def worst(model: nn.Module, x: Tensor, target: Tensor, eps: float | Tensor) -> Tensor:
    """The largest z_k - z_y that the bounds allow within eps ("linf") of x (N, ...): (N, C), 0 for k = y.

    The last layer is taken together with the difference, which is tighter than the difference of two bounds.

    Raises:
        TypeError: nothing is known of this kind of network.
    """
    *stack, head = layers(model)
    assert isinstance(head, nn.Linear)
    lower, upper = through(stack, *ball(x, eps))
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    apart = head.weight - head.weight[target][:, None]  # (N, C, hidden)
    found = torch.einsum("nch,nh->nc", apart.abs(), radius) + torch.einsum("nch,nh->nc", apart, centre)
    return found if head.bias is None else found + head.bias - head.bias[target][:, None]


@torch.no_grad()
def certified(model: nn.Module, x: Tensor, target: Tensor, eps: float) -> Tensor:
    """Whether no input within eps ("linf") of x can be misclassified: (N,), bool; where bounds do not say so, False.

    In float64: what rounding adds to a bound then does not reach the network's own float32.
    """
    double = _doubled(model)
    bound = worst(double, x.double(), target, eps)
    own = F.one_hot(target, bound.shape[1]).bool()
    return (bound.masked_fill(own, -torch.inf) < 0).all(1)


def tightness(model: nn.Module, x: Tensor) -> Tensor:
    """The share of the bounds' width that is needed, for small boxes around x (N, ...): (N,) in (0, 1].

    The radius of the logits over a small box is |J| r, J the Jacobian at x; the bounds' is |W_L| D ... |W_1| r with the
    slopes D of the activations at x, found as the derivative of the bounds at r = 0. The mean over logits of their
    ratio (Mao et al., ICLR 2024, arXiv:2306.10426, which defines it for linear networks and where they are linear);
    1 of logits that do not move at all.
    """
    double, x = _doubled(model), x.double()
    with torch.no_grad():
        small = 1e-9
        lower, upper = interval(double, x - small, x + small)
        bound = (upper - lower) / (2 * small)
    x = x.detach().requires_grad_()
    logits = double(x)
    slopes = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(logits.shape[1])]
    needed = torch.stack([slope.flatten(1).abs().sum(1) for slope in slopes], 1)
    return torch.where(bound > 0, needed / bound, 1.0).mean(1)


def _doubled(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()

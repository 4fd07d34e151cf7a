"""Several small networks as one function: the rows of each go through its own, in one batched product a layer."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.mlp import MLP
from reference.models.pixels import Scaled

ALIGNED = 16  # floats: 64 bytes


def stackable(network: nn.Module) -> bool:
    """Whether a network may be one of several: an MLP behind a scaling."""
    return isinstance(network, Scaled) and isinstance(network.network, MLP)


def abreast(networks: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
    """The function that takes inputs (R N, ...), N for each of R networks in turn, to their logits (R N, C).

    MLPs behind a scaling, of one shape, are stacked as they are now; gradients reach their own parameters. What a row
    gives does not depend on the company of its network, to the bit, where N is a multiple of 16: torch's matrix kernels
    choose their path by size and alignment, so hidden layers are filled up to multiples of 16 units, with units that
    stay zero. A network of another kind is taken alone, and is that function itself.

    Raises:
        TypeError: there are several, and one is not an MLP behind a scaling.

    >>> each = [Scaled(MLP(4, [8], 3, torch.Generator().manual_seed(r)), [0.5], [0.3], flat=True) for r in (0, 1)]
    >>> x = torch.rand(2, 1, 2, 2)
    >>> bool((abreast(each)(x) - torch.cat([network(row[None]) for network, row in zip(each, x)])).abs().max() < 1e-5)
    True
    """
    count = len(networks)
    if not all(map(stackable, networks)):
        if count == 1:
            return networks[0]
        raise TypeError("only MLPs behind a scaling go abreast; train other networks one by one")
    mean, deviation = (torch.stack([getattr(one, name) for one in networks]) for name in ("mean", "deviation"))
    parameters = [list(one.parameters()) for one in networks]
    stacked = [torch.stack(each) for each in zip(*parameters, strict=True)]
    weights, biases = stacked[::2], stacked[1::2]  # (R, out, in) and (R, out)
    weights = [weights[0], *(F.pad(w, (0, -w.shape[2] % ALIGNED)) for w in weights[1:])]
    weights = [*(F.pad(w, (0, 0, 0, -w.shape[1] % ALIGNED)) for w in weights[:-1]), weights[-1]]
    biases = [*(F.pad(b, (0, -b.shape[1] % ALIGNED)) for b in biases[:-1]), biases[-1]]
    layers = list(zip(weights, biases, strict=True))

    def through(x: Tensor) -> Tensor:
        x = x.unflatten(0, (count, -1))
        shape = (count, 1, -1, *[1] * (x.ndim - 3))
        x = ((x - mean.view(shape)) / deviation.view(shape)).flatten(2)
        for i, (weight, bias) in enumerate(layers):
            x = torch.baddbmm(bias[:, None], torch.tanh(x) if i else x, weight.mT)
        return x.flatten(0, 1)

    return through

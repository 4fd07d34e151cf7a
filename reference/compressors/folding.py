"""Batch normalisation as part of the convolution before it: what is stored when training is over."""

import copy

from torch import nn
from torch.fx.experimental.optimization import fuse


def folded(network: nn.Module) -> nn.Module:
    """The same function of a network in evaluation mode: a copy whose batch normalisations are in the convolutions.

    Each must be all that looks at its convolution's output. Without any, a copy of the network as it is.

    $$ w \\leftarrow \\frac{\\gamma}{\\sqrt{\\sigma^2 + \\epsilon}} w, \\quad
       b \\leftarrow \\beta - \\frac{\\gamma \\mu}{\\sqrt{\\sigma^2 + \\epsilon}} $$
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return copy.deepcopy(network)
    return fuse(copy.deepcopy(network).eval())

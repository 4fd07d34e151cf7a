"""Batch normalisation as part of the convolution before it: what is stored when training is over."""

import copy

from torch import nn
from torch.fx.experimental.optimization import fuse


def folded(network: nn.Module) -> nn.Module:
    """The same function of a network in evaluation mode: a copy whose batch normalisations are in the convolutions.

    Without any, a copy of the network as it is. No record's source names this: whoever changes it raises the suite's
    ``version``.

    $$ w \\leftarrow \\frac{\\gamma}{\\sqrt{\\sigma^2 + \\epsilon}} w, \\quad
       b \\leftarrow \\beta - \\frac{\\gamma \\mu}{\\sqrt{\\sigma^2 + \\epsilon}} $$

    Raises:
        ValueError: one follows no convolution, or something else looks at that one's output.
    """
    if not _normalised(network):
        return copy.deepcopy(network)
    found = fuse(copy.deepcopy(network).eval())
    if _normalised(found):
        raise ValueError("a batch normalisation is left that is no part of a convolution")
    return found


def _normalised(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())

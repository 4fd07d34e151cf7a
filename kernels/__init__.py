"""Fast kernels: one folder an operation, one file an implementation, called by name.

    >>> import torch
    >>> softmax(torch.zeros(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]

What an operation computes is defined in ``reference.ops``. ``impl`` names an implementation of
``kernels.registry.catalogue(operation)``; "auto" picks one by size and device.
"""

from kernels.cross_entropy import cross_entropy
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.linear_decoupled_softmax import linear_decoupled_softmax
from kernels.logsumexp import logsumexp
from kernels.softmax import softmax

__all__ = ["cross_entropy", "linear_cross_entropy", "linear_decoupled_softmax", "logsumexp", "softmax"]

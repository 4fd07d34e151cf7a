"""What torch.compile makes of the definition."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.registry import kernel
from reference.ops.cross_entropy import values


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(values, dynamic=False)


@kernel("cross_entropy", device="any", dtypes=())
def compiled(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """``torch.compile`` of ``reference.ops.cross_entropy.values``; compiles once for each shape."""
    return _compiled()(logits, target, label_smoothing=label_smoothing, z_loss=z_loss)

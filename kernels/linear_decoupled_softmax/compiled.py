"""What torch.compile makes of the eager form."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.linear_decoupled_softmax.eager import eager
from kernels.linear_decoupled_softmax.present import Present
from kernels.registry import kernel


def _spread(hidden: Tensor, weight: Tensor, row: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    found: Tensor = eager(hidden, weight, Present(row, label, counts))
    return found


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_spread, dynamic=False)


@kernel("linear_decoupled_softmax", device="any", dtypes=())
def compiled(hidden: Tensor, weight: Tensor, present: Present) -> Tensor:
    """``torch.compile`` of the eager form; compiles once for each shape, of which the number of labels is one."""
    return _compiled()(hidden, weight, present.row, present.label, present.counts)

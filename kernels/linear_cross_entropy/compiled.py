"""What torch.compile makes of the eager form."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.linear_cross_entropy.eager import eager
from kernels.registry import kernel


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(eager, dynamic=False)


@kernel("linear_cross_entropy", device="any", dtypes=())
def compiled(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    return_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``torch.compile`` of the eager form; compiles once for each shape and set of options."""
    found: tuple[Tensor, Tensor | None] = _compiled()(
        hidden,
        weight,
        target,
        bias=bias,
        softcap=softcap,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        return_lse=return_lse,
    )
    return found

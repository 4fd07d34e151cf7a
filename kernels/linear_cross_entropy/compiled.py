"""What torch.compile makes of the eager form."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.linear_cross_entropy.eager import eager
from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import kernel


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(eager, dynamic=False)


@kernel("linear_cross_entropy", device="any", dtypes=())
def compiled(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms, *, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """``torch.compile`` of the eager form; compiles once for each shape and set of terms."""
    found: tuple[Tensor, Tensor | None] = _compiled()(hidden, weight, target, bias, terms, return_lse=return_lse)
    return found

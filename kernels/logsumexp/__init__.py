"""Log-sum-exp of rows. Every implementation is ``f(x)``: contiguous (N, n) to (N,)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.registry import checked, implementation


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, impl: str) -> Tensor:
        lse = logsumexp(x, impl=impl)
        ctx.save_for_backward(x, lse)
        return lse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, lse = ctx.saved_tensors
        return (x - lse[..., None]).exp_().mul_(gradient[..., None]), None


def logsumexp(x: Tensor, *, impl: str = "auto") -> Tensor:
    """log sum_j exp(x_j) over the last dimension of x (..., n); returns (...). Differentiable.

    ``reference.ops.logsumexp`` is the definition.

    Raises:
        Unsupported: the implementation takes no such dtype or device.
        UnknownMethod: there is no such implementation.

    >>> logsumexp(torch.tensor([1e4, -1e4])).item()
    10000.0
    """
    found = implementation("logsumexp", impl)
    checked(found, x)
    if x.requires_grad and torch.is_grad_enabled():
        lse: Tensor = _LogSumExp.apply(x, impl)
        return lse
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    result: Tensor = found.function(rows)
    return result.view(x.shape[:-1])

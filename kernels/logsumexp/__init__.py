"""Log-sum-exp of rows. Every implementation is ``f(x)``: contiguous (N, n) to (N,)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.derivatives import by_definition, differentiated
from kernels.logits import in_vectors
from kernels.registry import Kernel, checked, implementation
from kernels.softmax import softmax
from reference.ops.logsumexp import logsumexp as definition


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, found: Kernel) -> Tensor:
        lse = _computed(x, found)
        ctx.save_for_backward(x, lse)
        return lse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, lse = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *by_definition(definition, [x], [gradient]), None
        # Not exp(x - lse): a float32 lse near 1e4 would cost 5e-4.
        found = softmax(x, impl="auto" if in_vectors(x) else "eager")
        odd = ~lse.isfinite()
        if odd.any():  # of +inf the softmax is NaN everywhere
            found[odd] = (x[odd] - lse[odd][..., None]).exp()
        return found.mul_(gradient[..., None]), None


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
    if differentiated(x):
        lse: Tensor = _LogSumExp.apply(x, found)
        return lse
    return _computed(x, found)


def _computed(x: Tensor, found: Kernel) -> Tensor:
    if not x.numel():
        return torch.logsumexp(x, -1)
    rows = x.resolve_neg().reshape(-1, x.shape[-1]).contiguous()
    result: Tensor = found.function(rows)
    return result.view(x.shape[:-1])

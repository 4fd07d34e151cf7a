"""Softmax of rows. Every implementation is ``f(x, out)``: contiguous tensors (..., n), of which it writes out."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.derivatives import differentiated
from kernels.registry import Kernel, Unsupported, checked, implementation

# What torch.autograd.graph.increment_version calls, which takes 0.3 us itself.
_increment_version = torch._C._increment_version


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, found: Kernel) -> Tensor:  # type: ignore[no-untyped-def]
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        if x.numel():
            found.function(x.contiguous(), y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        (y,) = ctx.saved_tensors
        return (gradient - (gradient * y).sum(-1, keepdim=True)).mul_(y), None


def softmax(x: Tensor, out: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """Softmax over the last dimension of x (..., n); returns (..., n), which is ``out`` where it is given.

    Without ``out`` it is differentiable. ``out`` may be x itself. ``reference.ops.softmax`` is the definition.

    Raises:
        Unsupported: the implementation takes no such dtype or device, out is not like x and contiguous, or is given
            where a gradient is asked for.
        UnknownMethod: there is no such implementation.

    >>> softmax(torch.tensor([[0.0, 0.0], [1e4, -1e4]]), impl="two_pass").tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    found = implementation("softmax", impl)
    if x.dtype is not torch.float32 or x.is_cuda or found.device == "cuda":
        checked(found, x)
    if out is None:
        if differentiated(x):
            return _Softmax.apply(x, found)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    elif not isinstance(out, Tensor):
        raise TypeError(f"out is a tensor, found {out!r}; softmax is over the last dimension, and takes no other")
    elif x.requires_grad and torch.is_grad_enabled():
        raise Unsupported("with out there is no gradient: leave it out, or call this under torch.no_grad()")
    elif out.shape != x.shape or out.dtype is not x.dtype or not out.is_contiguous():
        raise Unsupported(f"out must be contiguous, {tuple(x.shape)} and {x.dtype}: found {tuple(out.shape)}")
    else:
        _increment_version((out,))
    if x.numel():
        found.function(x if x.is_contiguous() else x.contiguous(), out)
    return out

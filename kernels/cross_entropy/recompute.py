"""The log-sum-exp forwards, the probabilities from the logits backwards: nothing of the logits' size is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.linear_cross_entropy.terms import Terms, own_logits
from kernels.logits import logsumexp
from kernels.registry import Unsupported, kernel


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, terms: Terms, in_place: bool) -> Tensor:
        lse = logsumexp(logits)
        mean = logits.mean(1) if terms.label_smoothing else None
        # Not saved as autograd would have it where it is to be overwritten: that counts as a fault there.
        ctx.logits = logits if in_place else None
        ctx.save_for_backward(None if in_place else logits, target, lse)
        ctx.terms, ctx.in_place = terms, in_place
        return terms.values(lse, own_logits(logits, target), mean).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, target, lse = ctx.saved_tensors
        if ctx.in_place:
            if ctx.logits is None:
                raise Unsupported("'in_place' overwrote the logits in its first backward pass: use 'recompute' for two")
            gradient, ctx.logits = ctx.logits.detach(), None
        else:
            gradient = logits.clone()
        return ctx.terms.gradient_(gradient, target, lse, upstream, classes=gradient.shape[1]), None, None, None


@kernel("cross_entropy", device="any", dtypes=("float32", "float64"))
def recompute(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """Reads the logits once forwards and once backwards, where the gradient is written."""
    found: Tensor = _Recomputed.apply(logits, target, Terms(None, label_smoothing, z_loss), False)
    return found


@kernel("cross_entropy", device="any", dtypes=("float32", "float64"), overwrites=("logits",))
def in_place(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """As ``recompute``, with the gradient written over the logits: no memory of their size, one backward pass."""
    found: Tensor = _Recomputed.apply(logits, target, Terms(None, label_smoothing, z_loss), True)
    return found

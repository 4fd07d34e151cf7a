"""The log-sum-exp forwards, the probabilities from the logits backwards: nothing of the logits' size is kept."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from kernels.cross_entropy.eager import eager
from kernels.derivatives import by_definition, once
from kernels.linear_cross_entropy.terms import Terms, own_logits
from kernels.logits import logsumexp
from kernels.registry import Unsupported, kernel


def _values(logits: Tensor, target: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """The losses (N,) and the log-sum-exps, float64."""
    lse = logsumexp(logits)
    mean = logits.mean(1) if terms.label_smoothing else None
    return terms.values(lse, own_logits(logits, target), mean).to(logits.dtype), lse


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, terms: Terms) -> Tensor:
        values, lse = _values(logits, target, terms)
        ctx.save_for_backward(logits, target, lse)
        ctx.terms = terms
        return values

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (logits, target, lse), terms = ctx.saved_tensors, ctx.terms
        if torch.is_grad_enabled():
            settings = {"label_smoothing": terms.label_smoothing, "z_loss": terms.z_loss}
            return *by_definition(functools.partial(eager, target=target, **settings), [logits], [upstream]), None, None
        gradient = logits.clone()
        return terms.gradient_(gradient, target, lse, upstream, classes=gradient.shape[1]), None, None


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, terms: Terms) -> Tensor:
        values, lse = _values(logits, target, terms)
        # Not saved as autograd would have it: that they are overwritten counts as a fault there.
        ctx.logits, ctx.terms = logits, terms
        ctx.save_for_backward(target, lse)
        return values

    @staticmethod
    @once
    def backward(ctx: Any, upstream: Tensor) -> Any:
        target, lse = ctx.saved_tensors
        if ctx.logits is None:
            raise Unsupported("'in_place' overwrote the logits in its first backward pass: use 'recompute' for two")
        gradient, ctx.logits = ctx.logits.detach(), None
        return ctx.terms.gradient_(gradient, target, lse, upstream, classes=gradient.shape[1]), None, None


@kernel("cross_entropy", device="any", dtypes=("float32", "float64"))
def recompute(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """Reads the logits once forwards and once backwards, where the gradient is written."""
    found: Tensor = _Recomputed.apply(logits, target, Terms(None, label_smoothing, z_loss))
    return found


@kernel("cross_entropy", device="any", dtypes=("float32", "float64"), overwrites=("logits",))
def in_place(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """As ``recompute``, with the gradient written over the logits: no memory of their size, one backward pass."""
    found: Tensor = _InPlace.apply(logits, target, Terms(None, label_smoothing, z_loss))
    return found

"""Chunks of tokens, the gradient in the forward pass (Liger Kernel: Hsu et al. 2024, arXiv:2410.10989)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.derivatives import once
from kernels.linear_cross_entropy.terms import Terms, own_logits, room
from kernels.logits import logsumexp
from kernels.products import add_product_, product
from kernels.registry import Unsupported, kernel

CHUNK_BYTES = 16 << 20  # of logits: their passes stay in cache; fewer rows would make the products slow
LEAST_ROWS = 64


def rows_at_once(classes: int) -> int:
    """How many rows of float32 logits make a chunk."""
    return max(LEAST_ROWS, CHUNK_BYTES // (4 * classes))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms, each: float
    ) -> Any:
        classes, (of_hidden, of_weight, of_bias) = len(weight), ctx.needs_input_grad[:3]
        kind = torch.float64 if hidden.dtype is torch.float64 else torch.float32
        ctx.each = torch.tensor(each, dtype=kind).item()
        values, lses = (torch.empty(len(target), dtype=kind, device=hidden.device) for _ in range(2))
        d_hidden = torch.empty_like(hidden) if of_hidden else None
        d_weight = torch.zeros_like(weight, dtype=kind) if of_weight else None
        d_bias = torch.zeros_like(bias, dtype=kind) if of_bias and bias is not None else None
        step = rows_at_once(classes)
        memory = room(min(step, len(target)), classes, hidden)
        for start in range(0, len(target), step):
            part = slice(start, start + step)
            logits = terms.logits(hidden[part], weight, bias, memory)
            lse, own = logsumexp(logits), own_logits(logits, target[part])
            mean = logits.mean(1) if terms.label_smoothing else None
            values[part], lses[part] = terms.values(lse, own, mean), lse
            if not (of_hidden or of_weight or of_bias):
                continue
            by = torch.full_like(own, ctx.each)
            gradient = terms.gradient_(logits, target[part], lse, by, classes=classes)
            if d_bias is not None:
                d_bias += gradient.sum(0)
            if d_hidden is not None:
                d_hidden[part] = product(gradient.to(weight.dtype), weight)
            if d_weight is not None:
                add_product_(d_weight, gradient.T, hidden[part])
        ctx.mark_non_differentiable(lses)
        ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype), d_bias)
        return values, lses

    @staticmethod
    @once
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
        return *rescaled(ctx.saved_tensors, upstream, ctx.each), None, None, None


def rescaled(found: Sequence[Tensor | None], upstream: Tensor, each: float) -> list[Tensor | None]:
    """Gradients that were computed for the upstream gradient ``each`` of all values, for this one (N,).

    They are the same tensors where it is what was expected and the graph is not kept for another backward pass: a copy
    of the weight's would be the most memory of all.

    Raises:
        Unsupported: the upstream gradients of two values differ.
    """
    by = upstream[0].item()
    if not (upstream.isnan() if math.isnan(by) else upstream == by).all():
        raise Unsupported("'chunked' computed its gradient in the forward pass, for equal weights of all rows")
    if by == each and not _kept():
        return list(found)
    return [None if d is None else d * (by / each) for d in found]


def _kept() -> bool:
    """Whether the backward pass at work keeps its graph; True where torch does not tell."""
    told = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return told is None or bool(told())


@kernel("linear_cross_entropy", device="any", dtypes=("float32", "float64", "bfloat16"), gradient_in_forward=True)
def chunked(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms, *, each: float
) -> tuple[Tensor, Tensor]:
    """One chunk of logits at a time becomes their gradient in place, which both products take at once.

    Three products, as the eager form has. Keeps the gradients of hidden and weight from the forward pass on, and gives
    them as they are where the loss itself is differentiated; another upstream gradient, or a graph that is kept, costs
    a copy. They have no gradients of their own. Returns the log-sum-exps without gradient.
    """
    if not torch.is_grad_enabled():
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    found: tuple[Tensor, Tensor] = _Chunked.apply(hidden, weight, bias, target, terms, each)
    return found

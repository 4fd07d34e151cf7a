"""Chunks of rows, the gradient in the forward pass, as of linear cross-entropy (Hsu et al. 2024, arXiv:2410.10989)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.derivatives import once
from kernels.linear_cross_entropy.chunked import rescaled, rows_at_once
from kernels.linear_cross_entropy.terms import Terms, room
from kernels.linear_decoupled_softmax.present import Present
from kernels.logits import logsumexp, scaled_exp_
from kernels.products import add_product_, product
from kernels.registry import kernel

PLAIN = Terms(softcap=None, label_smoothing=0.0, z_loss=0.0)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, present: Present, each: float) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        kind = torch.float64 if hidden.dtype is torch.float64 else torch.float32
        ctx.each = torch.tensor(each, dtype=kind).item()
        values = torch.empty(len(hidden), dtype=kind, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if of_hidden else None
        d_weight = torch.zeros_like(weight, dtype=kind) if of_weight else None
        step = rows_at_once(len(weight))
        memory = room(min(step, len(hidden)), len(weight), hidden)
        for start in range(0, len(hidden), step):
            rows = slice(start, min(start + step, len(hidden)))
            logits, part = PLAIN.logits(hidden[rows], weight, None, memory), present.part(rows)
            own = part.taken_(logits)
            rivals = logsumexp(logits)
            values[rows] = part.values(own, rivals).to(kind)
            if not (of_hidden or of_weight):
                continue
            slopes = part.slopes(own, rivals) * ctx.each
            gradient = scaled_exp_(logits, rivals, part.sums(slopes))
            gradient[part.row, part.label] = -slopes.to(kind)
            if d_hidden is not None:
                d_hidden[rows] = product(gradient.to(weight.dtype), weight)
            if d_weight is not None:
                add_product_(d_weight, gradient.T, hidden[rows])
        ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype))
        return values

    @staticmethod
    @once
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return *rescaled(ctx.saved_tensors, upstream, ctx.each), None, None


@kernel("linear_decoupled_softmax", device="any", dtypes=("float32", "float64", "bfloat16"), gradient_in_forward=True)
def chunked(hidden: Tensor, weight: Tensor, present: Present, *, each: float) -> Tensor:
    """One chunk of logits at a time becomes their gradient in place, which both products take at once.

    Three products, as the eager form has. Keeps the gradients of hidden and weight from the forward pass on, and gives
    them as they are where the loss itself is differentiated. They have no gradients of their own.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    found: Tensor = _Chunked.apply(hidden, weight, present, each)
    return found

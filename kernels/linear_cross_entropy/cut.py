"""Chunks of tokens, of which only the likely classes are kept: cut cross-entropy (Wijmans et al., ICLR 2025,
arXiv:2411.09009) for processors, where single entries of the gradient can be left out instead of tiles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.derivatives import by_definition
from kernels.linear_cross_entropy.blocked import EPS
from kernels.linear_cross_entropy.chunked import rows_at_once
from kernels.linear_cross_entropy.eager import with_target
from kernels.linear_cross_entropy.terms import Terms, filterable, own_logits, room, subtract_uniform_
from kernels.registry import Unsupported, kernel
from kernels.sparse import Sparse, likely, stacked, with_entry


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms, eps: float
    ) -> Any:
        own, means, sums, kept = [], [], [], []
        step = rows_at_once(len(weight))
        memory = room(min(step, len(target)), len(weight), hidden)
        for start in range(0, len(target), step):
            part = slice(start, start + step)
            logits = terms.logits(hidden[part], weight, bias, memory)
            lse, probabilities = likely(logits, eps, terms.softcap)
            sums.append(lse)
            kept.append(probabilities)
            own.append(own_logits(logits, target[part]))
            if terms.label_smoothing:
                means.append(logits.mean(1))
        lse, of_target = torch.cat(sums), torch.cat(own)
        together = stacked(kept)
        ctx.save_for_backward(
            hidden, weight, bias, target, lse, of_target, together.starts, together.columns, together.values
        )
        ctx.terms = terms
        mean = torch.cat(means) if means else None
        return terms.values(lse, of_target, mean).float(), lse.float()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, upstream_lse: Tensor) -> Any:
        hidden, weight, bias, target, lse, own, starts, columns, values = ctx.saved_tensors
        terms, classes = ctx.terms, len(weight)
        if torch.is_grad_enabled():
            definition = with_target(target, terms)
            return *by_definition(definition, [hidden, weight, bias], [upstream, upstream_lse]), None, None, None
        by_row = terms.of_p(lse, upstream, upstream_lse).float()
        likely = Sparse(starts, columns, values * by_row.repeat_interleave(starts.diff()), classes)
        taken = (terms.label_smoothing - 1) * upstream
        if terms.softcap is not None:
            taken = taken * terms.slope(own)
        gradient = with_entry(likely, target, taken)
        d_hidden = gradient.times(weight.float().contiguous())
        d_weight = gradient.transposed().times(hidden.float().contiguous())
        d_bias = None
        if bias is not None:
            d_bias = torch.zeros(classes).index_add_(0, gradient.columns, gradient.values)
        if terms.label_smoothing:
            share = upstream * (terms.label_smoothing / classes)
            subtract_uniform_(share, hidden, weight, d_hidden, d_weight, d_bias)
        return (
            d_hidden.to(hidden.dtype),
            d_weight.to(weight.dtype),
            None if bias is None or d_bias is None else d_bias.to(bias.dtype),
            None,
            None,
            None,
        )


@kernel("linear_cross_entropy", dtypes=("float32", "bfloat16"), approximate=True, needs=("numba",))
def cut(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms, *, eps: float = EPS
) -> tuple[Tensor, Tensor]:
    """Keeps the probabilities above eps, 1 / eps a row at most, so that the backward pass is two sparse products.

    One product of the full size, where the eager form has three. The value is exact; the gradient by a logit is off by
    eps at most, of a weight of 1, and that by the target's logit is exact.
    """
    if not eps > 0:
        raise Unsupported("'cut' needs eps > 0: use 'blocked_exact' for all gradients")
    filterable(terms, eps)
    found: tuple[Tensor, Tensor] = _Cut.apply(hidden, weight, bias, target, terms, eps)
    return found

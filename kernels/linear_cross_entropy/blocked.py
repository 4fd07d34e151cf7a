"""Blocks of the vocabulary, recomputed in the backward pass (cut cross-entropy: Wijmans et al., ICLR 2025,
arXiv:2411.09009).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.derivatives import by_definition
from kernels.linear_cross_entropy.eager import with_target
from kernels.linear_cross_entropy.terms import Terms, filterable, room, subtract_uniform_
from kernels.logits import logsumexp
from kernels.products import add_product_, product
from kernels.registry import kernel

BLOCK_BYTES = 16 << 20  # of logits, where all gradients are kept
FILTERED_CLASSES = 256  # of a block where small ones are left out: the fewer, the more rows have none in it
EPS = 2.0**-12  # what bfloat16 loses beside 1, over 32


def _classes_at_once(rows: int, eps: float) -> int:
    return FILTERED_CLASSES if eps else max(FILTERED_CLASSES, BLOCK_BYTES // (4 * max(rows, 1)))


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: Terms, eps: float
    ) -> Any:
        rows, classes = len(hidden), len(weight)
        lse = torch.full((rows,), -torch.inf, dtype=torch.float64, device=hidden.device)
        own, total = torch.zeros_like(lse), torch.zeros_like(lse)
        averages = []
        step = _classes_at_once(rows, 0.0)
        memory = room(rows, min(step, classes), hidden)
        for first in range(0, classes, step):
            block = slice(first, first + step)
            logits = terms.logits(hidden, weight[block], None if bias is None else bias[block], memory)
            lse = torch.logaddexp(lse, logsumexp(logits))
            here = ((target >= first) & (target < first + logits.shape[1])).nonzero().squeeze(1)
            own[here] = logits[here, target[here] - first].double()
            if terms.label_smoothing:
                total += logits.sum(1)
            if eps:
                averages.append(logits.mean(0))
        order = torch.cat(averages).argsort(descending=True) if eps else None
        ctx.save_for_backward(hidden, weight, bias, target, lse, order)
        ctx.terms, ctx.eps = terms, eps
        kind = torch.float64 if hidden.dtype is torch.float64 else torch.float32
        return terms.values(lse, own, total / classes).to(kind), lse.to(kind)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, upstream_lse: Tensor) -> Any:
        hidden, weight, bias, target, lse, order = ctx.saved_tensors
        terms, eps, classes = ctx.terms, ctx.eps, len(weight)
        if torch.is_grad_enabled():
            definition = with_target(target, terms)
            return *by_definition(definition, [hidden, weight, bias], [upstream, upstream_lse]), None, None, None
        d_hidden = torch.zeros_like(hidden, dtype=upstream.dtype)
        d_weight = torch.empty_like(weight)
        d_bias = None if bias is None else torch.empty_like(bias)
        step = _classes_at_once(len(hidden), eps)
        memory = room(len(hidden), min(step, classes), hidden)
        place = target if order is None else order.argsort()[target]  # where the targets stand in that order
        for first in range(0, classes, step):
            block = slice(first, first + step) if order is None else order[first : first + step]
            part = weight[block]
            logits = terms.logits(hidden, part, None if bias is None else bias[block], memory)
            local = place - first
            if eps:
                rows = (logits.amax(1) >= lse + torch.tensor(eps).log()) | ((local >= 0) & (local < len(part)))
                few = rows.nonzero().squeeze(1)
                of = few, logits[few], local[few], lse[few], upstream[few], upstream_lse[few]
            else:
                of = slice(None), logits, local, lse, upstream, upstream_lse
            where, logits, local, sums, ups, ups_lse = of
            gradient = terms.gradient_(logits, local, sums, ups, ups_lse, None if eps else classes)
            if eps:
                d_hidden.index_add_(0, where, product(gradient.to(part.dtype), part).to(d_hidden.dtype))
            else:
                add_product_(d_hidden, gradient, part)
            d_weight[block] = product(gradient.to(hidden.dtype).T, hidden[where])
            if d_bias is not None:
                d_bias[block] = gradient.sum(0).to(d_bias.dtype)
        if eps and terms.label_smoothing:
            share = upstream * (terms.label_smoothing / classes)
            subtract_uniform_(share, hidden, weight, d_hidden, d_weight, d_bias)
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None


@kernel(
    "linear_cross_entropy",
    id="blocked_exact",
    device="any",
    dtypes=("float32", "float64", "bfloat16"),
)
def exact(hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms) -> tuple[Tensor, Tensor]:
    """One block of logits at a time, twice: four products where the eager form has three, O(N + V) kept between."""
    found: tuple[Tensor, Tensor] = _Blocked.apply(hidden, weight, bias, target, terms, 0.0)
    return found


@kernel(
    "linear_cross_entropy",
    device="any",
    dtypes=("float32", "float64", "bfloat16"),
    approximate=True,
)
def blocked(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms, *, eps: float = EPS
) -> tuple[Tensor, Tensor]:
    """As ``blocked_exact``, without the gradients of a row's block of classes whose probabilities are all below eps.

    The paper leaves out tiles of rows and classes; here a tile is one row and 256 classes, in the order of their mean
    logits, so that likely classes share blocks. The gradient by a logit is off by eps at most, of a weight of 1.
    """
    filterable(terms, eps)
    found: tuple[Tensor, Tensor] = _Blocked.apply(hidden, weight, bias, target, terms, eps)
    return found

"""Cut cross-entropy (Wijmans et al., ICLR 2025, arXiv:2411.09009) in Triton: no logits in memory, and the gradients of
probable classes only.

What differs from the paper: the forward pass keeps the largest logit of each row in each block of classes, until the
log-sum-exp is known. So what can be left out is known before anything is recomputed, row by row instead of tile by
tile, and the backward pass gathers the rows that a block is left with. The gradients of hidden states and weight are
made one after the other, from logits recomputed for each: so either is summed in float32 in an order that is always the
same, without locks or atomic operations, and the first uses the memory of the second. The mean logit of a class, by
which the vocabulary is sorted, is that of the mean hidden state, known before all.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.derivatives import once
from kernels.gpu import DEVICE, FLOATS
from kernels.linear_cross_entropy.blocked import EPS
from kernels.linear_cross_entropy.terms import Terms, filterable
from kernels.linear_cross_entropy.triton_backward import Factors
from kernels.linear_cross_entropy.triton_forward import Layer, log_sum_exp, own_logits
from kernels.linear_cross_entropy.triton_gradients import Gradients
from kernels.linear_cross_entropy.triton_plan import Plans, every_tile, kept_tiles
from kernels.linear_cross_entropy.triton_tiles import Tiles, pinned
from kernels.registry import Unsupported, kernel


def by_mean_logit(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The classes (V,) int32, likely ones first: those of one row then share blocks. A cap changes no order."""
    mean = torch.mv(weight, hidden.mean(0, dtype=torch.float32).to(weight.dtype))
    return (mean if bias is None else mean + bias).argsort(descending=True).int()


def plans(layer: Layer, tiles: Tiles, target: Tensor, lse: Tensor, tops: Tensor | None, eps: float) -> Plans:
    """Every tile, or the blocks in which a row has a probability of eps or its target."""
    n, classes = len(layer.hidden), len(layer.weight)
    if tops is None:
        return every_tile(triton.cdiv(n, tiles.rows), triton.cdiv(classes, tiles.classes), target.device)
    kept = ~(tops < (lse + math.log(eps)).float())  # so that NaN is kept
    place = target if layer.order is None else layer.order.argsort()[target]
    kept[place // tiles.classes, torch.arange(n, device=target.device)] = True
    return kept_tiles(kept, tiles.rows)


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        terms: Terms,
        eps: float,
        sort: bool,
    ) -> Any:
        tiles, filtered = pinned(hidden), eps > 0 and any(ctx.needs_input_grad)
        order = by_mean_logit(hidden, weight, bias) if filtered and sort else None
        layer = Layer(_rows_whole(hidden), _rows_whole(weight), bias, order, terms.softcap)
        lse, total, tops = log_sum_exp(layer, tiles.logits, sums=terms.label_smoothing > 0, tops=filtered)
        own = own_logits(layer, target).double()
        ctx.save_for_backward(layer.hidden, layer.weight, bias, order, target, lse)
        ctx.terms, ctx.tiles, ctx.filtered = terms, tiles, filtered
        if any(ctx.needs_input_grad):
            ctx.plans = plans(layer, tiles, target, lse, tops, eps)
        return terms.values(lse, own, None if total is None else total / len(weight)).float(), lse.float()

    @staticmethod
    @once
    def backward(ctx: Any, upstream: Tensor, upstream_lse: Tensor) -> Any:
        hidden, weight, bias, order, target, lse = ctx.saved_tensors
        layer = Layer(hidden, weight, bias, order, ctx.terms.softcap)
        classes = None if ctx.filtered else len(weight)
        factors = Factors.of(ctx.terms, target, lse, upstream, upstream_lse, classes)
        found = Gradients.empty(layer, ctx.needs_input_grad)
        found.fill_(layer, factors, ctx.plans, ctx.tiles)
        if ctx.filtered and ctx.terms.label_smoothing:
            found.subtract_uniform_(layer, upstream * (ctx.terms.label_smoothing / len(weight)))
        d_bias = None if found.bias is None or bias is None else found.bias.to(bias.dtype)
        return found.hidden, found.weight, d_bias, None, None, None, None


def _rows_whole(x: Tensor) -> Tensor:
    """x (n, D) with the elements of a row side by side."""
    return x if x.stride(1) == 1 else x.contiguous()


def _checked(hidden: Tensor, weight: Tensor) -> None:
    if hidden.dtype is not weight.dtype:
        raise Unsupported(f"hidden and weight have one dtype: found {hidden.dtype} and {weight.dtype}")


@kernel("linear_cross_entropy", device=DEVICE, dtypes=FLOATS, approximate=True, needs=("triton",))
def triton_cut(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    terms: Terms,
    *,
    eps: float = EPS,
    sort: bool = True,
) -> tuple[Tensor, Tensor]:
    """Leaves out a row's block of classes whose probabilities are all below eps; ``sort`` puts likely ones together.

    One product of the full size, where the eager form has three, and those of what is left. The value is exact; the
    gradient by a logit is off by eps at most, of a weight of 1.
    """
    _checked(hidden, weight)
    filterable(terms, eps)
    found: tuple[Tensor, Tensor] = _Cut.apply(hidden, weight, bias, target, terms, eps, sort)
    return found


@kernel("linear_cross_entropy", id="triton_exact", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def exact(hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms) -> tuple[Tensor, Tensor]:
    """All gradients: five products, of which two recompute the logits; O(N + V) kept between."""
    _checked(hidden, weight)
    found: tuple[Tensor, Tensor] = _Cut.apply(hidden, weight, bias, target, terms, 0.0, False)
    return found

"""Chunks of rows, of which only the likely absent labels are kept, as of linear cross-entropy (Wijmans et al., ICLR
2025, arXiv:2411.09009).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.derivatives import by_definition
from kernels.linear_cross_entropy.blocked import EPS
from kernels.linear_cross_entropy.chunked import rows_at_once
from kernels.linear_cross_entropy.terms import room
from kernels.linear_decoupled_softmax.chunked import PLAIN
from kernels.linear_decoupled_softmax.eager import eager
from kernels.linear_decoupled_softmax.present import Present
from kernels.registry import Unsupported, kernel
from kernels.sparse import Sparse, likely, stacked


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, present: Present, eps: float) -> Tensor:
        owns, sums, kept = [], [], []
        step = rows_at_once(len(weight))
        memory = room(min(step, len(hidden)), len(weight), hidden)
        for start in range(0, len(hidden), step):
            rows = slice(start, min(start + step, len(hidden)))
            logits = PLAIN.logits(hidden[rows], weight, None, memory)
            owns.append(present.part(rows).taken_(logits))
            rivals, probabilities = likely(logits, eps, None)
            sums.append(rivals)
            kept.append(probabilities)
        own, rivals = torch.cat(owns), torch.cat(sums)
        absent = stacked(kept)
        slopes = present.slopes(own, rivals)
        ctx.save_for_backward(hidden, weight, slopes, absent.starts, absent.columns, absent.values)
        ctx.present = present
        return present.values(own, rivals).float()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        hidden, weight, slopes, starts, columns, values = ctx.saved_tensors
        present: Present = ctx.present
        if torch.is_grad_enabled():
            return *by_definition(lambda h, w: eager(h, w, present), [hidden, weight], [upstream]), None, None
        by_row = (upstream * present.sums(slopes)).repeat_interleave(starts.diff())
        absent = Sparse(starts, columns, values * by_row.float(), len(weight))
        gradient = _merged(absent, present, -slopes * upstream[present.row])
        d_hidden = gradient.times(weight.float().contiguous())
        d_weight = gradient.transposed().times(hidden.float().contiguous())
        return d_hidden.to(hidden.dtype), d_weight.to(weight.dtype), None, None


def _merged(matrix: Sparse, present: Present, values: Tensor) -> Sparse:
    """The matrix plus the present labels' entries."""
    order = torch.cat([matrix.rows, present.row]).argsort(stable=True)
    counts = matrix.starts.diff() + torch.bincount(present.row, minlength=len(matrix.starts) - 1)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    columns = torch.cat([matrix.columns, present.label.int()])[order]
    return Sparse(starts, columns, torch.cat([matrix.values, values.float()])[order], matrix.width)


@kernel("linear_decoupled_softmax", dtypes=("float32", "bfloat16"), approximate=True, needs=("numba",))
def cut(hidden: Tensor, weight: Tensor, present: Present, *, eps: float = EPS) -> Tensor:
    """Keeps the absent labels whose share of their sum is above eps, so that the backward pass is two sparse products.

    One product of the full size, where the eager form has three. The value is exact; the gradient by a logit is off by
    eps at most, of a weight of 1, and that by a present label's is exact.
    """
    if not eps > 0:
        raise Unsupported("'cut' needs eps > 0: use 'chunked' for all gradients")
    found: Tensor = _Cut.apply(hidden, weight, present, eps)
    return found

"""The log-sum-exp forwards, the probabilities from the logits backwards, by Triton: nothing of their size is kept."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.derivatives import once
from kernels.gpu import BLOCK, DEVICE, FLOATS, WARPS, there
from kernels.linear_cross_entropy.terms import Terms, own_logits
from kernels.logsumexp.triton_online import logsumexp_float64
from kernels.registry import Unsupported, kernel


@triton.jit
def _gradient(logits, out, target, high, low, of_p, of_own, of_all, V, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row.to(tl.int64) * V + column
    x = tl.load(logits + at, mask=column < V, other=0.0).to(tl.float32)
    gradient = tl.exp(x - tl.load(high + row) - tl.load(low + row)) * tl.load(of_p + row) - tl.load(of_all + row)
    gradient -= tl.where(column == tl.load(target + row), tl.load(of_own + row), 0.0)
    tl.store(out + at, gradient, mask=column < V)


def _write_gradient(logits: Tensor, out: Tensor, target: Tensor, lse: Tensor, upstream: Tensor, terms: Terms) -> Tensor:
    """The gradient by logits (N, V), into ``out``, which may be the logits."""
    rows, classes = logits.shape
    high = lse.float()
    factors = (
        (lse - high).float(),
        terms.of_p(lse, upstream, None).float(),
        (1 - terms.label_smoothing) * upstream.float(),
        (terms.label_smoothing / classes) * upstream.float(),
    )
    block = min(BLOCK, max(128, triton.next_power_of_2(classes)))
    grid, warps = (rows, triton.cdiv(classes, block)), min(WARPS, max(1, block // 512))
    with there(logits):
        _gradient[grid](logits, out, target, high, *factors, classes, BLOCK=block, num_warps=warps)
    return out


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, terms: Terms, in_place: bool) -> Tensor:
        lse = logsumexp_float64(logits)
        own = own_logits(logits, target).double()
        mean = logits.mean(1, dtype=torch.float32) if terms.label_smoothing else None
        # Not saved as autograd would have it where it is to be overwritten: that counts as a fault there.
        ctx.logits = logits if in_place else None
        ctx.save_for_backward(None if in_place else logits, target, lse)
        ctx.terms, ctx.in_place = terms, in_place
        return terms.values(lse, own, mean).to(logits.dtype)

    @staticmethod
    @once
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, target, lse = ctx.saved_tensors
        if ctx.in_place:
            if ctx.logits is None:
                raise Unsupported("'triton_in_place' overwrote the logits in its first backward pass: use another")
            out = logits = ctx.logits.detach()
            ctx.logits = None
        else:
            out = torch.empty_like(logits)
        return _write_gradient(logits, out, target, lse, upstream, ctx.terms), None, None, None


@kernel("cross_entropy", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_recompute(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """Reads the logits once forwards and once backwards, where the gradient is written."""
    found: Tensor = _Recomputed.apply(logits, target, Terms(None, label_smoothing, z_loss), False)
    return found


@kernel("cross_entropy", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_in_place(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """As ``triton_recompute``, with the gradient written over the logits: no memory of their size, one backward."""
    found: Tensor = _Recomputed.apply(logits, target, Terms(None, label_smoothing, z_loss), True)
    return found

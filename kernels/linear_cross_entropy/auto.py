"""The fastest exact implementation for a size and device."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.linear_cross_entropy.blocked import exact
from kernels.linear_cross_entropy.chunked import chunked
from kernels.linear_cross_entropy.eager import eager
from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import kernel, written_in_triton

FEW = 1 << 18  # logits that may as well be kept


@kernel("linear_cross_entropy", device="any", dtypes=())
def auto(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    terms: Terms,
    *,
    return_lse: bool,
    each: float | None,
) -> tuple[Tensor, Tensor | None]:
    """Eager where the logits are few; else ``triton_exact`` on CUDA, ``chunked`` of a mean or sum, ``blocked_exact``.

    Never an approximation, which is asked for by name. ``chunked`` needs a product less than ``blocked_exact``, which
    computes logits again, and no log-sum-exps that have gradients.
    """
    if len(hidden) * len(weight) <= FEW or hidden.dtype is torch.float16:
        return eager(hidden, weight, target, bias, terms, return_lse=return_lse)
    fused = written_in_triton("linear_cross_entropy", "triton_exact", hidden)
    if fused is None and each is not None and not return_lse:
        return chunked(hidden, weight, target, bias, terms, each=each)
    values, lse = (fused or exact)(hidden, weight, target, bias, terms)
    return values, lse

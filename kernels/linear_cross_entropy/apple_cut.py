"""The authors' own kernels of cut cross-entropy, from the package cut-cross-entropy where it is installed."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gpu import DEVICE
from kernels.linear_cross_entropy.blocked import EPS
from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import Unsupported, kernel, required

required("cut_cross_entropy")


@kernel(
    "linear_cross_entropy",
    device=DEVICE,
    dtypes=("bfloat16", "float16"),
    approximate=True,
    needs=("triton", "cut_cross_entropy"),
)
def apple_cut(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    terms: Terms,
    *,
    return_lse: bool,
    eps: float = EPS,
) -> tuple[Tensor, None]:
    """Wijmans et al., ICLR 2025, arXiv:2411.09009; version 25.1.1 of the package has no other terms than a softcap.

    Raises:
        Unsupported: bias, label smoothing, z-loss or log-sum-exps.
    """
    from cut_cross_entropy import linear_cross_entropy

    if bias is not None or terms.label_smoothing or terms.z_loss or return_lse:
        raise Unsupported("'apple_cut' has no bias, label_smoothing, z_loss or return_lse: use 'triton_cut'")
    values: Tensor = linear_cross_entropy(
        hidden, weight, target, softcap=terms.softcap, reduction="none", filter_eps=float(eps) or None
    )
    if values.requires_grad and torch.is_grad_enabled():
        values.register_hook(Tensor.contiguous)  # it takes no upstream gradient that is one number, expanded
    return values, None

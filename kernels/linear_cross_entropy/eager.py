"""What is written without a kernel: all logits, and torch's cross-entropy."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kernels.registry import kernel
from reference.ops.linear_cross_entropy import logits_of


@kernel("linear_cross_entropy", device="any", dtypes=())
def eager(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    return_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``torch.nn.functional.cross_entropy`` of ``linear``: keeps the logits (N, V) and as much again."""
    logits = logits_of(hidden, weight, bias, softcap)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    values = cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
    if not (return_lse or z_loss):
        return values, None
    lse = torch.logsumexp(logits, -1)
    return values + z_loss * lse**2 if z_loss else values, lse

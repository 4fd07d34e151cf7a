"""What is written without a kernel: all logits, and torch's cross-entropy."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import kernel
from reference.ops.linear_cross_entropy import logits_of


@kernel("linear_cross_entropy", device="any", dtypes=())
def eager(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms, *, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """``torch.nn.functional.cross_entropy`` of ``linear``: keeps the logits (N, V) and as much again."""
    logits = logits_of(hidden, weight, bias, terms.softcap)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    values = cross_entropy(logits, target, reduction="none", label_smoothing=terms.label_smoothing)
    if not (return_lse or terms.z_loss):
        return values, None
    lse = torch.logsumexp(logits, -1)
    return values + terms.z_loss * lse**2 if terms.z_loss else values, lse


def with_target(target: Tensor, terms: Terms) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The values and log-sum-exps as a function of hidden, weight and bias."""
    return lambda hidden, weight, bias: eager(hidden, weight, target, bias, terms, return_lse=True)

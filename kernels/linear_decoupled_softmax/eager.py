"""What is written without a kernel: all logits, twice."""

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from kernels.linear_decoupled_softmax.present import Present, nowhere
from kernels.registry import kernel


@kernel("linear_decoupled_softmax", device="any", dtypes=())
def eager(hidden: Tensor, weight: Tensor, present: Present) -> Tensor:
    """``torch.logsumexp`` of ``linear`` with the present labels masked: keeps the logits (N, L) and as much again."""
    logits = linear(hidden, weight)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    masked = torch.full_like(present.label, nowhere(logits.dtype), dtype=logits.dtype)
    rivals = logits.index_put((present.row, present.label), masked).logsumexp(-1)
    each = softplus(rivals[present.row] - logits[present.row, present.label])
    return torch.zeros_like(rivals).index_add(0, present.row, each / present.counts[present.row])

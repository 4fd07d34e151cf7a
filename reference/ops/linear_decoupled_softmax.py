"""Decoupled softmax after a linear layer: the loss of extreme multi-label classification."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from reference.ops.cross_entropy import reduced


def linear_decoupled_softmax(hidden: Tensor, weight: Tensor, positives: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Each present label against the absent ones alone, of the logits ``hidden @ weight.T``.

    Shapes: hidden (N, D); weight (L, D); positives (N, P), integers: the present labels of a row, each once, in any
    order, and -1 in what is left of it. Returns a scalar for reduction "mean" or "sum", a value for each row for
    "none".

    $$ -\frac{1}{|P_i|} \sum_{l \in P_i} \log \frac{e^{z_{il}}}{e^{z_{il}} + \sum_{k \notin P_i} e^{z_{ik}}} $$

    The value of a row without present labels, or with all of them, is 0. N. Gupta et al., Dual-encoders for extreme
    multi-label classification (ICLR 2024, arXiv:2310.10636); ``reference.multilabel.dsm`` is the same of logits and a
    matrix of labels.

    >>> hidden, weight = torch.eye(2), torch.zeros(8, 2)
    >>> positives = torch.tensor([[3, -1], [5, 0]])
    >>> [round(value.exp().item()) for value in linear_decoupled_softmax(hidden, weight, positives, reduction="none")]
    [8, 7]
    """
    logits = torch.nn.functional.linear(hidden, weight)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    row, place = (positives >= 0).nonzero(as_tuple=True)
    label = positives[row, place]
    # Lower than any logit, and far enough from the end of the range for a difference of two.
    nowhere = torch.full_like(label, -torch.finfo(logits.dtype).max / 8, dtype=logits.dtype)
    rivals = logits.index_put((row, label), nowhere).logsumexp(-1)
    each = softplus(rivals[row] - logits[row, label])
    counts = (positives >= 0).sum(1)
    values = torch.zeros_like(rivals).index_add(0, row, each) / counts.clamp(min=1)
    return reduced(values, torch.ones_like(counts, dtype=torch.bool), reduction)

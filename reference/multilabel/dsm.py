"""Decoupled softmax (Gupta et al., ICLR 2024, arXiv:2310.10636)."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from reference.methods import multilabel_loss


@multilabel_loss()
def dsm(logits: Tensor, target: Tensor) -> Tensor:
    r"""Softmax cross-entropy in which each present label competes with the absent ones alone, for logits (N, L) and
    target (N, L); returns (N,).

    $$ -\frac{1}{|P|} \sum_{l \in P} \log \frac{e^{z_l}}{e^{z_l} + \sum_{k \notin P} e^{z_k}}, \quad
    P = \{ l : y_l = 1 \} $$

    With one present label it is softmax cross-entropy. A sample without labels, or with all of them, has neither loss
    nor gradient. The authors' logits are cosines divided by 0.05; here they are the network's own. Their default draws
    one present label at a visit and leaves the others out; this is the form with all of them.
    """
    # Lower than any logit, and far enough from the end of the range for a difference of two.
    nowhere = -torch.finfo(logits.dtype).max / 8
    rivals = torch.where(target > 0, nowhere, logits).logsumexp(-1, keepdim=True)
    return (target * softplus(rivals - logits)).sum(-1) / target.sum(-1).clamp(min=1)

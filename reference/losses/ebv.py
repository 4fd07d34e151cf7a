"""Equiangular basis vectors (Shen, Sun & Wei, CVPR 2023, arXiv:2303.11637)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import log_softmax, pick


def link(logits: Tensor, *, temperature: float) -> Tensor:
    """The log-softmax of the cosines between the logits and the basis vectors, over the temperature: (N, C)."""
    return log_softmax(logits * torch.rsqrt((logits * logits).sum(-1, keepdim=True) + 1e-10) / temperature)


@loss(search={"temperature": Range(0.02, 0.5, log=True)}, bounded=True, link=link)
def ebv(logits: Tensor, target: Tensor, *, temperature: float = 0.07, smoothing: float = 0.1) -> Tensor:
    r"""Smoothed cross-entropy of the cosines between the logits and fixed unit vectors, one for each class, for logits
    (N, C) and target (N,); returns (N,).

    $$ -(1 - \epsilon) \log p_y - \frac{\epsilon}{C} \sum_k \log p_k, \quad
    p = \mathrm{softmax} \frac{z}{\tau \, \| z \|} $$

    The authors draw C vectors in d dimensions whose cosines are at most alpha. With as many outputs as classes, alpha
    = 0 is attained by the standard basis, and no others are needed: the cosines are the logits over their norm. The
    loss does not depend on that norm and is bounded. The temperature tau = 0.07 and the smoothing epsilon = 0.1, which
    is not tuned, are the authors'; the range is ours.
    """
    log_p = link(logits, temperature=temperature)
    return (smoothing - 1) * pick(log_p, target) - smoothing * log_p.mean(-1)

"""Generalized cross-entropy (Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836), eq. 6."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


def box_cox(log_p: Tensor, q: float) -> Tensor:
    """The generalized cross-entropy at a log-probability, elementwise."""
    return -torch.expm1(q * log_p) / q


@loss(search={"q": (0.05, 0.95)}, bounded=True, tags=("noise-robust",))
def gce(logits: Tensor, target: Tensor, *, q: float = 0.7) -> Tensor:
    r"""Box-Cox transform of the target's probability, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{1 - p_y^q}{q} $$

    Between cross-entropy (q -> 0) and half the mean absolute error (q = 1): 1 - p_y. Bounded by 1/q.
    """
    return box_cox(target_log_softmax(logits, target), q)

"""Reverse cross-entropy (Wang et al., ICCV 2019, arXiv:1908.06112)."""

import math

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax

LOG_ZERO = math.log(1e-4)  # stands for log 0 in the one-hot distribution, as in the code of Ma et al. (ICML 2020)


def reverse(log_p: Tensor) -> Tensor:
    """The reverse cross-entropy at the target's log-probability, elementwise."""
    return LOG_ZERO * torch.expm1(log_p)


@loss(symmetric=True, bounded=True, tags=("noise-robust",))
def rce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy with prediction and label exchanged, for logits (N, C) and target (N,); returns (N,).

    $$ -\sum_k p_k \log [k = y] = -A (1 - p_y), \quad \log 0 := A = \log 10^{-4} $$

    Symmetric: its sum over all labels is -A (C - 1). The paper leaves A free (-4, -6); A only scales the loss, which is
    a multiple of the mean absolute error.
    """
    return reverse(target_log_softmax(logits, target))

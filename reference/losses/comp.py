"""Comp-sum losses (Mao, Mohri & Zhong, ICML 2023, arXiv:2304.07288)."""

import math

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax

STEEPEST = 30.0  # where exp((1 - tau) * cross-entropy) is continued by its tangent


@loss(search={"tau": (0.0, 2.0)})
def comp(logits: Tensor, target: Tensor, *, tau: float = 1.0) -> Tensor:
    r"""The family between sum-exponential and mean absolute error, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{p_y^{\tau - 1} - 1}{1 - \tau} $$

    tau = 0 is the sum-exponential loss 1/p_y - 1, tau = 1 (the limit) cross-entropy, 1 < tau < 2 generalized
    cross-entropy with q = tau - 1, and tau = 2 is 1 - p_y. Bounded only for tau > 1. The default is the
    value that the paper finds best, so that the default equals ``ce``; its grid is {0, 0.5, 1, 1.5, 2}.

    For tau < 1 the power overflows; from p_y^(tau - 1) = e^30 on, the tangent in log p_y continues it and bounds the
    gradient.
    """
    log_p = target_log_softmax(logits, target)
    slope = 1 - torch.as_tensor(tau, dtype=log_p.dtype, device=log_p.device)
    logistic = slope == 0
    slope = torch.where(logistic, 1, slope)
    exponent = -slope * log_p
    steep = torch.relu(exponent - STEEPEST) * math.exp(STEEPEST)
    return torch.where(logistic, -log_p, (torch.expm1(exponent.clamp(max=STEEPEST)) + steep) / slope)

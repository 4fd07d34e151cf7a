"""Adaptive smoothing (Bai et al., SIMODS 2024, arXiv:2301.12554)."""

import math

import torch
from torch import Tensor

from reference.methods import ensemble
from reference.softmax import log_softmax


@ensemble(of=("standard", "trades"), search={"share": (0.5, 0.95)})
def adaptive_smoothing(
    members: Tensor, *, share: float = 0.5, accurate_scale: float = 1.0, robust_scale: float = 1.0
) -> Tensor:
    r"""The mean of an accurate and a robust network's probabilities, for members (K, N, C); returns (N, C).

    $$ \log\left((1 - \alpha) \, \mathrm{softmax}(s_g \, g(x)) + \alpha \, \mathrm{softmax}(s_h \, h(x))\right) $$

    alpha is share. From alpha = 1/2 on, wherever the robust network keeps its class ahead by (1 - alpha) / alpha in
    probability, no prediction of the accurate one can change the outcome. s_g and s_h are accurate_scale and
    robust_scale: they sharpen the probabilities, 1 leaves them. alpha is constant here; the authors also let a small
    network choose it for each input.
    """
    accurate = log_softmax(accurate_scale * members[0]) + math.log1p(-share)
    robust = log_softmax(robust_scale * members[1]) + math.log(share)
    return torch.logaddexp(accurate, robust)

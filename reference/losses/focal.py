"""Focal loss (Lin et al., ICCV 2017, arXiv:1708.02002)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


def focusing(log_p: Tensor, gamma: float) -> Tensor:
    """The focal loss at a log-probability, elementwise, with its full gradient, which is 0 at p = 1."""
    # At p = 1 a fractional power of 0 has an infinite slope; tiny, lost beside any other 1 - p, makes it finite.
    miss = torch.finfo(log_p.dtype).tiny - torch.expm1(log_p)
    return -torch.exp(gamma * miss.log()) * log_p


@loss(search={"gamma": (0.1, 5.0)}, tags=("calibration",))
def focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    r"""Cross-entropy that fades for well predicted samples, for logits (N, C) and target (N,); returns (N,).

    $$ -(1 - p_y)^\gamma \log p_y $$

    Zero gamma is cross-entropy. Unbounded: it gives most weight to hard, hence also to mislabelled, samples. The
    default is the authors'. The gradient is that of the formula; the code of Ma et al. (ICML 2020), which takes gamma =
    0.5 for noisy labels, holds the factor constant.
    """
    return focusing(target_log_softmax(logits, target), gamma)

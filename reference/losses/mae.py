"""Mean absolute error (Ghosh, Kumar & Sastry, AAAI 2017, arXiv:1712.09482)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


@loss(symmetric=True, bounded=True, tags=("noise-robust",))
def mae(logits: Tensor, target: Tensor) -> Tensor:
    r"""L1 distance between the predicted and the one-hot distribution, for logits (N, C) and target (N,); returns (N,).

    $$ \sum_k \left| [k = y] - p_k \right| = 2 (1 - p_y) $$

    Symmetric: summed over all labels it is 2 (C - 1), whatever the logits. Its gradient vanishes as p_y -> 0, so it
    underfits with many classes. The code of Zhu et al. (ICML 2023) omits the absolute value, which makes the sum zero.
    """
    return -2 * torch.expm1(target_log_softmax(logits, target))

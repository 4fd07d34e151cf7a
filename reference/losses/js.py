"""Jensen-Shannon loss (Englesson & Azizpour, NeurIPS 2021, arXiv:2105.04522)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


@loss(search={"weight": (0.1, 0.9)}, bounded=True, tags=("noise-robust",))
def js(logits: Tensor, target: Tensor, *, weight: float = 0.5) -> Tensor:
    r"""Weighted Jensen-Shannon divergence between the one-hot label and the prediction, scaled, for logits (N, C) and
    target (N,); returns (N,).

    $$ \frac{w \, \mathrm{KL}(e_y \| m) + (1 - w) \, \mathrm{KL}(p \| m)}{-(1 - w) \log (1 - w)},
    \quad m = w \, e_y + (1 - w) \, p $$

    The weight w is the label's. The loss depends on p_y alone: w -> 0 is cross-entropy and w -> 1 is 1 - p_y, half the
    mean absolute error. The authors tune w for each data set and noise rate; the default is the middle of the grid
    {0.1, 0.5, 0.9} of Zhu et al. (ICML 2023). The authors' code clamps m at 1e-7, which is not needed here.
    """
    log_p = target_log_softmax(logits, target)
    p, miss = log_p.exp(), -torch.expm1(log_p)
    rest = 1 - torch.as_tensor(weight, dtype=log_p.dtype, device=log_p.device)
    log_rest = rest.log()
    # Expanded at the target, m = 1 - rest * miss, the divergence is  -m log m + rest p log p - rest miss log(rest).
    mixture = -rest * miss
    divergence = rest * p * log_p - (1 + mixture) * torch.log1p(mixture)
    return miss - divergence / (rest * log_rest)

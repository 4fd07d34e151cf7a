"""Taylor cross-entropy (Feng et al., IJCAI 2020)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import target_log_softmax

TERMS = 20  # of the series; a larger order counts as this one


@loss(search={"t": Range(1, 10, log=True)}, bounded=True, tags=("noise-robust",))
def tce(logits: Tensor, target: Tensor, *, t: float = 2.0) -> Tensor:
    r"""The first t terms of the Taylor series of cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ \sum_{j=1}^{t} \frac{(1 - p_y)^j}{j} $$

    t = 1 is 1 - p_y, half the mean absolute error; t -> infinity is cross-entropy. Bounded by the harmonic number of t.
    The gradient weight is 1 - (1 - p_y)^t. In the paper t is an integer; between two integers the loss is interpolated
    linearly, and above 20 it stays the one of 20. The default is the least order above the absolute error.
    """
    miss = -torch.expm1(target_log_softmax(logits, target))
    order = torch.as_tensor(t, dtype=miss.dtype, device=miss.device)
    total = torch.zeros_like(miss)
    for j in range(TERMS, 0, -1):  # Horner's scheme; the last term counts in part, further ones not at all
        total = miss * ((order - (j - 1)).clamp(0, 1) / j + total)
    return total

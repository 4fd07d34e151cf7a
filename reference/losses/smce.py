"""StableMax cross-entropy (Prieto et al., ICLR 2025, arXiv:2501.04697)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import log_softmax, pick


def stablemax(logits: Tensor) -> Tensor:
    """Log-probabilities (N, C) in proportion to z + 1 where z >= 0 and to 1 / (1 - z) elsewhere.

    >>> import torch
    >>> stablemax(torch.tensor([[1.0, 0.0, -1.0]])).exp().mul(7).round(decimals=4).tolist()  # 2, 1 and 1/2 of 7/2
    [[4.0, 2.0, 1.0]]
    """
    # At 0 clamp passes its gradient and relu does not, so that just one of the two halves has the slope of s there.
    return log_softmax(torch.log1p(logits.clamp(min=0)) - torch.log1p(torch.relu(-logits)))


@loss(link=stablemax)
def smce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy of StableMax probabilities, for logits (N, C) and target (N,); returns (N,).

    $$ -\log \frac{s(z_y)}{\sum_k s(z_k)}, \quad
    s(z) = \begin{cases} z + 1 & z \geq 0 \\ 1 / (1 - z) & z < 0 \end{cases} $$

    z are the logits; the probabilities are not their softmax. s grows and decays like a power where exp overflows and
    underflows: no class is ever lost beside another in the sum. Unbounded, but it grows like the logarithm of the
    logits only. The authors compute it in float64; here it is of the logits' own precision, and log s, formed without
    s, is accurate to rounding at every logit.
    """
    return -pick(stablemax(logits), target)

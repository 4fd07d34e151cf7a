"""Robust log loss (Patel & Sastry, PAKDD 2021, arXiv:2107.09957)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import pick, softmax


@loss(search={"alpha": Range(0.1, 10, log=True)}, symmetric=True, bounded=True, tags=("noise-robust",))
def rll(logits: Tensor, target: Tensor, *, alpha: float = 0.1) -> Tensor:
    r"""Log loss of shifted probabilities, made symmetric, for logits (N, C) and target (N,); returns (N,).

    $$ \log \frac{\alpha + 1}{\alpha} - \log(\alpha + p_y) + \frac{1}{C - 1} \sum_{k \neq y} \log(\alpha + p_k) $$

    Symmetric: its sum over all labels is C log((alpha + 1) / alpha). Zero at p_y = 1. The default is the smallest of
    the grid {0.1, 1, 10} of Zhu et al. (ICML 2023), whose code has another last term.
    """
    logs = torch.log1p(softmax(logits) / alpha)  # log(alpha + p) - log(alpha); the second parts cancel
    own = pick(logs, target)
    return torch.log1p(torch.ones_like(own) / alpha) - own + (logs.sum(-1) - own) / (logits.shape[-1] - 1)

"""Symmetric cross-entropy (Wang et al., ICCV 2019, arXiv:1908.06112)."""

import torch
from torch import Tensor

from reference.losses.rce import reverse
from reference.methods import Range, loss
from reference.softmax import target_log_softmax


def blended(log_p: Tensor, alpha: float, beta: float) -> Tensor:
    """The symmetric cross-entropy at a log-probability, elementwise."""
    return beta * reverse(log_p) - alpha * log_p


@loss(search={"alpha": Range(0.01, 10, log=True), "beta": Range(0.1, 10, log=True)}, tags=("noise-robust",))
def sce(logits: Tensor, target: Tensor, *, alpha: float = 0.1, beta: float = 1.0) -> Tensor:
    r"""Weighted sum of cross-entropy and reverse cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ -\alpha \log p_y - \beta A (1 - p_y), \quad A = \log 10^{-4} $$

    Neither symmetric nor bounded while alpha > 0. The defaults are the authors' for CIFAR-10; they use (0.01, 1) for
    MNIST and (6, 0.1) for CIFAR-100.
    """
    return blended(target_log_softmax(logits, target), alpha, beta)


@loss(search={"b": (0.05, 0.95)}, tags=("noise-robust",))
def sce_ldr(logits: Tensor, target: Tensor, *, b: float = 0.5) -> Tensor:
    r"""Convex combination of cross-entropy and reverse cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ -(1 - b) \log p_y + 4 b (1 - p_y) $$

    The form in the code of Zhu et al. (ICML 2023, arXiv:2112.14869), with log 0 := -4 and b in {0.05, 0.5, 0.95}. It is
    ``sce`` with alpha = 1 - b and beta = 0.434 b; the default is the middle of their grid.
    """
    log_p = target_log_softmax(logits, target)
    return (b - 1) * log_p - 4 * b * torch.expm1(log_p)

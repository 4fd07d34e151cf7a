"""Normalized losses (Ma et al., ICML 2020, arXiv:2006.13554)."""

import torch
from torch import Tensor

from reference.losses.focal import focusing
from reference.methods import loss
from reference.softmax import log_softmax, pick


def normalized(losses: Tensor, target: Tensor) -> Tensor:
    """The loss of each label (N, C) at its target (N,), as a share of the sum over all labels: (N,)."""
    return pick(losses, target) / losses.sum(-1)


@loss(symmetric=True, bounded=True, tags=("noise-robust",))
def nce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy as a share of its sum over all labels, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{-\log p_y}{-\sum_k \log p_k} $$

    Symmetric, with sum 1, and in [0, 1). The gradient fades as the logits grow, so it underfits alone: see the pairs
    with a passive loss. The authors' code multiplies it by 10 for MNIST.
    """
    return normalized(-log_softmax(logits), target)


@loss(search={"gamma": (0.1, 5.0)}, symmetric=True, bounded=True, tags=("noise-robust",))
def nfl(logits: Tensor, target: Tensor, *, gamma: float = 0.5) -> Tensor:
    r"""Focal loss as a share of its sum over all labels, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k} $$

    Symmetric, with sum 1, and in [0, 1]. Zero gamma is ``nce``. The gradient is that of the formula; the authors' code
    holds the factors (1 - p)^gamma constant.
    """
    return normalized(focusing(log_softmax(logits), gamma), target)


@loss(search={"q": (0.05, 0.95)}, symmetric=True, bounded=True, tags=("noise-robust",))
def ngce(logits: Tensor, target: Tensor, *, q: float = 0.1) -> Tensor:
    r"""Generalized cross-entropy as a share of its sum over the labels, for logits (N, C) and target (N,); returns
    (N,).

    $$ \frac{1 - p_y^q}{C - \sum_k p_k^q} $$

    Symmetric, with sum 1, and in [0, 1]. As q -> 0 it becomes ``nce``. The default is the authors' for MNIST and
    CIFAR-10 (0.7 for CIFAR-100); their code clamps p at 1e-7, which is not needed here.
    """
    return normalized(-torch.expm1(q * log_softmax(logits)), target)

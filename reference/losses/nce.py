"""Normalized losses (Ma et al., ICML 2020, arXiv:2006.13554)."""

import torch
from torch import Tensor

from reference.losses.focal import focusing
from reference.losses.gce import box_cox
from reference.losses.rce import LOG_ZERO, reverse
from reference.losses.sce import blended
from reference.methods import Range, loss
from reference.softmax import log_softmax, pick, target_log_softmax


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
    return normalized(box_cox(log_softmax(logits), q), target)


@loss(search={"alpha": Range(0.01, 100, log=True)}, symmetric=True, bounded=True, tags=("noise-robust",))
def nsce(logits: Tensor, target: Tensor, *, alpha: float = 0.1, beta: float = 1.0) -> Tensor:
    r"""Symmetric cross-entropy as a share of its sum over the labels, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{\alpha \log p_y + \beta A (1 - p_y)}{\alpha \sum_k \log p_k + \beta A (C - 1)}, \quad A = \log 10^{-4} $$

    Symmetric, with sum 1, and in [0, 1]. Zero beta is ``nce``, zero alpha ``nrce``. It is not in the authors' code; the
    defaults are those of ``sce``. Only the ratio alpha / beta matters, so beta is not tuned; the range of alpha holds
    the ratios used for ``sce``, 0.01 to 60.
    """
    return normalized(blended(log_softmax(logits), alpha, beta), target)


@loss(symmetric=True, bounded=True, tags=("noise-robust",))
def nmae(logits: Tensor, target: Tensor) -> Tensor:
    r"""Mean absolute error as a share of its sum over the labels, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{1 - p_y}{C - 1} $$

    Symmetric, with sum 1, and in [0, 1 / (C - 1)]: a multiple of the mean absolute error, since that is symmetric
    already. The code of Zhou et al. (ICML 2021) has this form, the authors' code half of it.
    """
    return -torch.expm1(target_log_softmax(logits, target)) / (logits.shape[-1] - 1)


@loss(symmetric=True, bounded=True, tags=("noise-robust",))
def nrce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Reverse cross-entropy as a share of its sum over the labels, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{-A (1 - p_y)}{-A (C - 1)}, \quad A = \log 10^{-4} $$

    Symmetric, with sum 1, and in [0, 1 / (C - 1)]. A cancels: it equals ``nmae``. The authors' code has another
    normalizer, see ``nrce_apl``.
    """
    return reverse(target_log_softmax(logits, target)) / (-LOG_ZERO * (logits.shape[-1] - 1))


@loss(symmetric=True, bounded=True, tags=("noise-robust",))
def nrce_apl(logits: Tensor, target: Tensor) -> Tensor:
    r"""Reverse cross-entropy as the authors' code scales it, for logits (N, C) and target (N,); returns (N,).

    $$ -\frac{C - 1}{4} A (1 - p_y), \quad A = \log 10^{-4} $$

    Symmetric, with sum -A (C - 1)^2 / 4. The code writes 1 / 4 * (C - 1), which multiplies by the number of other
    classes where ``nrce`` divides by it.
    """
    return (logits.shape[-1] - 1) / 4 * reverse(target_log_softmax(logits, target))

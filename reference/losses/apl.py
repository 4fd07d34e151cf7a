"""Active-passive losses (Ma et al., ICML 2020, arXiv:2006.13554).

A normalized loss only raises the target's probability (active); a passive one also lowers others. Each underfits or
converges slowly alone; all pairs come from one ``combine``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from reference.losses.asymmetric import exponential, lifted_power, unhinged_power
from reference.losses.focal import focusing
from reference.losses.gce import box_cox
from reference.losses.nce import normalized
from reference.losses.rce import reverse
from reference.methods import Range, loss
from reference.softmax import log_softmax, pick, target_log_softmax

WEIGHTS = {"alpha": Range(0.1, 10, log=True), "beta": Range(0.1, 10, log=True)}
TAGS = ("noise-robust", "active-passive")


def combine(
    logits: Tensor,
    target: Tensor,
    alpha: float,
    active: Callable[[Tensor], Tensor],
    beta: float,
    passive: Callable[[Tensor], Tensor],
) -> Tensor:
    """alpha * normalized active loss + beta * passive loss, each a function of log-probabilities: (N,)."""
    log_p = log_softmax(logits)
    return alpha * normalized(active(log_p), target) + beta * passive(pick(log_p, target))


def absolute(log_p: Tensor) -> Tensor:
    """Half the mean absolute error, 1 - p: the form the pairs use."""
    return -torch.expm1(log_p)


@loss(search=WEIGHTS, symmetric=True, bounded=True, tags=TAGS)
def nce_mae(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    r"""Normalized cross-entropy plus mean absolute error, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{\log p_y}{\sum_k \log p_k} + \beta (1 - p_y) $$

    Symmetric and bounded. The error is halved, 1 - p_y, as in the authors' code. The defaults are theirs for CIFAR-10;
    they use (1, 10) for MNIST and (10, 1) for CIFAR-100.
    """
    return combine(logits, target, alpha, torch.neg, beta, absolute)


@loss(search=WEIGHTS, symmetric=True, bounded=True, tags=TAGS)
def nce_rce(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    r"""Normalized cross-entropy plus reverse cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{\log p_y}{\sum_k \log p_k} - \beta A (1 - p_y), \quad A = \log 10^{-4} $$

    Symmetric and bounded. The defaults are the authors' for CIFAR-10; they use (1, 10) for MNIST and (10, 0.1) for
    CIFAR-100.
    """
    return combine(logits, target, alpha, torch.neg, beta, reverse)


@loss(search=WEIGHTS, symmetric=True, bounded=True, tags=TAGS)
def nfl_mae(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.5) -> Tensor:
    r"""Normalized focal loss plus mean absolute error, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k} + \beta (1 - p_y) $$

    Symmetric and bounded. The error is halved, 1 - p_y, as in the authors' code. The defaults are theirs for CIFAR-10;
    they use (1, 10) for MNIST and (10, 1) for CIFAR-100, and gamma = 0.5 everywhere, which is why it is not tuned.
    """
    return combine(logits, target, alpha, lambda log_p: focusing(log_p, gamma), beta, absolute)


@loss(search=WEIGHTS, symmetric=True, bounded=True, tags=TAGS)
def nfl_rce(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.5) -> Tensor:
    r"""Normalized focal loss plus reverse cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k} - \beta A (1 - p_y),
    \quad A = \log 10^{-4} $$

    Symmetric and bounded. The defaults are the authors' for CIFAR-10; they use (1, 10) for MNIST and (10, 0.1) for
    CIFAR-100, and gamma = 0.5 everywhere, which is why it is not tuned.
    """
    return combine(logits, target, alpha, lambda log_p: focusing(log_p, gamma), beta, reverse)


@loss(search=WEIGHTS, symmetric=True, bounded=True, tags=TAGS)
def ngce_mae(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0, q: float = 0.1) -> Tensor:
    r"""Normalized generalized cross-entropy plus mean absolute error, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{1 - p_y^q}{C - \sum_k p_k^q} + \beta (1 - p_y) $$

    Symmetric and bounded. The error is halved, 1 - p_y, as in the authors' code. The defaults are theirs for CIFAR-10;
    they use (1, 10) for MNIST and (10, 1) for CIFAR-100, where q = 0.7. As in the other pairs, only the weights are
    tuned, not q.
    """
    return combine(logits, target, alpha, lambda log_p: box_cox(log_p, q), beta, absolute)


@loss(search=WEIGHTS, symmetric=True, bounded=True, tags=TAGS)
def ngce_rce(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0, q: float = 0.1) -> Tensor:
    r"""Normalized generalized cross-entropy plus reverse cross-entropy, for logits (N, C) and target (N,); returns
    (N,).

    $$ \alpha \frac{1 - p_y^q}{C - \sum_k p_k^q} - \beta A (1 - p_y), \quad A = \log 10^{-4} $$

    Symmetric and bounded. The defaults are the authors' for CIFAR-10; they use (1, 10) for MNIST and (10, 0.1) for
    CIFAR-100, where q = 0.7. Three of their four configurations of this pair for CIFAR train ``ngce_mae`` instead. As
    in the other pairs, only the weights are tuned, not q.
    """
    return combine(logits, target, alpha, lambda log_p: box_cox(log_p, q), beta, reverse)


@loss(search=WEIGHTS, bounded=True, tags=TAGS)
def gce_mae(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0, q: float = 0.7) -> Tensor:
    r"""Generalized cross-entropy plus mean absolute error, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{1 - p_y^q}{q} + \beta (1 - p_y) $$

    Bounded, but not symmetric: the active loss is not normalized. The error is halved, 1 - p_y, as in the authors'
    code, which accepts alpha but leaves it out, as if it were 1. Its beta is 1 for CIFAR-10 and CIFAR-100 and 10 for
    MNIST, and q = 0.7 everywhere, which is why it is not tuned.
    """
    log_p = target_log_softmax(logits, target)
    return alpha * box_cox(log_p, q) + beta * absolute(log_p)


@loss(search=WEIGHTS, bounded=True, tags=TAGS)
def gce_rce(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 1.0, q: float = 0.7) -> Tensor:
    r"""Generalized cross-entropy plus reverse cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{1 - p_y^q}{q} - \beta A (1 - p_y), \quad A = \log 10^{-4} $$

    Bounded, but not symmetric: the active loss is not normalized. It is ``gce_mae`` with -A = 9.2 times the beta. The
    authors' code accepts alpha but leaves it out, as if it were 1. Its beta is 1 for CIFAR-10, 0.1 for CIFAR-100 and 10
    for MNIST, and q = 0.7 everywhere, which is why it is not tuned.
    """
    log_p = target_log_softmax(logits, target)
    return alpha * box_cox(log_p, q) + beta * reverse(log_p)


@loss(search=WEIGHTS, bounded=True, tags=TAGS)
def nce_agce(
    logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 4.0, a: float = 6.0, q: float = 1.5
) -> Tensor:
    r"""Normalized cross-entropy plus asymmetric generalized cross-entropy, for logits (N, C) and target (N,); returns
    (N,).

    $$ \alpha \frac{\log p_y}{\sum_k \log p_k} + \beta \frac{(a + 1)^q - (a + p_y)^q}{q} $$

    Bounded. Proposed, and the defaults used for CIFAR-10, by Zhou et al. (ICML 2021, arXiv:2106.03110). Zhu et al.
    (ICML 2023) take a = 3, q = 1.5 and tune the weights only; here too, a and q are not tuned.
    """
    return combine(logits, target, alpha, torch.neg, beta, lambda log_p: lifted_power(log_p.exp(), a, q))


@loss(search=WEIGHTS, bounded=True, tags=TAGS)
def nce_aul(
    logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 4.0, a: float = 6.3, q: float = 1.5
) -> Tensor:
    r"""Normalized cross-entropy plus asymmetric unhinged loss, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{\log p_y}{\sum_k \log p_k} + \beta \frac{(a - p_y)^q - (a - 1)^q}{q} $$

    Bounded. Proposed, and the defaults used for CIFAR-10, by Zhou et al. (ICML 2021, arXiv:2106.03110). Zhu et al.
    (ICML 2023) take a = 6, q = 1.5 and tune the weights only; here too, a and q are not tuned.
    """
    return combine(logits, target, alpha, torch.neg, beta, lambda log_p: unhinged_power(log_p.exp(), a, q))


@loss(search=WEIGHTS, bounded=True, tags=TAGS)
def nce_ael(logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 4.0, a: float = 5.0) -> Tensor:
    r"""Normalized cross-entropy plus asymmetric exponential loss, for logits (N, C) and target (N,); returns (N,).

    $$ \alpha \frac{\log p_y}{\sum_k \log p_k} + \beta \exp(-p_y / a) $$

    Bounded. Proposed, and the defaults used for CIFAR-10, by Zhou et al. (ICML 2021, arXiv:2106.03110); they use
    (10, 0.1) and a = 1.5 for CIFAR-100. As in the other pairs, only the weights are tuned, not a.
    """
    return combine(logits, target, alpha, torch.neg, beta, lambda log_p: exponential(log_p.exp(), a))

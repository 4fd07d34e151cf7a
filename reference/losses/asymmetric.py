"""Asymmetric loss functions (Zhou et al., ICML 2021, arXiv:2106.03110)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import log_softmax, pick, target_log_softmax


def lifted_power(p: Tensor, a: float, q: float) -> Tensor:
    """AGCE at the target's probability, elementwise."""
    return ((a + 1) ** q - (a + p) ** q) / q


def unhinged_power(p: Tensor, a: float, q: float) -> Tensor:
    """AUL at the target's probability, elementwise."""
    return ((a - p) ** q - (a - 1) ** q) / q


def exponential(p: Tensor, a: float) -> Tensor:
    """AEL at the target's probability, elementwise."""
    return torch.exp(-p / a)


@loss(search={"a": (0.5, 6.0), "q": (0.2, 3.0)}, bounded=True, tags=("noise-robust",))
def agce(logits: Tensor, target: Tensor, *, a: float = 0.6, q: float = 0.6) -> Tensor:
    r"""Asymmetric generalized cross-entropy, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{(a + 1)^q - (a + p_y)^q}{q} $$

    a = 0 is generalized cross-entropy. For q >= 1 it is concave in p_y, so that the expected loss is least at the
    certain prediction of the most frequent label, whatever the noise. The defaults are the authors' for CIFAR-10; they
    use (4, 0.2) for MNIST.
    """
    return lifted_power(target_log_softmax(logits, target).exp(), a, q)


@loss(search={"a": (2.0, 8.0), "q": (0.1, 3.0)}, bounded=True, tags=("noise-robust",))
def aul(logits: Tensor, target: Tensor, *, a: float = 5.5, q: float = 3.0) -> Tensor:
    r"""Asymmetric unhinged loss, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{(a - p_y)^q - (a - 1)^q}{q}, \quad a > 1 $$

    q = 1 is 1 - p_y, half the mean absolute error. For q <= 1 it is concave in p_y, so that the expected loss is least
    at the certain prediction of the most frequent label, whatever the noise. The defaults are the authors' for
    CIFAR-10; they use (3, 0.1) for MNIST.
    """
    return unhinged_power(target_log_softmax(logits, target).exp(), a, q)


@loss(search={"a": (1.5, 5.0)}, bounded=True, tags=("noise-robust",))
def ael(logits: Tensor, target: Tensor, *, a: float = 2.5) -> Tensor:
    r"""Asymmetric exponential loss, for logits (N, C) and target (N,); returns (N,).

    $$ \exp(-p_y / a) $$

    In [exp(-1/a), 1]: it does not reach zero. Large a approaches an affine function of the mean absolute error. The
    default is the authors' for CIFAR-10; they use 3.5 for MNIST.
    """
    return exponential(target_log_softmax(logits, target).exp(), a)


@loss(search={"a": (1.2, 8.0), "q": (0.1, 3.0)}, bounded=True, tags=("noise-robust",))
def anl(logits: Tensor, target: Tensor, *, a: float = 1.5, q: float = 0.9) -> Tensor:
    r"""a-norm loss, of the distance between the prediction and a times the one-hot label, for logits (N, C) and target
    (N,); returns (N,).

    $$ \frac{\sum_k \left| a \, [k = y] - p_k \right|^q - (a - 1)^q}{q}, \quad a > 1 $$

    It is ``aul`` plus the q-th powers of the other probabilities; q = 1 is the mean absolute error, whatever a. The
    defaults are those of the authors' code, whose experiments do not use it; the ranges are those of ``aul``, down to
    a = 1.2. Their code clamps p at 1e-5, which is not needed here. Not the active negative loss of later work, which
    has the same abbreviation.
    """
    log_p = log_softmax(logits)
    powers = torch.exp(q * log_p)
    return unhinged_power(pick(log_p, target).exp(), a, q) + (powers.sum(-1) - pick(powers, target)) / q

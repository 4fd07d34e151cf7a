"""Bi-tempered logistic loss (Amid et al., NeurIPS 2019, arXiv:1906.03361)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import pick

STEPS = 4  # of Halley's method: the sum is 1 to rounding for 100 classes, and to 1e-8 for 1,000, at any t2 in [1, 2]
SMALLEST = 1e-20  # stands for t - 1 = 0: the tempered functions are then exp and log to rounding


def excess(t: float | Tensor, like: Tensor) -> Tensor:
    """t as a 0-d tensor, at least SMALLEST."""
    return torch.as_tensor(t, dtype=like.dtype, device=like.device).clamp(min=SMALLEST)


def tempered_log_softmax(logits: Tensor, t2: float | Tensor) -> Tensor:
    """Log-probabilities over the last dimension for 1 <= t2 <= 2, same shape, with their exact first derivatives."""
    tau = excess(t2 - 1, logits)
    below = logits - logits.detach().amax(-1, keepdim=True)
    fixed = below.detach()
    shift = torch.zeros_like(fixed[..., :1])
    for _ in range(STEPS):  # solves log_t2(sum of p) = 0, which is convex and decreasing in the shift
        gap = tau * (shift - fixed)
        base = 1 + gap
        p = torch.exp(-torch.log1p(gap) / tau)
        first = p / base
        total, slope, curve = (part.sum(-1, keepdim=True) for part in (p, first, first / base))
        value = torch.expm1(tau * total.log()) / tau
        bend = (1 + tau) * value * (curve * total / (slope * slope) - 1)
        shift = (shift + total * value / slope / (1 - bend / 2).clamp(min=0.3)).clamp(min=0)
    gap = tau * (shift - fixed)
    base = 1 + gap
    log_p = -torch.log1p(gap) / tau
    escort = log_p.exp() / base
    escort = escort / escort.sum(-1, keepdim=True)
    # The shift's derivative is the escort distribution; the change is zero, and there for its gradient alone.
    change = below - fixed
    return log_p + (change - (escort * change).sum(-1, keepdim=True)) / base


def link(logits: Tensor, *, t2: float) -> Tensor:
    """The tempered log-probabilities (N, C)."""
    return tempered_log_softmax(logits, t2)


@loss(search={"t1": (0.2, 0.95), "t2": (1.0, 2.0)}, bounded=True, link=link, tags=("noise-robust", "proper"))
def bitemp(logits: Tensor, target: Tensor, *, t1: float = 0.8, t2: float = 1.2) -> Tensor:
    r"""Bregman divergence of a tempered softmax from the one-hot label, for logits (N, C) and target (N,); returns
    (N,).

    $$ -\log_{t_1} p_y - \frac{1 - \sum_k p_k^{2 - t_1}}{2 - t_1}, \quad p_k = \exp_{t_2}(z_k - \lambda), \quad
    \log_t u = \frac{u^{1 - t} - 1}{1 - t}, \quad \exp_t = \log_t^{-1} $$

    lambda makes the p_k sum to 1. t1 = t2 = 1 is cross-entropy. t1 < 1 bounds the loss, by 1 / (1 - t1); t2 > 1 gives
    the probabilities a heavy tail, so that samples far on the wrong side lose their pull. Proper for every t1: its link
    is the tempered softmax.

    lambda is found by four steps of Halley's method, where the authors' code takes five of a fixed point; its gradient
    is that of the exact normalisation, the escort distribution p^t2 / sum p^t2. Needs 0 <= t1 <= 1 and 1 <= t2 <= 2.
    The defaults are a common choice; the ranges are ours.
    """
    log_p = tempered_log_softmax(logits, t2)
    rest = excess(1 - t1, logits)
    mass = torch.exp((1 + rest) * log_p).sum(-1)
    return -torch.expm1(rest * pick(log_p, target)) / rest - (1 - mass) / (1 + rest)

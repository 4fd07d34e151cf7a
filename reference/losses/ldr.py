"""Label-distributionally robust losses (Zhu, Ying & Yang, ICML 2023, arXiv:2112.14869)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from reference.methods import Memory, Range, loss
from reference.softmax import softmax, target_log_softmax

TEMPERATURES = Range(0.1, 10, log=True)


def robust_margin(log_p: Tensor, classes: int, temperature: float | Tensor, margin: float) -> Tensor:
    """The LDR-KL loss from the target's log-probability (N,) under softmax(scores / temperature).

    The margin enters the sum over classes of exp((f_k - f_y + margin [k != y]) / temperature) in all terms but one;
    taken out as a factor it leaves 1 / p_y * ((1 - p_y) + p_y exp(-margin / temperature)), without overflow.
    """
    inside = torch.exp(log_p - margin / temperature) - torch.expm1(log_p)
    inside = inside.clamp(min=torch.finfo(log_p.dtype).tiny)
    return margin + temperature * (inside.log() - log_p - math.log(classes))


@loss(search={"temperature": TEMPERATURES}, bounded=True, tags=("noise-robust",))
def ldr(logits: Tensor, target: Tensor, *, temperature: float = 10.0, margin: float = 0.1) -> Tensor:
    r"""LDR-KL: the worst weighted mean of label margins, under a KL penalty, for logits (N, C) and target (N,); returns
    (N,).

    $$ \lambda \log \frac{1}{C} \sum_k \exp \frac{f_k - f_y + c \, [k \neq y]}{\lambda}, \quad
    f = \frac{C \, \mathrm{softplus}(z)}{\sum_k \mathrm{softplus}(z_k)} $$

    lambda is the temperature, c the margin, z the logits. The scores f are non-negative with mean 1, as in the authors'
    experiments; so the loss is bounded by c + C. lambda -> 0 is the Crammer-Singer loss of f; lambda -> infinity is the
    mean margin, which is symmetric. The default and the range (0.1, 1, 10) of the temperature are the authors'; the
    margin is not tuned, as in their experiments.
    """
    scores = softplus(logits)
    # The floor matters only where softplus underflows for every class.
    scores = scores / scores.mean(-1, keepdim=True).clamp(min=1e-30)
    return robust_margin(target_log_softmax(scores / temperature, target), logits.shape[-1], temperature, margin)


@loss(search={"temperature": TEMPERATURES}, bounded=True, state=Memory(1.0), tags=("noise-robust",))
def aldr(
    logits: Tensor, target: Tensor, *, temperature: float = 10.0, alpha: float = 2.0, margin: float = 0.1, state: Tensor
) -> tuple[Tensor, Tensor]:
    r"""ALDR-KL: LDR-KL with a temperature for each sample, for logits (N, C) and target (N,); returns (N,) and the
    samples' temperatures (N,) in units of lambda_0.

    $$ \lambda_i \log \frac{1}{C} \sum_k \exp \frac{f_k - f_y + c \, [k \neq y]}{\lambda_i}
    - \frac{\alpha \log C}{2 \lambda_0} (\lambda_i - \lambda_0)^2, \quad f = \frac{C z}{\| z \|_1} $$

    lambda_0 is the temperature, c the margin, z the logits. The memory holds lambda_i / lambda_0, 1 at the start. Each
    visit first moves it, without gradient, to 1 - KL(p || 1/C) / (alpha log C) where p is softmax(f / lambda_i),
    smoothed by 1e-5; at the fixed point lambda_i maximises the loss (for c = 0, which the update ignores). Confident
    predictions get a small temperature, down to 1 - 1/alpha, and uncertain ones keep lambda_0; alpha > 1 is required.

    The scores are the logits over their mean absolute value (plus 1e-5, so that zero logits are allowed): bounded, and
    so is the loss. The authors' script applies softplus first for CIFAR-100 only; it is left out, as in the rest of
    their experiments. alpha and the margin are not tuned, as in their experiments.
    """
    classes = logits.shape[-1]
    scores = logits / (logits.abs().mean(-1, keepdim=True) + 1e-5)
    p = softmax(scores.detach() / (temperature * state)[..., None])
    p = (p + 1e-5) / (1 + classes * 1e-5)
    divergence = ((p * p.log()).sum(-1) + math.log(classes)).clamp(min=0)
    ratio = 1 - divergence / (alpha * math.log(classes))
    own = temperature * ratio
    penalty = 0.5 * alpha * math.log(classes) * temperature * (ratio - 1) ** 2
    return robust_margin(target_log_softmax(scores / own[..., None], target), classes, own, margin) - penalty, ratio

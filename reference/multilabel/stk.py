"""Soft top-k loss (Gupta et al., ICLR 2024, arXiv:2310.10636)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from reference.methods import multilabel_loss

HALVINGS = 32  # of the bracket, as in the authors' code


def log_soft_top(scores: Tensor, k: float | Tensor, alpha: float | Tensor) -> Tensor:
    """log sigmoid(alpha (s + t)) for scores (N, L), with t of each row such that the sigmoids sum to k; the same shape.

    t is found by bisection and one Newton step, without gradient; its gradient is that of the equation which it solves.
    """
    fixed = scores.detach()
    low = -fixed.amax(-1, keepdim=True) - 10 / alpha
    high = -fixed.amin(-1, keepdim=True) + 10 / alpha
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        more = torch.sigmoid(alpha * (fixed + middle)).sum(-1, keepdim=True) < k
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    shift = (low + high) / 2
    total, slope = _total(fixed, shift, alpha)
    shift = torch.maximum(torch.minimum(shift - (total - k) / slope, high), low)
    total, slope = _total(scores, shift, alpha)
    shift = shift - (total - total.detach()) / slope.detach()  # no change, but the gradient -slope_l / slope
    return logsigmoid(alpha * (scores + shift))


def _total(scores: Tensor, shift: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the sigmoids and its slope in the shift: (N, 1) each."""
    p = torch.sigmoid(alpha * (scores + shift))
    slope = (alpha * p * (1 - p)).sum(-1, keepdim=True)
    least = torch.finfo(scores.dtype).tiny / torch.finfo(scores.dtype).eps  # so that a gradient divided by it is finite
    return p.sum(-1, keepdim=True), slope.clamp(min=least)


@multilabel_loss(search={"alpha": (0.5, 5.0)})
def stk(logits: Tensor, target: Tensor, *, alpha: float = 2.0, k: float = 0.0) -> Tensor:
    r"""Minus the logarithm of how far each present label is among the top k, for logits (N, L) and target (N, L);
    returns (N,).

    $$ -\frac{1}{|P|} \sum_{l \in P} \log \sigma_l, \quad \sigma_l = \mathrm{sigmoid}(\alpha (z_l + t)), \;
    \sum_l \sigma_l = k, \; P = \{ l : y_l = 1 \} $$

    t is a sample's own threshold. k = 0 stands for the sample's number of present labels; another k is the cut that one
    wants to be good at, and is not tuned. The authors have both, k = 5 for many thousands of labels, where here of the
    6 or 7 labels of some sets 5 are nearly all. With L <= k labels, k is L - 1. A sample without labels has neither
    loss nor gradient. alpha is the authors'.
    """
    count = target.sum(-1, keepdim=True).clamp(min=1)
    cut = torch.as_tensor(k, dtype=logits.dtype, device=logits.device)
    wanted = torch.where(cut > 0, cut, count).clamp(max=logits.shape[-1] - 1)
    return -(target * log_soft_top(logits, wanted, alpha)).sum(-1) / count[..., 0]

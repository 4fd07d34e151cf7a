"""EnsLoss, stochastic calibrated loss ensembles (Dai, ICML 2025, arXiv:2409.00908)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import pick


@loss(search={"power": (-1.0, 1.0)}, batchwise=True, draws=1, tags=("margin",))
def ens(logits: Tensor, target: Tensor, *, power: float = 0.0, draws: Tensor) -> Tensor:
    r"""A convex calibrated margin loss known by its derivatives alone, which are drawn anew for each batch, for logits
    (N, C) and target (N,); returns a scalar.

    $$ \frac{1}{N (C - 1)} \sum_j \sum_i v_{(i)} \, \phi(s_{(i) j}), \quad s_{ij} = z_{i y} - z_{i, y + j}, \quad
    \phi(s) = \min(s, 1 + \log \max(s, 1)), \quad v_i = -\min(1, \; (1 + \lambda r_i)_+^{1 / \lambda}) $$

    lambda is the power, 0 an exponential; the r_i are standard normal numbers, and (i) is the i-th smallest of the
    batch. The i-th smallest margin so has the i-th smallest derivative, divided by the margin where that exceeds 1, as
    some convex, decreasing, calibrated loss would have it. A further -1e-6 keeps every derivative below zero. The
    gradients are the authors'; the value, their antiderivative, is no measure of fit.

    The paper is about two classes. For more, the margins here are the label's logit less that of each other class, the
    j-th after it for j = 1 to C - 1 (classes are counted in a circle); each j is sorted by itself, all share one set of
    derivatives, and their mean is taken. This extension is ours; with two classes it is the paper's loss. One-vs-rest
    margins would not do: derivatives go by rank, and of such margins most are those of the other classes. The power is
    a hyperparameter; the authors can also draw it anew, uniformly from -1 to 1, every few epochs. The method defines
    no probabilities; those reported are of the softmax.
    """
    classes = logits.shape[-1]
    others = (target[:, None] + torch.arange(1, classes, device=logits.device)) % classes
    margins = (pick(logits, target)[:, None] - logits.gather(-1, others)).sort(0).values
    least = torch.finfo(logits.dtype).eps
    bend = torch.as_tensor(power, dtype=logits.dtype, device=logits.device)
    bend = torch.where(bend.abs() < 1e-12, 1e-12, bend)
    normal = torch.special.ndtri(draws[:, 0].sort(descending=True).values.clamp(min=least))
    heights = torch.log1p((bend * normal).clamp(min=least - 1)) / bend
    slopes = -torch.exp(heights.clamp(max=0))[:, None]
    eased = torch.where(margins > 1, 1 + margins.clamp(min=1).log(), margins)
    return (slopes * eased - 1e-6 * margins).mean()

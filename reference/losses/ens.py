"""EnsLoss, stochastic calibrated loss ensembles (Dai, ICML 2025, arXiv:2409.00908)."""

import torch
from torch import Tensor

from reference.methods import loss


@loss(search={"power": (-1.0, 1.0)}, batchwise=True, draws=1, tags=("margin",))
def ens(logits: Tensor, target: Tensor, *, power: float = 0.0, draws: Tensor) -> Tensor:
    r"""A convex calibrated margin loss known by its derivatives alone, which are drawn anew for each batch, for logits
    (N, C) and target (N,); returns a scalar.

    $$ \frac{1}{N} \sum_k \sum_i v_{(i)} \, \phi(s_{(i) k}), \quad s_{ik} = \pm z_{ik}, \quad
    \phi(s) = \min(s, 1 + \log \max(s, 1)), \quad v_i = -\min(1, \; (1 + \lambda r_i)_+^{1 / \lambda}) $$

    lambda is the power, 0 an exponential; the r_i are standard normal numbers, and (i) is the i-th smallest of the
    batch. The i-th smallest margin so has the i-th smallest derivative, divided by the margin where that exceeds 1, as
    some convex, decreasing, calibrated loss would have it. A further -1e-6 keeps every derivative below zero. The
    gradients are the authors'; the value, their antiderivative, is no measure of fit.

    The paper is about two classes. For more, the margins here are one-vs-rest, z_k for the label and -z_k for every
    other class, summed over classes that share one set of derivatives: this extension is ours. The power is a
    hyperparameter; the authors can also draw it anew, uniformly from -1 to 1, every few epochs. The method defines no
    probabilities; those reported are of the softmax.
    """
    own = torch.arange(logits.shape[-1], device=logits.device) == target[:, None]
    margins = torch.where(own, logits, -logits).sort(0).values
    least = torch.finfo(logits.dtype).eps
    bend = torch.as_tensor(power, dtype=logits.dtype, device=logits.device)
    bend = torch.where(bend.abs() < 1e-12, 1e-12, bend)
    normal = torch.special.ndtri(draws[:, 0].sort(descending=True).values.clamp(min=least))
    heights = torch.log1p((bend * normal).clamp(min=least - 1)) / bend
    slopes = -torch.exp(heights.clamp(max=0))[:, None]
    eased = torch.where(margins > 1, 1 + margins.clamp(min=1).log(), margins)
    return (slopes * eased - 1e-6 * margins).sum(-1).mean()

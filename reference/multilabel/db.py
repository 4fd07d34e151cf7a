"""Distribution-balanced loss (Wu et al., ECCV 2020, arXiv:2007.09654)."""

import torch
from torch import Tensor

from reference.losses.focal import focusing
from reference.methods import Range, multilabel_loss
from reference.sigmoid import target_log_sigmoid


def rebalanced(target: Tensor, counts: Tensor, alpha: float, beta: float, mu: float) -> Tensor:
    """The smoothed weights of every label: (N, L), from alpha to alpha + 1.

    Sampled class by class, a row comes with frequency proportional to the sum of 1 / count over its labels; the weight
    follows the ratio of what one label alone would give to that.
    """
    inverse = 1 / counts.clamp(min=1)
    ratio = inverse / (target * inverse).sum(-1, keepdim=True).clamp(min=1e-12)
    return alpha + torch.sigmoid(beta * (ratio - mu))


@multilabel_loss(search={"mu": (0.05, 0.5), "scale": Range(1.0, 5.0, log=True), "gamma": (0.0, 4.0)})
def db(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
    kappa: float = 0.05,
    scale: float = 2.0,
    gamma: float = 2.0,
    counts: Tensor,
    rows: Tensor,
) -> Tensor:
    r"""Focal loss with weights that undo uneven sampling, and tolerant of absent labels, for logits (N, L) and target
    (N, L); returns (N,).

    $$ \frac{1}{L} \sum_l \frac{-2 w_l}{\lambda^{1 - y_l}} (1 - q_l)^\gamma \log q_l, \quad
    w_l = \alpha + \mathrm{sigmoid} \left( \beta \left( \frac{1 / n_l}{\sum_j y_j / n_j} - \mu \right) \right) $$

    q is the probability of what the target says, after the logits were shifted by -kappa log(N/n - 1) / lambda, with n
    of the N training rows having the label, and then multiplied by lambda (scale) where the label is absent. Shift and
    scale are of the training alone. A row without labels has the greatest weights, alpha + 1; a label that no row has
    counts as if one had it. The defaults are the authors' for COCO-LT; for VOC-LT they take mu = 0.3, scale = 5. alpha,
    beta and kappa are the same for both and are not tuned.
    """
    odds = (rows - counts).clamp(min=1) / counts.clamp(min=1)
    shifted = logits - kappa * odds.log() / scale
    lowered = 1 + (scale - 1) * (1 - target)  # 1 where the label is present
    weight = 2 * rebalanced(target, counts, alpha, beta, mu) / lowered
    return (weight * focusing(target_log_sigmoid(shifted * lowered, target), gamma)).mean(-1)

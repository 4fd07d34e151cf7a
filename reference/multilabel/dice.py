"""Dice losses (Li et al., ACL 2020, arXiv:1911.02855).

The set-level ones count over all samples and labels of the batch at once, as the authors' code does.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from reference.methods import Range, multilabel_loss

SMOOTH = {"smooth": Range(0.01, 10.0, log=True)}


def adjusted(logits: Tensor, alpha: float) -> Tensor:
    """(1 - p)^alpha p, elementwise: probabilities that fade where they are sure."""
    return torch.exp(alpha * logsigmoid(-logits) + logsigmoid(logits))


def squared_dice(p: Tensor, target: Tensor, smooth: float) -> Tensor:
    """One minus the dice coefficient of all entries, with squares below: 0-d."""
    return 1 - (2 * (p * target).sum() + smooth) / ((p**2).sum() + (target**2).sum() + smooth)


@multilabel_loss(search=SMOOTH, batchwise=True)
def dice(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    r"""One minus the dice coefficient of the batch's labels and probabilities, for logits (N, L) and target (N, L);
    returns a scalar.

    $$ 1 - \frac{2 \sum_{il} p_{il} y_{il} + \gamma}{\sum_{il} p_{il}^2 + \sum_{il} y_{il}^2 + \gamma} $$

    gamma is the smoothing. Between 0 and 1. Absent labels count only through their probabilities.
    """
    return squared_dice(torch.sigmoid(logits), target, smooth)


@multilabel_loss(search={"alpha": (0.0, 2.0), **SMOOTH})
def dsc(logits: Tensor, target: Tensor, *, alpha: float = 1.0, smooth: float = 1.0) -> Tensor:
    r"""Self-adjusting dice of every label, which fades for easy ones, for logits (N, L) and target (N, L); returns
    (N,).

    $$ \frac{1}{L} \sum_l \left[ 1 - \frac{2 (1 - p_l)^\alpha p_l y_l + \gamma}{(1 - p_l)^\alpha p_l + y_l + \gamma}
    \right] $$

    gamma is the smoothing; both defaults are the paper's. (1 - p)^alpha p is greatest at p = 1 / (1 + alpha), one half
    by default. A present label is pulled there and no further, and an absent label above it is pushed up, to p = 1,
    where the factor is 0 too: a network that begins near 1/2 can learn the opposite. Zero alpha is without this fault.
    """
    p = adjusted(logits, alpha)
    return (1 - (2 * p * target + smooth) / (p + target + smooth)).mean(-1)


@multilabel_loss(search={"alpha": (0.0, 1.0), **SMOOTH}, batchwise=True)
def dsc_script(logits: Tensor, target: Tensor, *, alpha: float = 0.01, smooth: float = 1.0) -> Tensor:
    r"""Self-adjusting dice as the authors' scripts have it, of the whole batch, for logits (N, L) and target (N, L);
    returns a scalar.

    $$ 1 - \frac{2 \sum_{il} \tilde p_{il} y_{il} + \gamma}{\sum_{il} \tilde p_{il}^2 + \sum_{il} y_{il}^2 + \gamma},
    \quad \tilde p = (1 - p)^\alpha p $$

    The scripts' alpha of 0.01 hardly adjusts anything; zero is ``dice``. Their mining of hard absent labels is left
    out.
    """
    return squared_dice(adjusted(logits, alpha), target, smooth)


@multilabel_loss(search={"alpha": (0.1, 0.9), "beta": (0.1, 0.9), **SMOOTH}, batchwise=True)
def tversky(logits: Tensor, target: Tensor, *, alpha: float = 0.5, beta: float = 0.5, smooth: float = 1.0) -> Tensor:
    r"""One minus the Tversky index of the batch: false alarms and misses have weights of their own; for logits (N, L)
    and target (N, L); returns a scalar.

    $$ 1 - \frac{\sum p y + \gamma}{\sum p y + \alpha \sum p (1 - y) + \beta \sum (1 - p) y + \gamma} $$

    The sums are over samples and labels; gamma is the smoothing. Equal weights of one half, our default, are the dice
    coefficient with plain sums below; both at 1 are the Jaccard index.
    """
    p = torch.sigmoid(logits)
    hits = (p * target).sum() + smooth
    return 1 - hits / (hits + alpha * (p * (1 - target)).sum() + beta * ((1 - p) * target).sum())

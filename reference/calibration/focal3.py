"""Focal loss for calibration (Mukhoti et al., NeurIPS 2020, arXiv:2002.09437)."""

import torch
from torch import Tensor

from reference.losses.focal import focusing
from reference.methods import calibration_loss
from reference.softmax import target_log_softmax


@calibration_loss(search={"gamma": (1.0, 5.0)})
def focal3(logits: Tensor, target: Tensor, *, gamma: float = 3.0) -> Tensor:
    r"""Focal loss with the fixed gamma that calibrates best by the authors, for logits (N, C) and target (N,); returns
    (N,).

    $$ -(1 - p_y)^3 \log p_y $$

    The loss is no less than cross-entropy minus gamma times the entropy of p: it keeps probabilities from the corners.
    It is not proper. ``focal`` has the default of its inventors, 2.
    """
    return focusing(target_log_softmax(logits, target), gamma)


@calibration_loss(search={"gamma": (1.0, 5.0)})
def flsd53(logits: Tensor, target: Tensor, *, gamma: float = 3.0) -> Tensor:
    r"""Focal loss whose gamma depends on the sample, for logits (N, C) and target (N,); returns (N,).

    $$ -(1 - p_y)^{\gamma(p_y)} \log p_y, \quad \gamma(p) = 5 \text{ for } p < 0.2, \; 3 \text{ for } p < 0.5, \;
    \gamma \text{ else} $$

    As in the authors' code, where the last gamma is 3 too. No gradient goes through the choice of gamma.
    """
    log_p = target_log_softmax(logits, target)
    p = log_p.detach().exp()
    focus = torch.where(p < 0.2, 5.0, torch.where(p < 0.5, 3.0, gamma))
    return focusing(log_p, focus.to(log_p.dtype))  # type: ignore[arg-type]


@calibration_loss()
def flsc531(logits: Tensor, target: Tensor, *, progress: Tensor) -> Tensor:
    r"""Focal loss whose gamma falls from 5 to 3 to 1 by thirds of the training, for logits (N, C) and target (N,);
    returns (N,).

    $$ -(1 - p_y)^{\gamma(t)} \log p_y, \quad \gamma(t) = 5 \text{ for } t < 1/3, \; 3 \text{ for } t < 2/3, \; 1
    \text{ else} $$

    t is progress, the share of the training that is done.
    """
    focus = 5.0 - 2.0 * (progress >= 1 / 3).to(logits.dtype) - 2.0 * (progress >= 2 / 3).to(logits.dtype)
    return focusing(target_log_softmax(logits, target), focus)  # type: ignore[arg-type]

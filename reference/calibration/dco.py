"""Direct coverage optimisation (Rethinking fine-tuning when scaling test-time compute, 2025, arXiv:2502.07154)."""

import torch
from torch import Tensor

from reference.methods import Range, calibration_loss
from reference.softmax import target_log_softmax

SMALL = -30.0  # log-probabilities below which (1 - p)^n is 1 - n p to rounding
HALF = -0.7


@calibration_loss(search={"samples": Range(2, 256, log=True)}, tags=("limited-confidence",))
def dco(logits: Tensor, target: Tensor, *, samples: float = 16) -> Tensor:
    r"""Minus the log-probability that one of n samples of the prediction is the label, for logits (N, C) and target
    (N,); returns (N,).

    $$ -\log \left( 1 - (1 - p_y)^n \right) $$

    n is samples; 1 is cross-entropy. The gradient of cross-entropy is weighted by n p (1 - p)^(n - 1) / (1 - (1 -
    p)^n), which fades from p = 1/n on: the more samples are drawn, the less confidence is asked for. The form is our
    conclusion from what the authors optimise, and the default is ours.
    """
    log_p = target_log_softmax(logits, target)
    kept = log_p.clamp(min=SMALL)
    miss = torch.finfo(log_p.dtype).tiny - torch.expm1(kept)
    log_miss = torch.where(kept < HALF, torch.log1p(-kept.clamp(max=HALF).exp()), miss.log())
    found = -torch.log(-torch.expm1(samples * log_miss))
    few = log_p.new_tensor(1.0) * samples  # a number or a tensor
    return torch.where(log_p < SMALL, -few.log() - log_p, found)

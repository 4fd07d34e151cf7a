"""Confidence penalty (Pereyra et al., ICLR workshop 2017, arXiv:1701.06548)."""

from torch import Tensor

from reference.methods import Range, calibration_loss
from reference.softmax import log_softmax, pick


@calibration_loss(search={"strength": Range(0.01, 2.0, log=True)}, tags=("penalty",))
def confidence_penalty(logits: Tensor, target: Tensor, *, strength: float = 0.1) -> Tensor:
    r"""Cross-entropy less a share of the entropy of the prediction, for logits (N, C) and target (N,); returns (N,).

    $$ -\log p_y - \beta H(p), \quad H(p) = -\sum_k p_k \log p_k $$

    Beta is strength. Predictions near a corner of the simplex have little entropy. Focal loss bounds such a loss from
    above.
    """
    log_p = log_softmax(logits)
    return strength * (log_p.exp() * log_p).sum(-1) - pick(log_p, target)

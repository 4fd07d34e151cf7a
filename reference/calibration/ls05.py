"""Label smoothing as it is set for calibration (Mukhoti et al., NeurIPS 2020, arXiv:2002.09437)."""

from torch import Tensor

from reference.methods import calibration_loss
from reference.softmax import log_softmax, pick


@calibration_loss(search={"softening": (0.01, 0.2)}, tags=("penalty",))
def ls05(logits: Tensor, target: Tensor, *, softening: float = 0.05) -> Tensor:
    r"""Cross-entropy against a label mixed with the uniform distribution, for logits (N, C) and target (N,); returns
    (N,).

    $$ -(1 - s) \log p_y - \frac{s}{C} \sum_k \log p_k $$

    s is the softening, 0.05 in the comparison of losses by Mukhoti et al.; ``ls`` is the same with the 0.1 of Szegedy
    et al. (CVPR 2016). The range is ours.
    """
    log_p = log_softmax(logits)
    return (softening - 1) * pick(log_p, target) - softening * log_p.mean(-1)

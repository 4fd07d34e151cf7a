"""Focal loss of every label (Lin et al., ICCV 2017, arXiv:1708.02002)."""

from torch import Tensor

from reference.losses.focal import focusing
from reference.methods import multilabel_loss
from reference.sigmoid import target_log_sigmoid


@multilabel_loss(search={"gamma": (0.0, 5.0)})
def mlfocal(logits: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    r"""Binary cross-entropy that fades for well predicted labels, for logits (N, L) and target (N, L); returns (N,).

    $$ -\frac{1}{L} \sum_l (1 - q_l)^\gamma \log q_l, \quad q_l = y_l p_l + (1 - y_l)(1 - p_l) $$

    Zero gamma is binary cross-entropy. The default is the authors'; their weight of the positives, 0.25 beside 0.75, is
    left out, as where the asymmetric loss is compared with it.
    """
    return focusing(target_log_sigmoid(logits, target), gamma).mean(-1)

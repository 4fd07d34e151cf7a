"""Ignore unobserved labels (Cole et al., CVPR 2021, arXiv:2106.09708)."""

from torch import Tensor

from reference.methods import multilabel_loss
from reference.sigmoid import negative_logs


@multilabel_loss(tags=("partial",))
def iu(logits: Tensor, target: Tensor, *, observed: Tensor) -> Tensor:
    r"""Binary cross-entropy of the known labels, for logits (N, L) and target (N, L); returns (N,).

    $$ -\frac{1}{L} \sum_l o_l \left[ y_l \log p_l + (1 - y_l) \log(1 - p_l) \right] $$

    o is 1 where a label is known, present or absent. Where only present ones are, nothing keeps it from predicting all
    labels everywhere. Given all absent labels, but only one present one, it is the authors' bound IUN.
    """
    present, absent = negative_logs(logits)
    return (target * present + observed * (1 - target) * absent).mean(-1)

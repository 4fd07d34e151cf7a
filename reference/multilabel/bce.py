"""Binary cross-entropy (Cox, Journal of the Royal Statistical Society B 1958)."""

from torch import Tensor

from reference.methods import multilabel_loss
from reference.sigmoid import target_log_sigmoid


@multilabel_loss(tags=("proper",))
def bce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Every label as a logistic regression of its own, for logits (N, L) and target (N, L); returns (N,).

    $$ -\frac{1}{L} \sum_l \left[ y_l \log p_l + (1 - y_l) \log(1 - p_l) \right] $$

    p is the sigmoid of the logits. The mean over labels, as in all losses here that say nothing else.
    """
    return -target_log_sigmoid(logits, target).mean(-1)

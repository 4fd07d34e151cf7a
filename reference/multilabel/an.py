"""Assume-negative losses for single positive labels (Cole et al., CVPR 2021, arXiv:2106.09708).

A row shows one of its labels, or some; the others are unknown. Logarithms are of p + 1e-5, as in the authors' code.
"""

from torch import Tensor

from reference.methods import multilabel_loss
from reference.sigmoid import negative_logs


@multilabel_loss(tags=("single-positive",))
def an(logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy that takes unknown labels for absent, for logits (N, L) and target (N, L); returns (N,).

    $$ -\frac{1}{L} \sum_l \left[ y_l \log p_l + (1 - y_l) \log(1 - p_l) \right] $$

    ``bce`` up to the 1e-5 added inside the logarithms, which bounds it.
    """
    present, absent = negative_logs(logits)
    return (target * present + (1 - target) * absent).mean(-1)


@multilabel_loss(search={"smoothing": (0.0, 0.4)}, tags=("single-positive",))
def an_ls(logits: Tensor, target: Tensor, *, smoothing: float = 0.1) -> Tensor:
    r"""Assume negative, with smoothed labels, for logits (N, L) and target (N, L); returns (N,).

    $$ -\frac{1}{L} \sum_l \left[ \tilde y_l \log p_l + (1 - \tilde y_l) \log(1 - p_l) \right], \quad
    \tilde y_l = (1 - \epsilon) y_l + \epsilon (1 - y_l) $$

    epsilon is the smoothing, each label's own chance of being other than it is taken for.
    """
    present, absent = negative_logs(logits)
    smoothed = (1 - smoothing) * target + smoothing * (1 - target)
    return (smoothed * present + (1 - smoothed) * absent).mean(-1)


@multilabel_loss(tags=("single-positive",))
def wan(logits: Tensor, target: Tensor, *, observed: Tensor) -> Tensor:
    r"""Weak assume negative: unknown labels weigh together as much as one, for logits (N, L) and target (N, L); returns
    (N,).

    $$ -\frac{1}{L} \sum_l \left[ y_l \log p_l + w_l (1 - y_l) \log(1 - p_l) \right], \quad
    w_l = \frac{1}{L - 1} \text{ if unknown, else } 1 $$

    With two labels it is ``an``. Labels that are known to be absent, which the authors do not have, keep their weight.
    """
    present, absent = negative_logs(logits)
    weight = observed + (1 - observed) / max(logits.shape[-1] - 1, 1)
    return (target * present + (1 - target) * weight * absent).mean(-1)

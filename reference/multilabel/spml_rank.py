"""Pairwise ranking for single positive labels (Cole et al., CVPR 2021, arXiv:2106.09708)."""

from torch import Tensor
from torch.nn.functional import relu

from reference.methods import multilabel_loss


@multilabel_loss(tags=("single-positive", "label-pairs"))
def spml_rank(logits: Tensor, target: Tensor) -> Tensor:
    r"""The hinge loss of every pair of a present label and another of the same sample, for logits (N, L) and target
    (N, L); returns (N,).

    $$ \frac{1}{L} \sum_{l : y_l = 1} \; \sum_{k : y_k = 0} \max(0, 1 - p_l + p_k) $$

    Of probabilities, whose difference is below the margin of 1 but for sure labels. A sample without labels, or with
    all, has neither loss nor gradient. Takes N L L numbers.
    """
    p = logits.sigmoid()
    pairs = target[..., :, None] * (1 - target[..., None, :])
    return (pairs * relu(1 - p[..., :, None] + p[..., None, :])).sum((-2, -1)) / logits.shape[-1]

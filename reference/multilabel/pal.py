"""Pick-all-labels softmax (Menon et al., Multilabel reductions, NeurIPS 2019)."""

from torch import Tensor

from reference.methods import multilabel_loss
from reference.softmax import log_softmax


@multilabel_loss()
def pal(logits: Tensor, target: Tensor) -> Tensor:
    r"""Softmax cross-entropy of every label that a sample has, for logits (N, L) and target (N, L); returns (N,).

    $$ -\sum_{l : y_l = 1} \log \frac{e^{z_l}}{\sum_k e^{z_k}} $$

    The sum over a sample's labels, as it is written; a sample without labels has neither loss nor gradient. The labels
    of one sample compete with each other, which ``dsm`` mends.
    """
    return -(target * log_softmax(logits)).sum(-1)


@multilabel_loss()
def pal_n(logits: Tensor, target: Tensor) -> Tensor:
    r"""The mean softmax cross-entropy of the labels that a sample has, for logits (N, L) and target (N, L); returns
    (N,).

    $$ -\frac{1}{|P|} \sum_{l \in P} \log \frac{e^{z_l}}{\sum_k e^{z_k}}, \quad P = \{ l : y_l = 1 \} $$

    ``pal`` normalized by the number of labels; a sample without labels has neither loss nor gradient.
    """
    return pal(logits, target) / target.sum(-1).clamp(min=1)

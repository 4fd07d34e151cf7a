"""Surrogates of macro-AUC (Wu, Li & Yin, ICML 2023, arXiv:2305.05248), with the logistic base loss."""

from torch import Tensor
from torch.nn.functional import softplus

from reference.methods import multilabel_loss


@multilabel_loss(batchwise=True)
def auc_pa(logits: Tensor, target: Tensor) -> Tensor:
    r"""The logistic loss of every pair of a sample with the label and one without it, for logits (N, L) and target
    (N, L); returns a scalar.

    $$ \frac{1}{L} \sum_l \frac{1}{|S^+_l| |S^-_l|} \sum_{i \in S^+_l} \sum_{j \in S^-_l}
    \log \left( 1 + e^{z_{jl} - z_{il}} \right) $$

    The pairs are those of the batch, and a label that has no pair adds 0. Only differences between samples count: the
    probabilities mean nothing. Takes N N L numbers.
    """
    pairs = target[..., :, None, :] * (1 - target[..., None, :, :])
    ranks = softplus(logits[..., None, :, :] - logits[..., :, None, :])
    count = pairs.sum((-3, -2)).clamp(min=1)
    return ((pairs * ranks).sum((-3, -2)) / count).mean()


@multilabel_loss()
def auc_u1(logits: Tensor, target: Tensor) -> Tensor:
    r"""The univariate surrogate: the logistic loss of every label, for logits (N, L) and target (N, L); returns (N,).

    $$ \frac{1}{L} \sum_l \log \left( 1 + e^{-y'_l z_l} \right), \quad y'_l = 2 y_l - 1 $$

    With this base loss it is ``bce``, under the name that its authors compare it by.
    """
    return softplus(logits * (1 - 2 * target)).mean(-1)


@multilabel_loss(batchwise=True)
def auc_u2(logits: Tensor, target: Tensor) -> Tensor:
    r"""The reweighted univariate surrogate, in which both sides of every label weigh the same, for logits (N, L) and
    target (N, L); returns a scalar.

    $$ \frac{1}{L} \sum_l \left[ \frac{1}{|S^+_l|} \sum_{i \in S^+_l} \log \left( 1 + e^{-z_{il}} \right)
    + \frac{1}{|S^-_l|} \sum_{j \in S^-_l} \log \left( 1 + e^{z_{jl}} \right) \right] $$

    The sides are those of the batch, and an empty one adds 0. ``wbce`` weighs by the counts of all training rows
    instead: its default is half the mean of this over everything.
    """
    absent = 1 - target
    values = softplus(logits * (absent - target))
    sides = [(side * values).sum(-2) / side.sum(-2).clamp(min=1) for side in (target, absent)]
    return (sides[0] + sides[1]).mean()

"""Squentropy (Hui, Belkin & Wright, ICML 2023, arXiv:2302.03952)."""

from torch import Tensor

from reference.losses.rsq import other_squares
from reference.methods import loss
from reference.softmax import target_log_softmax


@loss(tags=("calibration",))
def sqen(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy plus the mean squared logit of the other classes, for logits (N, C) and target (N,); returns (N,).

    $$ -\log p_y + \frac{1}{C - 1} \sum_{j \neq y} z_j^2 $$

    z are the logits. The second term draws the logits of the other classes to zero and bounds them, so that the loss
    depends on a common shift. It has no hyperparameters, and the authors train it with the learning rate of
    cross-entropy.
    """
    return other_squares(logits, target) / (logits.shape[-1] - 1) - target_log_softmax(logits, target)

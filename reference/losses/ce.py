"""Cross-entropy, the negative log-likelihood of the softmax model (Cox, JRSS B 1958)."""

from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


@loss(tags=("proper",))
def ce(logits: Tensor, target: Tensor) -> Tensor:
    r"""Minus the log-probability of the target, for logits (N, C) and integer target (N,); returns (N,).

    $$ -\log p_y $$

    Strictly proper, unbounded: one confidently mislabelled sample can have any weight.
    """
    return -target_log_softmax(logits, target)

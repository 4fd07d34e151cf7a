"""Mean squared error of probabilities, the Brier score (Brier, Monthly Weather Review 1950)."""

from torch import Tensor

from reference.methods import loss
from reference.softmax import pick, softmax


@loss(bounded=True, tags=("proper",))
def mse(logits: Tensor, target: Tensor) -> Tensor:
    r"""Squared distance of the predicted from the one-hot distribution, for logits (N, C) and target (N,); returns
    (N,).

    $$ \sum_k \left( p_k - [k = y] \right)^2 $$

    Strictly proper and bounded by 2. The sum over classes is not divided by C.
    """
    p = softmax(logits)
    target_p = pick(p, target)
    # The bracket is the other classes' share: rounded, a sum of squares is never less than one of them.
    return ((p * p).sum(-1) - target_p * target_p) + (1 - target_p) ** 2

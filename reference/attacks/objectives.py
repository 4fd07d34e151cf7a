"""What attacks make large: functions of logits (N, C) and labels (N,) with values (N,).

The margin, cross-entropy, and the difference of logits ratio (Croce & Hein, ICML 2020, arXiv:2003.01690), which neither
a shift nor a scale of the logits changes.
"""

import torch
from torch import Tensor

from reference.softmax import pick, target_log_softmax

TINY = 1e-12  # keeps the ratio finite where all logits are equal


def right(logits: Tensor, target: Tensor) -> Tensor:
    """Whether the label has the largest logit, alone: (N,), bool. Ties and NaN are wrong.

    >>> right(torch.tensor([[1.0, 2.0], [2.0, 2.0]]), torch.tensor([1, 1])).tolist()
    [True, False]
    """
    own = logits.gather(1, target[:, None])
    return (logits < own).sum(1) == logits.shape[1] - 1


def ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy (N,)."""
    return -target_log_softmax(logits, target)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """By how much the largest logit of another class exceeds the label's: (N,), positive where misclassified."""
    own = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return logits.masked_fill(own, -torch.inf).amax(1) - pick(logits, target)


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """The margin over the gap between the first and the third of the logits: (N,). Needs three classes."""
    ordered = logits.topk(3, 1).values
    return margin(logits, target) / (ordered[:, 0] - ordered[:, 2] + TINY)


def targeted_dlr(logits: Tensor, target: Tensor, wanted: Tensor) -> Tensor:
    """The excess of the logit of the ``wanted`` class (N,) over the label's, divided by the gap between the first and
    the mean of the third and fourth: (N,). Needs four classes."""
    ordered = logits.topk(4, 1).values
    gap = ordered[:, 0] - ordered[:, 2:].mean(1)
    return (pick(logits, wanted) - pick(logits, target)) / (gap + TINY)

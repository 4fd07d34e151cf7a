"""The steps that nearly every multi-label loss begins with, stable at every logit."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LEAST = 1e-5  # what the code of Cole et al. (CVPR 2021) adds to probabilities inside logarithms


def target_log_sigmoid(logits: Tensor, target: Tensor) -> Tensor:
    """The log-probability of each label's being as the target says, elementwise: log p where it is 1, else log(1 - p).

    >>> import torch
    >>> target_log_sigmoid(torch.tensor([0.0, -1e4]), torch.tensor([1.0, 1.0])).tolist()
    [-0.6931471824645996, -10000.0]
    """
    return logsigmoid(torch.where(target > 0, logits, -logits))


def negative_logs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """-log(p + 1e-5) and -log(1 - p + 1e-5), elementwise: at most 11.5, and without gradient far out."""
    return -(torch.sigmoid(logits) + LEAST).log(), -(torch.sigmoid(-logits) + LEAST).log()

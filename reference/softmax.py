"""The steps nearly every loss begins with, written so that they are fast in every memory layout.

``torch.log_softmax`` is slow over a short last dimension (up to 10 times at 10 classes) and in the class-major layout
in which fleets keep their logits; these few elementary operations vectorise over samples there.
"""

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, same shape; finite for every finite input.

    >>> import torch
    >>> log_softmax(torch.tensor([[1e4, -1e4]])).tolist()
    [[0.0, -20000.0]]
    """
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last dimension, same shape.

    >>> import torch
    >>> softmax(torch.tensor([[1e4, -1e4]])).tolist()
    [[1.0, 0.0]]
    """
    weights = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def pick(values: Tensor, target: Tensor) -> Tensor:
    """The entry of each row (N, C) at its target (N,): (N,).

    By a mask: the gradient of ``gather`` is a scatter, which no layout vectorises.
    """
    classes = torch.arange(values.shape[-1], device=values.device)
    own = (classes[:, None] == target[..., None, :]).mT  # in the layout of a fleet's logits
    return torch.where(own, values, 0).sum(-1)


def target_log_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """``pick(log_softmax(logits), target)`` without the log-probabilities of the other classes: (N,).

    >>> import torch
    >>> target_log_softmax(torch.tensor([[1e4, -1e4]]), torch.tensor([1])).tolist()
    [-20000.0]
    """
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return pick(shifted, target) - shifted.exp().sum(-1).log()

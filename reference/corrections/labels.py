"""The values of a loss against labels other than the sample's own: what most corrections begin with."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def against(base: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The losses (N, K) of logits (N, C) against K labels for each sample, labels (K, N).

    What the loss computes from the logits alone is computed once, not K times.
    """
    found: Tensor = torch.vmap(functools.partial(base, logits), out_dims=-1)(labels)
    return found


def against_all(base: Loss, logits: Tensor) -> Tensor:
    """The losses (N, C) of logits (N, C) against every label.

    >>> from reference.losses.mae import mae
    >>> against_all(mae, torch.zeros(1, 4)).tolist()
    [[1.5, 1.5, 1.5, 1.5]]
    """
    count, classes = logits.shape
    return against(base, logits, torch.arange(classes, device=logits.device)[:, None].expand(classes, count))

"""Uniform label noise as in the code of Zhu et al. (ICML 2023, arXiv:2112.14869)."""

import torch
from torch import Generator, Tensor


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """Each label (N,), with probability ``rate``, is drawn anew from all C classes, its own among them.

    So a label changes with probability rate (C - 1) / C. The paper's rates are 0.3, 0.6 and 0.9.
    """
    redrawn = torch.rand(labels.shape, generator=generator) < rate
    drawn = torch.randint(classes, labels.shape, generator=generator)
    return torch.where(redrawn, drawn, labels)


def transition(classes: int, rate: float, dataset: str) -> Tensor:
    """(1 - rate) I + rate / C: (C, C)."""
    return (1 - rate) * torch.eye(classes, dtype=torch.float64) + rate / classes

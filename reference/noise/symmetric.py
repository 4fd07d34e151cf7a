"""Symmetric label noise as in the code of Ma et al. (ICML 2020, arXiv:2006.13554)."""

import torch
from torch import Generator, Tensor

from reference.noise.maps import chosen


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """In each class of n samples exactly int(rate n), chosen at random, get one of the other C - 1 labels, uniformly.

    So a label changes with probability ``rate``, up to the rounding down. The authors choose int(rate N / C) samples in
    each class of a balanced data set; here n is the class's own size, which is the same there and keeps the rate equal
    in all classes elsewhere. The paper's rates are 0.2, 0.4, 0.6 and 0.8.
    """
    noisy = labels.clone()
    for y in range(classes):
        rows = chosen(labels, y, rate, generator)
        noisy[rows] = (y + torch.randint(1, classes, rows.shape, generator=generator)) % classes
    return noisy


def transition(classes: int, rate: float, dataset: str) -> Tensor:
    """1 - rate on the diagonal, rate / (C - 1) elsewhere: (C, C). The counts of a draw are rounded down from it."""
    other = rate / (classes - 1)
    return torch.full((classes, classes), other, dtype=torch.float64).fill_diagonal_(1 - rate)

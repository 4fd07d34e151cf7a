"""Class maps: which class each class is mistaken for, and the noise that follows one."""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor


def class_map(pairs: dict[int, int], classes: int, dataset: str) -> Tensor:
    """The class each class is mistaken for (C,): that of ``pairs``, else itself.

    Raises:
        ValueError: the data set's map names a class that does not exist.
    """
    largest = max((*pairs, *pairs.values()))
    if largest >= classes:
        raise ValueError(f"the class map of '{dataset}' names class {largest}, but there are {classes} classes")
    confused = torch.arange(classes)
    confused[list(pairs)] = torch.tensor(list(pairs.values()))
    return confused


def swaps(*pairs: tuple[int, int]) -> dict[int, int]:
    """The map that exchanges the classes of each pair.

    >>> swaps((1, 3))
    {1: 3, 3: 1}
    """
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def cycles(*groups: Iterable[int]) -> dict[int, int]:
    """The map that sends each class of a group to the next, and the last to the first.

    >>> cycles((0, 1, 2), (3, 4))
    {0: 1, 1: 2, 2: 0, 3: 4, 4: 3}
    """
    orders = [tuple(group) for group in groups]
    return {a: b for order in orders for a, b in zip(order, (*order[1:], order[0]), strict=True)}


def follow(confused: Tensor, labels: Tensor, rate: float, generator: Generator) -> Tensor:
    """Each label (N,), with probability ``rate``, becomes the class it is mistaken for."""
    flipped = torch.rand(labels.shape, generator=generator) < rate
    return torch.where(flipped, confused[labels], labels)


def matrix(confused: Tensor, rate: float) -> Tensor:
    """The transition matrix (C, C) of :func:`follow`."""
    identity = torch.eye(len(confused), dtype=torch.float64)
    return (1 - rate) * identity + rate * identity[confused]


def chosen(labels: Tensor, y: int, rate: float, generator: Generator) -> Tensor:
    """The rows of int(rate n) samples, chosen at random without replacement among the n of class y."""
    rows = (labels == y).nonzero()[:, 0]
    count = int(rate * len(rows) + 1e-9)  # 0.29 * 100 is 28.999...
    return rows[torch.randperm(len(rows), generator=generator)[:count]]

"""Long tails: which rows are left when classes are cut to very different sizes."""

import torch
from torch import Generator, Tensor


def sizes(largest: int, classes: int, ratio: float) -> list[int]:
    """The sizes of the classes, from ``largest`` for class 0 to ``ratio`` times that for the last, exponentially.

    The profile of Cao et al. (NeurIPS 2019, arXiv:1906.07413); every class keeps at least one row.

    >>> sizes(100, 3, 0.01)
    [100, 10, 1]
    """
    last = max(classes - 1, 1)
    return [max(1, round(largest * ratio ** (k / last))) for k in range(classes)]


def exponential(labels: Tensor, classes: int, ratio: float, generator: Generator) -> Tensor:
    """The numbers of the rows (n,) that are left of rows with these labels (N,), in their order.

    Class 0 is cut to the size of the smallest class, so that every class has enough rows for its place. The rows of a
    class are drawn by the generator; a smaller ratio leaves some of the rows that a larger one leaves.

    Raises:
        ValueError: the ratio is not in (0, 1], or a class has no row.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"the ratio of the smallest class to the largest must be in (0, 1], found {ratio}")
    smallest = int(labels.bincount(minlength=classes).min())
    if smallest == 0:
        raise ValueError("a class has no row: nothing to cut the others by")
    order = torch.randperm(len(labels), generator=generator)
    kept = [order[labels[order] == k][:size] for k, size in enumerate(sizes(smallest, classes, ratio))]
    return torch.cat(kept).sort().values

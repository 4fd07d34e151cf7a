"""Which labels of multi-label rows are seen: all, one present label a row, or a random part.

What is seen depends on the labels and on the generator alone: the same seed shows the same. A row's targets for
training are its labels where they were seen, else 0: ``labels * observed``.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor


def everything(labels: Tensor, rate: float, generator: Generator) -> Tensor:
    """All ones; nothing is drawn."""
    return torch.ones_like(labels)


def single_positive(labels: Tensor, rate: float, generator: Generator) -> Tensor:
    """One present label of each row, uniformly chosen; a row without labels shows nothing (Cole et al., CVPR 2021)."""
    place = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    first = torch.where(labels > 0, place, 2.0).argmin(-1, keepdim=True)
    return torch.zeros_like(labels).scatter(-1, first, 1) * labels


def random_entries(labels: Tensor, rate: float, generator: Generator) -> Tensor:
    """Each entry is hidden with probability ``rate``, whatever it is (Durand et al., CVPR 2019)."""
    return (torch.rand(labels.shape, generator=generator, dtype=torch.float64) >= rate).to(labels)


def random_positives(labels: Tensor, rate: float, generator: Generator) -> Tensor:
    """Each present label is hidden with probability ``rate``; of absent ones none is seen."""
    return random_entries(labels, rate, generator) * labels


# kind -> function of (labels, rate, generator)
KINDS: dict[str, Callable[[Tensor, float, Generator], Tensor]] = {
    "everything": everything,
    "random_entries": random_entries,
    "random_positives": random_positives,
    "single_positive": single_positive,
}


def observed(kind: str, labels: Tensor, *, rate: float = 0.0, generator: Generator) -> Tensor:
    """1 where a label (N, L), 0 or 1, is seen, else 0: (N, L) in the labels' dtype.

    >>> import torch
    >>> observed("single_positive", torch.tensor([[0, 1, 0], [0, 0, 0]]), generator=torch.Generator())
    tensor([[0, 1, 0],
            [0, 0, 0]])

    Args:
        rate: how much is hidden, 0 to 1, in the kinds that say so.

    Raises:
        ValueError: an unknown kind, a rate out of range, or labels other than 0 and 1.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of partial labels '{kind}'; there are: {', '.join(KINDS)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of hidden labels must be between 0 and 1, found {rate}")
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(f"labels must be 0 or 1, found {labels.unique().tolist()[:5]}")
    return KINDS[kind](labels, rate, generator)

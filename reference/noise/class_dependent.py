"""Class-dependent label noise as in the code of Zhu et al. (ICML 2023, arXiv:2112.14869)."""

import torch
from torch import Generator, Tensor

from reference.noise.maps import class_map, follow, matrix, swaps

# Classes from 0 on; letters A to Z: B-D, C-G, E-F, H-N, I-L, K-X, M-W, O-Q, P-R, U-V.
PAIRS = {
    "letter": swaps((1, 3), (2, 6), (4, 5), (7, 13), (8, 11), (10, 23), (12, 22), (14, 16), (15, 17), (20, 21)),
    "news20": swaps((2, 5), (3, 4), (7, 8), (9, 10), (11, 12), (15, 18)),
    "vowel": swaps((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
}


def confusions(dataset: str, classes: int) -> Tensor:
    """The class each class is mistaken for (C,): a similar one if the data set has pairs of them, else the next."""
    if dataset in PAIRS:
        return class_map(PAIRS[dataset], classes, dataset)
    return (torch.arange(classes) + 1) % classes


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """Each label (N,), with probability ``rate``, becomes the class it is mistaken for.

    'letter', 'news20' and 'vowel' exchange pairs of similar classes and leave the others; every other data set maps y
    to y + 1 mod C. At rate 0.5 the classes of a pair cannot be told apart; the rates in use are 0.1, 0.3 and 0.4.
    """
    return follow(confusions(dataset, classes), labels, rate, generator)


def transition(classes: int, rate: float, dataset: str) -> Tensor:
    """(1 - rate) I + rate P, P the data set's map: (C, C)."""
    return matrix(confusions(dataset, classes), rate)

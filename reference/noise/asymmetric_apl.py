"""Asymmetric label noise as the released code of Ma et al. (ICML 2020, arXiv:2006.13554) makes it.

Only where it is not what the paper describes, which is 'asymmetric'.
"""

import torch
from torch import Generator, Tensor

from reference.noise.asymmetric import MAPS, SAME_CLASSES
from reference.noise.maps import chosen, class_map, cycles, follow, matrix

ORDER = (9, 2, 3, 5, 4)  # in which the code flips the classes of CIFAR-10
BLOCKS = cycles(*(range(first, first + 5) for first in range(0, 100, 5)))


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """Labels (N,) of some classes become that of another class.

    On 'cifar10' the classes are flipped one after the other, in place: int(rate n) of the n samples that have the label
    by then. So a cat that became a dog may become a cat again: cat -> dog happens at ``rate`` (1 - ``rate``). On
    'cifar100' each label, with probability ``rate``, becomes the next of its block of five consecutive classes, which
    are not the superclasses, since the classes are in alphabetical order.

    Raises:
        ValueError: another data set, on which the code does what the paper says.
    """
    if _named(dataset) == "cifar100":
        return follow(class_map(BLOCKS, classes, dataset), labels, rate, generator)
    confused = class_map(MAPS["cifar10"], classes, dataset)
    noisy = labels.clone()
    for source in ORDER:
        noisy[chosen(noisy, source, rate, generator)] = confused[source]
    return noisy


def transition(classes: int, rate: float, dataset: str) -> Tensor:
    """(1 - rate) I + rate P on 'cifar100', P its blocks; on 'cifar10' a product of such, one a class: (C, C)."""
    if _named(dataset) == "cifar100":
        return matrix(class_map(BLOCKS, classes, dataset), rate)
    steps = [matrix(class_map({source: MAPS["cifar10"][source]}, classes, dataset), rate) for source in ORDER]
    return torch.linalg.multi_dot(steps)


def _named(dataset: str) -> str:
    name = SAME_CLASSES.get(dataset, dataset)
    if name not in ("cifar10", "cifar100"):
        raise ValueError(f"'asymmetric_apl' noise is for cifar10 and cifar100; use 'asymmetric' for '{dataset}'")
    return name

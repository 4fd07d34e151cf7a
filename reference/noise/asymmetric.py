"""Asymmetric label noise of Ma et al. (ICML 2020, arXiv:2006.13554)."""

from torch import Generator, Tensor

from reference.noise import class_dependent
from reference.noise.maps import chosen, class_map, cycles, follow, matrix
from reference.noise.superclasses import CIFAR100

# Source class -> the class it is mistaken for.
MAPS = {
    "cifar10": {9: 1, 2: 0, 3: 5, 5: 3, 4: 7},  # truck, bird, cat and dog, deer
    "cifar100": cycles(*CIFAR100),
    "mnist": {7: 1, 2: 7, 5: 6, 6: 5, 3: 8},
}
# Data sets with the classes of another one.
SAME_CLASSES = {"cifar10_jpeg": "cifar10", "digits": "mnist", "pendigits": "mnist", "usps": "mnist"}
EXACT = ("cifar10",)  # where the number of flips in a class is exact, not drawn


def confusions(dataset: str, classes: int) -> Tensor:
    """The class each class is mistaken for (C,): that of the data set's map, else as in class-dependent noise."""
    name = SAME_CLASSES.get(dataset, dataset)
    return class_map(MAPS[name], classes, dataset) if name in MAPS else class_dependent.confusions(dataset, classes)


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """Labels (N,) of some classes become that of a similar class, never the reverse unless the map says so.

    On 'mnist', and other handwritten digits, 7 -> 1, 2 -> 7, 5 <-> 6 and 3 -> 8, each label with probability ``rate``.
    On 'cifar10' truck -> automobile, bird -> airplane, cat <-> dog and deer -> horse, exactly int(rate n) of the n
    samples of each source class, all chosen by their clean labels. On 'cifar100' each class, with probability ``rate``,
    becomes the next of its superclass, the last the first. A data set without a published map has that of
    class-dependent noise, y -> y + 1 mod C if there is none either. The authors' rates are 0.1 to 0.4; what their code
    does instead on the CIFAR sets is 'asymmetric_apl'.
    """
    confused = confusions(dataset, classes)
    name = SAME_CLASSES.get(dataset, dataset)
    if name not in EXACT:
        return follow(confused, labels, rate, generator)
    noisy = labels.clone()
    for source in MAPS[name]:
        noisy[chosen(labels, source, rate, generator)] = confused[source]
    return noisy


def transition(classes: int, rate: float, dataset: str) -> Tensor:
    """(1 - rate) I + rate P, P the data set's map: (C, C)."""
    return matrix(confusions(dataset, classes), rate)

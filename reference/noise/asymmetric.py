"""Asymmetric label noise of Ma et al. (ICML 2020, arXiv:2006.13554)."""

from torch import Generator, Tensor

from reference.noise.maps import chosen, class_map, follow, matrix

# Source class -> the class it is mistaken for.
MAPS = {
    "cifar10": {9: 1, 2: 0, 3: 5, 5: 3, 4: 7},  # truck, bird, cat and dog, deer
    "mnist": {7: 1, 2: 7, 5: 6, 6: 5, 3: 8},
}
EXACT = ("cifar10",)  # where the number of flips in a class is exact, not drawn


def confusions(dataset: str, classes: int) -> Tensor:
    """The class each class is mistaken for (C,).

    Raises:
        ValueError: the data set has no map.
    """
    if dataset not in MAPS:
        raise ValueError(f"no asymmetric noise for '{dataset}'; there is a class map for: {', '.join(MAPS)}")
    return class_map(MAPS[dataset], classes, dataset)


def corrupt(
    labels: Tensor, classes: int, rate: float, dataset: str, generator: Generator, features: Tensor | None = None
) -> Tensor:
    """Labels (N,) of some classes become that of a similar class, never the reverse unless the map says so.

    On 'mnist' 7 -> 1, 2 -> 7, 5 <-> 6 and 3 -> 8, each label with probability ``rate``. On 'cifar10' truck ->
    automobile, bird -> airplane, cat <-> dog and deer -> horse, exactly int(rate n) of the n samples of each source
    class, all chosen by their clean labels; the authors' code flips class after class in place, so that a cat made a
    dog can be flipped back. Their rates are 0.1 to 0.4.
    """
    confused = confusions(dataset, classes)
    if dataset not in EXACT:
        return follow(confused, labels, rate, generator)
    noisy = labels.clone()
    for source in MAPS[dataset]:
        noisy[chosen(labels, source, rate, generator)] = confused[source]
    return noisy


def transition(classes: int, rate: float, dataset: str) -> Tensor:
    """(1 - rate) I + rate P, P the data set's map: (C, C)."""
    return matrix(confusions(dataset, classes), rate)

"""Label-noise models: what happens to the training and validation labels of a data set. Test labels stay clean.

Every kind is one file with one function, which draws from the given generator alone: the same seed gives the same
labels. The rate is nominal; each kind says how often a label really changes.
"""

from collections.abc import Callable

from torch import Generator, Tensor

from reference.noise import (
    asymmetric,
    asymmetric_apl,
    class_dependent,
    clean,
    human,
    instance,
    symmetric,
    uniform_ldr,
)

# kind -> function of (labels, classes, rate, dataset, generator, features, people)
KINDS: dict[str, Callable[[Tensor, int, float, str, Generator, Tensor | None, Tensor | None], Tensor]] = {
    "asymmetric": asymmetric.corrupt,
    "asymmetric_apl": asymmetric_apl.corrupt,
    "class_dependent": class_dependent.corrupt,
    "clean": clean.corrupt,
    **{f"human_{name}": human.corrupt for name in human.SETS},
    "instance": instance.corrupt,
    "symmetric": symmetric.corrupt,
    "uniform_ldr": uniform_ldr.corrupt,
}

# kind -> function of (classes, rate, dataset); not for noise that depends on the sample
TRANSITIONS: dict[str, Callable[[int, float, str], Tensor]] = {
    "asymmetric": asymmetric.transition,
    "asymmetric_apl": asymmetric_apl.transition,
    "class_dependent": class_dependent.transition,
    "clean": clean.transition,
    "symmetric": symmetric.transition,
    "uniform_ldr": uniform_ldr.transition,
}


def corrupt(
    kind: str,
    labels: Tensor,
    classes: int,
    *,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """Noisy labels (N,) for the labels (N,), int64 in 0..classes-1, which are left as they are.

    >>> import torch
    >>> corrupt("uniform_ldr", torch.tensor([0, 1, 2]), 3, rate=0.0, dataset="vowel", generator=Generator())
    tensor([0, 1, 2])

    Args:
        rate: the nominal noise rate, 0 to 1; 0 changes nothing, whatever the kind.
        dataset: which classes are confused in the kinds that have a map for each data set.
        features: (N, d), one row for each label, for instance-dependent noise.
        people: (N,), what people said of each sample, for the kinds that end in the name of such labels.

    Raises:
        ValueError: an unknown kind, a rate or label out of range, features or labels of people that are missing or of
            another length, or a data set that the kind has no map for.
    """
    _check(kind, classes, rate)
    _check_range(labels, classes)
    if features is not None and len(features) != len(labels):
        raise ValueError(f"{len(features)} rows of features for {len(labels)} labels")
    if people is not None:
        _check_range(people, classes)
        if len(people) != len(labels):
            raise ValueError(f"{len(people)} labels of people for {len(labels)} labels")
    if rate == 0:
        return labels.clone()
    return KINDS[kind](labels, classes, rate, dataset, generator, features, people)


def transition(kind: str, classes: int, rate: float, dataset: str) -> Tensor:
    """The probability of each noisy label given the clean one: (C, C) in float64, a row for each clean label.

    >>> transition("uniform_ldr", 2, 0.5, "vowel")
    tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]], dtype=torch.float64)

    Raises:
        ValueError: as :func:`corrupt`, and for noise that depends on the sample.
    """
    _check(kind, classes, rate)
    if kind not in TRANSITIONS:
        raise ValueError(f"'{kind}' noise depends on the sample: it has no transition matrix")
    return TRANSITIONS[kind](classes, rate, dataset)


def _check_range(labels: Tensor, classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"labels must be in 0..{classes - 1}, found {outside.unique().tolist()[:5]}")


def _check(kind: str, classes: int, rate: float) -> None:
    if kind not in KINDS:
        raise ValueError(f"no kind of label noise '{kind}'; there are: {', '.join(KINDS)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"the noise rate must be between 0 and 1, found {rate}")
    if classes < 2:
        raise ValueError(f"label noise needs at least 2 classes, found {classes}")

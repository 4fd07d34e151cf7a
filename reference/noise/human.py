"""The mistakes of people (Wei et al., Learning with Noisy Labels Revisited, ICLR 2022, arXiv:2110.12088).

CIFAR-10N has three labels of each training image (random1, random2, random3), their majority (aggre) and one of the
wrong ones where there is one (worst); CIFAR-100N has one label of each (noisy).
"""

from torch import Generator, Tensor

SETS = ("aggre", "noisy", "random1", "random2", "random3", "worst")


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """A copy of what ``people`` said (N,), row for row of the labels (N,); nothing is drawn.

    So the rate is what it is, and is only declared here: whoever brings the labels checks it over all of them, since a
    part of the rows has more or fewer mistakes.

    Raises:
        ValueError: there are no labels of people.
    """
    if people is None:
        raise ValueError("labels of people must be given: this noise is not drawn")
    return people.clone()

"""Instance-dependent label noise (Xia et al., Part-dependent Label Noise, NeurIPS 2020, arXiv:2006.07836)."""

import torch
from torch import Generator, Tensor

SPREAD = 0.1  # standard deviation of the samples' own rates
CHUNK_ROWS = 1024  # bounds the memory for features and class scores in float64


def corrupt(
    labels: Tensor,
    classes: int,
    rate: float,
    dataset: str,
    generator: Generator,
    features: Tensor | None = None,
    people: Tensor | None = None,
) -> Tensor:
    """Each sample (N,) is mislabelled at its own rate, most likely as the class that a random projection finds in it.

    The rates are normal around ``rate`` with standard deviation 0.1, truncated to [0, 1], so that their mean departs
    from ``rate`` near 0 and 1. Each clean class has a matrix (d, C) of standard normals, which maps the features (N, d)
    to class scores; a label that flips is drawn from the softmax of the other classes' scores. Features should be
    normalised: the larger they are, the more surely one class is drawn. The authors' rates are 0.1 to 0.5.

    Raises:
        ValueError: there are no features.
    """
    if features is None:
        raise ValueError("'instance' noise needs features (N, d)")
    features = features.flatten(1)
    flipped = torch.rand(labels.shape, generator=generator) < own_rates(rate, len(labels), generator)
    place = torch.rand(labels.shape, generator=generator)
    noisy = labels.clone()
    for y in range(classes):
        projection = torch.randn(features.shape[1], classes, generator=generator).double()
        for rows in (flipped & (labels == y)).nonzero()[:, 0].split(CHUNK_ROWS):
            # In float64: how a product is summed depends on threads and processors, and must not decide a label.
            scores = features[rows].double() @ projection
            scores[:, y] = -torch.inf
            noisy[rows] = drawn(scores.softmax(-1), place[rows])
    return noisy


def own_rates(rate: float, count: int, generator: Generator) -> Tensor:
    """Truncated normal rates (count,) in [0, 1], float64, by the inverse of the distribution function."""
    ends = torch.special.ndtr((torch.tensor([0.0, 1.0], dtype=torch.float64) - rate) / SPREAD)
    quantile = ends[0] + (ends[1] - ends[0]) * torch.rand(count, generator=generator, dtype=torch.float64)
    return (rate + SPREAD * torch.special.ndtri(quantile)).clamp(0, 1)


def drawn(p: Tensor, place: Tensor) -> Tensor:
    """The class of each row of float64 probabilities (N, C) at a uniform float32 place (N,) in [0, 1)."""
    cumulative = p.cumsum(-1)
    # Relative to the last sum, which no float32 below 1 reaches by rounding in float64.
    return torch.searchsorted(cumulative, (place * cumulative[:, -1])[:, None], right=True)[:, 0]

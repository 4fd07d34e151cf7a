"""Calibration of every class, not of the predicted one alone: in bins of each class's own probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reference.metrics.bins import BINS
from reference.metrics.predictions import in_chunks


@dataclass(frozen=True)
class ClassBins:
    """Sums over the samples whose probability of a class is in a bin, all (C, B) and float64."""

    samples: int
    count: Tensor
    p: Tensor
    squares: Tensor  # of p
    labels: Tensor  # how many have the class as their target
    hits: Tensor  # sum of p over those

    @property
    def ece(self) -> float:
        """Classwise expected calibration error (Kull et al., NeurIPS 2019, arXiv:1910.12656): the mean over classes."""
        return float((self.p - self.labels).abs().sum()) / (len(self.p) * self.samples)

    @property
    def brier(self) -> float:
        """The Brier score of the binned probabilities, which are all where no threshold was set."""
        return float((self.squares - 2 * self.hits + self.labels).sum()) / self.samples

    @property
    def sharpness(self) -> float:
        """Mean over samples of sum_k p_k^2."""
        return float(self.squares.sum()) / self.samples


def class_bins(log_p: Tensor, target: Tensor, bins: int = BINS, *, threshold: float = -1.0) -> ClassBins:
    """Bins of equal width, open below and closed above, of every class's probability.

    Args:
        log_p: (N, C), target: (N,).
        threshold: probabilities that are not above it are left out.
    """
    classes = log_p.shape[1]
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    offset = torch.arange(classes) * bins
    sums = torch.zeros(5, classes * bins, dtype=torch.float64)
    for p, labels in in_chunks(log_p, target):
        place, own = torch.bucketize(p.contiguous(), edges) + offset, p.gather(1, labels[:, None])[:, 0]
        row = torch.arange(len(p))
        parts = ((place, None, p), (place, p, p), (place, p.square(), p), (place[row, labels], None, own))
        for total, (where, weights, values) in zip(sums, (*parts, (place[row, labels], own, own)), strict=True):
            total += _count(where, weights, values, threshold, len(total))
    return ClassBins(len(target), *sums.reshape(5, classes, bins))


def _count(place: Tensor, weights: Tensor | None, p: Tensor, threshold: float, size: int) -> Tensor:
    """Sums of weights (or 1) by place, over the entries whose p is above the threshold."""
    if threshold >= 0:
        kept = p > threshold
        place, weights = place[kept], None if weights is None else weights[kept]
    return torch.bincount(place.flatten(), None if weights is None else weights.flatten(), size).double()


def classwise_ece(log_p: Tensor, target: Tensor, bins: int = BINS, *, threshold: float = -1.0) -> float:
    """Mean over classes k of sum_b (n_bk / N) |share of class k - mean p_k|, for log-probabilities (N, C).

    With many classes nearly all probabilities are in the first bin; ``threshold`` = 1 / C leaves the small ones out.
    """
    return class_bins(log_p, target, bins, threshold=threshold).ece


@dataclass(frozen=True)
class Decomposition:
    """The Brier score as reliability - resolution + uncertainty + within, each summed over the classes."""

    reliability: float  # 0 if calibrated in every bin
    resolution: float  # how far the bins' label shares lie from the overall ones: large is good
    uncertainty: float  # of the labels alone
    within: float  # what bins hide: 0 where all probabilities of a bin are the same

    @property
    def brier(self) -> float:
        """The four terms together."""
        return self.reliability - self.resolution + self.uncertainty + self.within


def decomposition(found: ClassBins) -> Decomposition:
    """Murphy's decomposition of the Brier score (J. Applied Meteorology 1973), exact over bins with a fourth term.

    That term (Stephenson et al., Weather and Forecasting 2008) is the variance of p within bins less twice its
    covariance with the labels, summed over classes.
    """
    n, count = found.samples, found.count.clamp(min=1)
    mean, share, base = found.p / count, found.labels / count, found.labels.sum(1, keepdim=True) / n
    variance = found.squares - count * mean**2
    covariance = found.hits - count * mean * share
    return Decomposition(
        reliability=float((found.count * (mean - share) ** 2).sum()) / n,
        resolution=float((found.count * (share - base) ** 2).sum()) / n,
        uncertainty=float((base * (1 - base)).sum()),
        within=float((variance - 2 * covariance).sum()) / n,
    )

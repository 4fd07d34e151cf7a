"""Confidence and accuracy in bins, and the calibration errors that are sums over bins.

Sums are in float64. The order of samples never matters: equal confidences are always in the same bin.

    >>> import torch
    >>> bins = equal_width(torch.tensor([0.9, 0.9, 0.6]), torch.tensor([1.0, 0.0, 1.0]), 10)
    >>> round(bins.ece, 3), round(bins.mce, 3), int(bins.count.sum())
    (0.4, 0.4, 3)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Bins:
    """Sums over the samples of each bin that has any, all (B,) and float64."""

    count: Tensor
    confidence: Tensor
    right: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of right predictions in each bin (B,)."""
        return self.right / self.count

    @property
    def gap(self) -> Tensor:
        """Mean confidence less accuracy in each bin (B,): positive where predictions are too sure."""
        return (self.confidence - self.right) / self.count

    @property
    def share(self) -> Tensor:
        """How much of all samples each bin has (B,)."""
        return self.count / self.count.sum()

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017): the mean absolute gap."""
        return float((self.share * self.gap.abs()).sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error (Naeini et al., AAAI 2015): the largest gap, however few samples it has."""
        return float(self.gap.abs().max())

    @property
    def ace(self) -> float:
        """Average calibration error (Neumann et al., 2018): every bin counts the same."""
        return float(self.gap.abs().mean())

    @property
    def l2(self) -> float:
        """Root of the mean squared gap."""
        return math.sqrt(float((self.share * self.gap**2).sum()))

    @property
    def squared_debiased(self) -> float:
        """Mean squared gap without its bias (Kumar et al., NeurIPS 2019, arXiv:1909.10155); may be negative.

        The variance of each bin's accuracy, a (1 - a) / (n - 1), is taken off; bins of one sample count as 0.
        """
        several = self.count >= 2
        variance = self.accuracy * (1 - self.accuracy) / (self.count - 1).clamp(min=1)
        return float((self.share * (self.gap**2 - variance))[several].sum())

    @property
    def l2_debiased(self) -> float:
        """Root of :attr:`squared_debiased`, 0 where that is negative."""
        return math.sqrt(max(self.squared_debiased, 0.0))

    @property
    def ece_debiased(self) -> float:
        """Twice the ECE less what it would be on average were each bin's accuracy redrawn (Kumar et al., 2019).

        Redrawn from a normal distribution of the bin's standard error s, the absolute gap has mean
        s sqrt(2 / pi) exp(-g^2 / 2 s^2) + g erf(g / s sqrt 2): the authors' code averages 1,000 draws instead.
        """
        error = (self.accuracy * (1 - self.accuracy) / self.count).sqrt()
        gap = self.gap.abs()
        ratio = gap / error.clamp(min=torch.finfo(torch.float64).tiny)
        redrawn = error * math.sqrt(2 / math.pi) * torch.exp(-(ratio**2) / 2) + gap * torch.erf(ratio / math.sqrt(2))
        return 2 * self.ece - float((self.share * redrawn).sum())


def in_bins(place: Tensor, confidence: Tensor, right: Tensor, bins: int) -> Bins:
    """Sums of confidence (N,) and right (N,), 0 or 1, over the bins place (N,); bins without samples are left out."""
    count = torch.bincount(place, minlength=bins).double()
    sums = [torch.bincount(place, weights=part.double(), minlength=bins) for part in (confidence, right)]
    return Bins(*(part[count > 0] for part in (count, *sums)))


def equal_width(confidence: Tensor, right: Tensor, bins: int = BINS, *, closed: str = "above") -> Bins:
    """Bins of equal width over [0, 1] of confidence (N,) and right (N,).

    Args:
        closed: "above" for bins (k/B, (k+1)/B], the usual definition; "below" for [k/B, (k+1)/B), as some libraries
            have it. The outermost bins have both their ends.
    """
    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins
    return in_bins(torch.bucketize(confidence.double(), edges, right=closed == "below"), confidence, right, bins)


def equal_mass(confidence: Tensor, right: Tensor, bins: int = BINS) -> Bins:
    """Bins of equal numbers of samples, one more in the first ones where they do not divide, of confidence (N,).

    An edge lies midway between the last confidence of a bin and the first of the next. Where both are the same, all
    samples with that confidence are in the lower bin.
    """
    ordered = confidence.double().sort().values
    edges = mass_edges(ordered, min(bins, len(ordered)))
    return in_bins(torch.bucketize(confidence.double(), edges), confidence, right, len(edges) + 1)


def mass_edges(ordered: Tensor, bins: int) -> Tensor:
    """The edges (bins - 1,) between bins of equal numbers of these ascending values (N,)."""
    part = torch.arange(1, bins, device=ordered.device)
    size, more = divmod(len(ordered), bins)
    first = part * size + part.clamp(max=more)  # of the next bin
    return (ordered[first - 1] + ordered[first]) / 2


def adaptive(confidence: Tensor, right: Tensor, bins: int = BINS) -> Bins:
    """Bins between interpolated quantiles (Mukhoti et al., NeurIPS 2020, arXiv:2002.09437, the authors' code).

    Edges are the sorted confidences at positions k N / B, interpolated. The authors' lowest bin is open below, so that
    it loses the smallest confidence; here it is closed.
    """
    ordered = confidence.double().sort().values
    position = torch.arange(1, bins, dtype=torch.float64, device=ordered.device) * len(ordered) / bins
    position = position.clamp(max=len(ordered) - 1)
    below = position.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    edges = torch.lerp(ordered[below], ordered[above], position - below)
    return in_bins(torch.bucketize(confidence.double(), edges), confidence, right, bins)


def monotone_sweep(confidence: Tensor, right: Tensor) -> Bins:
    """As many bins of equal mass as leave the accuracy non-decreasing (Roelofs et al., 2022, arXiv:2012.08668).

    The number of bins grows by one until accuracies first go down; the last number before that counts. Details of the
    sweep are recalled, not read.
    """
    order = confidence.argsort(stable=True)
    ordered, hits = confidence.double()[order], right.double()[order]
    found = 1
    while found < len(ordered) and _non_decreasing(ordered, hits, found + 1):
        found += 1
    return equal_mass(confidence, right, found)


def _non_decreasing(ordered: Tensor, hits: Tensor, bins: int) -> bool:
    """Whether the accuracy goes nowhere down over this many bins of equal mass of ascending confidences."""
    ends = torch.searchsorted(ordered, mass_edges(ordered, bins), right=True)
    total = torch.cat([hits.new_zeros(1), hits.cumsum(0)])
    ends = torch.cat([ends.new_zeros(1), ends, ends.new_tensor([len(hits)])]).unique_consecutive()
    accuracy = total[ends].diff() / ends.diff()
    return bool((accuracy.diff() >= 0).all())

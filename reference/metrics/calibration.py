"""Calibration errors of the predicted class: of log-probabilities (N, C) and targets (N,), in [0, 1].

Each is one property of :class:`reference.metrics.bins.Bins` over one kind of bins. All binned errors are biased
upwards, by an order of sqrt(bins / N) where predictions are calibrated: :func:`expected_if_calibrated` says how much.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reference.metrics.bins import BINS, Bins, adaptive, equal_mass, equal_width, monotone_sweep
from reference.metrics.predictions import top_label


def ece(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Expected calibration error in bins of equal width, open below and closed above (Guo et al., ICML 2017).

    >>> import torch
    >>> round(ece(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log(), torch.tensor([0, 0])), 3)
    0.45
    """
    return equal_width(*top_label(log_p, target), bins).ece


def ece_equal_mass(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Expected calibration error in bins of equal numbers of samples; ties stay together."""
    return equal_mass(*top_label(log_p, target), bins).ece


def adaptive_ece(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Expected calibration error between interpolated quantiles (Mukhoti et al., NeurIPS 2020, arXiv:2002.09437)."""
    return adaptive(*top_label(log_p, target), bins).ece


def sweep_ece(log_p: Tensor, target: Tensor) -> float:
    """Expected calibration error in as many bins of equal mass as keep accuracy monotone (Roelofs et al., 2022)."""
    return monotone_sweep(*top_label(log_p, target)).ece


def mce(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Maximum calibration error over bins of equal width."""
    return equal_width(*top_label(log_p, target), bins).mce


def ace(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Average gap over the bins of equal width that have samples."""
    return equal_width(*top_label(log_p, target), bins).ace


def l2_ece(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Root of the mean squared gap in bins of equal width."""
    return equal_width(*top_label(log_p, target), bins).l2


def debiased_l2(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """Root of the mean squared gap in bins of equal mass without its bias (Kumar et al., 2019, arXiv:1909.10155)."""
    return equal_mass(*top_label(log_p, target), bins).l2_debiased


def debiased_ece(log_p: Tensor, target: Tensor, bins: int = BINS) -> float:
    """ECE in bins of equal width less its estimated bias (Kumar et al., 2019); may be negative."""
    return equal_width(*top_label(log_p, target), bins).ece_debiased


def expected_if_calibrated(
    confidence: Tensor,
    error: Callable[[Tensor, Tensor], Bins],
    generator: torch.Generator,
    *,
    value: str = "ece",
    draws: int = 100,
) -> float:
    """The mean of a binned error of confidences (N,) were each prediction right with just its confidence.

    What an error of a real model is to be read against: it is 0 for no estimator.

    Args:
        error: makes bins of confidence and right (N,), such as ``equal_width``.
        value: which property of the bins.
        draws: how often all labels are drawn.
    """
    c = confidence.double()
    redrawn = ((torch.rand(len(c), generator=generator, dtype=torch.float64) < c).double() for _ in range(draws))
    return sum(float(getattr(error(c, right), value)) for right in redrawn) / draws

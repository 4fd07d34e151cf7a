"""Smooth ECE (Blasiok & Nakkiran, ICLR 2024, arXiv:2309.12236), in the discretisation of the authors' code.

No bins and no hyperparameter: the residual of confidence and correctness is smoothed by a Gaussian kernel that is
reflected at 0 and 1, with the one bandwidth at which the result is no larger than it.
"""

import math

import numpy as np
from scipy.signal import fftconvolve
from torch import Tensor

from reference.metrics.predictions import top_label

SMALLEST = 1e-3  # bandwidth: no result is resolved more finely
STEPS = 10  # of bisection: the bandwidth is known to 1e-3
DENSITY = 1e-4  # added to the smoothed density
NODES, POINTS = 2000, 200  # least numbers of nodes on twice the unit interval, and of points at which is summed


def smooth_ece(log_p: Tensor, target: Tensor) -> float:
    """Smooth ECE of the predicted class, for log-probabilities (N, C) and targets (N,).

    >>> import torch
    >>> log_p = torch.tensor([[0.9, 0.1]]).log().expand(100, 2)
    >>> abs(smooth_ece(log_p, torch.tensor(90 * [0] + 10 * [1]))) < 1e-6
    True
    """
    confidence, right = (part.numpy() for part in top_label(log_p, target))
    return smooth_error(confidence, confidence - right)


def smooth_error(confidence: np.ndarray, residual: np.ndarray) -> float:
    """Smooth ECE of residuals (N,), confidence less correctness, at confidences (N,) in [0, 1]."""
    return error_at(confidence, residual, bandwidth(confidence, residual))


def bandwidth(confidence: np.ndarray, residual: np.ndarray) -> float:
    """The least bandwidth in (0, 1] at which the error is not larger than it, from above and to 1/1024."""

    def too_small(sigma: float) -> bool:
        return sigma < SMALLEST or sigma < error_at(confidence, residual, sigma)

    if too_small(1.0):
        return 1.0
    large, small = 1.0, 0.0
    for _ in range(STEPS):
        middle = (large + small) / 2
        large, small = (large, middle) if too_small(middle) else (middle, small)
    return large


def error_at(confidence: np.ndarray, residual: np.ndarray, sigma: float) -> float:
    """Smooth ECE at one bandwidth: the integral of the absolute smoothed residual over that of the smoothed density."""
    nodes, points = max(NODES, round(20 / sigma)) // 2 + 1, max(round(10 / sigma), POINTS)
    at = np.linspace(0, 1, points) * (nodes - 1)
    grid = np.arange(nodes)
    error, density = (
        np.interp(at, grid, reflected(on_grid(confidence, weights, nodes), sigma))
        for weights in (residual, np.ones_like(residual))
    )
    return float(np.abs(error).sum() / (density + DENSITY).sum())


def on_grid(confidence: np.ndarray, weights: np.ndarray, nodes: int) -> np.ndarray:
    """Weights (N,) at confidences (N,) split linearly between the two nearest of evenly spaced nodes over [0, 1]."""
    position = confidence * (nodes - 1)
    lower = position.astype(int).clip(0, nodes - 2)
    upper = position - lower
    sums = np.bincount(lower, (1 - upper) * weights, nodes)
    return sums + np.bincount(lower + 1, upper * weights, nodes)


def reflected(values: np.ndarray, sigma: float) -> np.ndarray:
    """Values at evenly spaced nodes over [0, 1], mirrored at both ends and smoothed by a Gaussian cut off at 1/2."""
    nodes = len(values)
    kernel = np.exp(-((np.linspace(0, 1, nodes) - 0.5) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    mirrored = np.concatenate([values[:0:-1], values, values[-2::-1]])
    return fftconvolve(mirrored, kernel, "valid")[nodes // 2 : nodes // 2 + nodes]

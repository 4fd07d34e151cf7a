"""Kernel estimates of calibration error (Popordanoska et al., NeurIPS 2022, arXiv:2210.07810).

The accuracy at a confidence is estimated by the other samples, weighted by a kernel that lives on the simplex: Beta for
the predicted class, Dirichlet for whole rows.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from reference.metrics.predictions import one_hot, top_label

EXACT = 4096  # samples up to which all pairs are visited
NODES = 4000  # of the grid beyond that
SAMPLES = 1000  # quantiles of the confidences by which the bandwidth is chosen
BANDWIDTHS = (*(10 ** (-5 + 4 * k / 14) for k in range(15)), 0.2, 0.4, 0.6, 0.8, 1.0)  # the authors' grid
ROWS = 64  # of pairs that are held at once: a cache has room for them
EPSILON = 2.0**-53  # rounding of numbers just below 1
FLOOR = 1e-12  # of probabilities whose logarithm is taken


def kernel_ece(log_p: Tensor, target: Tensor, bandwidth: float | None = None) -> float:
    """Mean of |c - r(c)| for the predicted class, r being the kernel estimate of the accuracy from all other samples.

    Beyond 4,096 samples they are collected at 4,000 nodes, evenly spaced in arcsin of the root of the confidence, where
    the kernel has about one width everywhere.

    Args:
        log_p: (N, C), target: (N,).
        bandwidth: of the Beta kernel; None for the one of largest leave-one-out likelihood of the confidences, or of
            1,000 quantiles of them where there are more.
    """
    confidence, right = top_label(log_p, target)
    if len(confidence) < 2:
        return float((confidence - right).abs().mean())
    h = best_bandwidth(confidence) if bandwidth is None else bandwidth
    estimate = by_pairs if len(confidence) <= EXACT else by_nodes
    return float((confidence - estimate(confidence, right, h)).abs().mean())


def log_beta_kernel(at: Tensor, centre: Tensor, h: float) -> Tensor:
    """Logarithms (n, K) of the densities at (n,) of Beta(centre / h + 1, (1 - centre) / h + 1) for centre (K,)."""
    return torch.addmm(-_log_constant(centre, h), _logs(at), _exponents(centre, h))


def log_own_kernel(centre: Tensor, h: float) -> Tensor:
    """The same (K,) of each centre at itself."""
    return (_logs(centre) * _exponents(centre, h).T).sum(1) - _log_constant(centre, h)


def _logs(at: Tensor) -> Tensor:
    """log x and log(1 - x) of x (n,), kept within rounding of 0 and 1: (n, 2)."""
    return torch.stack([at.clamp(min=EPSILON).log(), torch.log1p(-at.clamp(max=1 - EPSILON))], 1)


def _exponents(centre: Tensor, h: float) -> Tensor:
    return torch.stack([centre, 1 - centre]) / h


def _log_constant(centre: Tensor, h: float) -> Tensor:
    return torch.lgamma(centre / h + 1) + torch.lgamma((1 - centre) / h + 1) - math.lgamma(1 / h + 2)


def without_own(log_kernel: Tensor, start: int) -> Tensor:
    """The kernel (n, N) of rows that start at this sample, changed: nothing is left for each sample itself."""
    rows = torch.arange(len(log_kernel))
    log_kernel[rows, rows + start] = -torch.inf
    return log_kernel


def _rows(samples: Tensor, h: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The kernel among samples (N,) without their own, some rows at a time: the largest logarithm of each row (n, 1),
    and the densities (n, N) divided by its exponential."""
    logs, exponents, constant = _logs(samples), _exponents(samples, h), -_log_constant(samples, h)
    for start in range(0, len(samples), ROWS):
        log_kernel = without_own(torch.addmm(constant, logs[start : start + ROWS], exponents), start)
        top = log_kernel.amax(1, keepdim=True)
        yield top, log_kernel.sub_(top).exp_()


def by_pairs(confidence: Tensor, right: Tensor, h: float) -> Tensor:
    """Leave-one-out accuracy (N,) at each confidence (N,)."""
    return torch.cat([kernel @ right / kernel.sum(1) for _, kernel in _rows(confidence, h)])


def by_nodes(confidence: Tensor, right: Tensor, h: float) -> Tensor:
    """As :func:`by_pairs`, with the samples collected at nodes and the kernel's sums interpolated between them."""
    angle = confidence.clamp(0, 1).sqrt().asin() * (2 / math.pi) * (NODES - 1)
    lower = angle.long().clamp(max=NODES - 2)
    upper = angle - lower
    nodes = (torch.arange(NODES, dtype=torch.float64) * (math.pi / 2 / (NODES - 1))).sin() ** 2
    split = [_split(lower, upper, weights) for weights in (torch.ones_like(right), right)]
    sums = log_beta_kernel(nodes, nodes, h).exp() @ torch.stack(split, 1)
    own = log_own_kernel(confidence, h).exp()
    count, hits = (torch.lerp(part[lower], part[lower + 1], upper) for part in sums.T)
    others = (right.sum() - right) / (len(right) - 1)
    reached = count - own > 1e-6 * own  # interpolation is no more exact than that
    return torch.where(reached, ((hits - own * right) / (count - own).clamp(min=1e-300)).clamp(0, 1), others)


def _split(lower: Tensor, upper: Tensor, weights: Tensor) -> Tensor:
    """Weights (N,) split between the nodes lower and lower + 1."""
    sums = torch.bincount(lower, (1 - upper) * weights, NODES)
    return sums + torch.bincount(lower + 1, upper * weights, NODES)


def best_bandwidth(confidence: Tensor) -> float:
    """The bandwidth of largest leave-one-out likelihood of the confidences (N,), of more than 1,000 that of as many
    quantiles: they lie nowhere as close together as confidences may, so that it is wider."""
    ordered = confidence.sort().values
    chosen = ordered[torch.linspace(0, len(ordered) - 1, min(len(ordered), SAMPLES)).long()]

    def likelihood(h: float) -> float:
        return sum(float((kernel.sum(1).log() + top[:, 0]).sum()) for top, kernel in _rows(chosen, h))

    return max(BANDWIDTHS, key=likelihood)


def canonical_kernel_ece(log_p: Tensor, target: Tensor, bandwidth: float) -> float:
    """Mean of the absolute difference, summed over classes, of whole rows and the kernel estimate at them, in [0, 2].

    For log-probabilities (N, C) and targets (N,); visits all N^2 pairs. The Dirichlet kernel at a row's p has the
    parameters p / bandwidth + 1.
    """
    p, labels = log_p.double().exp(), one_hot(target, log_p.shape[1])
    at, scaled = p.clamp(min=FLOOR).log(), p / bandwidth
    constant = torch.lgamma(scaled + 1).sum(1) - torch.lgamma(scaled.sum(1) + p.shape[1])
    total = 0.0
    for start in range(0, len(p), ROWS):
        part = slice(start, start + ROWS)
        weights = torch.softmax(without_own(at[part] @ scaled.T - constant, start), 1)
        total += float((p[part] - weights @ labels).abs().sum())
    return total / len(p)

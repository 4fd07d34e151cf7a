"""AdaFocal (Ghosh, Schaaf & Gormley, NeurIPS 2022, arXiv:2211.11838)."""

import torch
from torch import Tensor

from reference.methods import Adapted, calibration_loss
from reference.metrics.bins import BINS, mass_edges
from reference.softmax import target_log_softmax

RATE = 1.0  # at which a bin's gamma follows its gap
SWITCH = 0.2  # magnitude of gamma below which its sign changes
LOWEST, HIGHEST = -2.0, 20.0  # gammas


def updated(values: Tensor, log_p: Tensor, target: Tensor) -> Tensor:
    """New gammas and bin edges (29,), from the old ones, log-probabilities (N, C) of validation and their labels (N,).

    Bins have equal numbers of validation samples. A bin's gamma grows where confidence exceeds accuracy.
    """
    log_confidence, predicted = log_p.max(-1)
    confidence, right = log_confidence.exp(), (predicted == target).to(log_p.dtype)
    edges = mass_edges(confidence.sort().values, BINS)
    place = torch.bucketize(confidence, edges)
    count = torch.bincount(place, minlength=BINS).clamp(min=1)
    gap = torch.zeros_like(values[:BINS]).index_add_(0, place, confidence - right) / count
    gamma = values[:BINS]
    gamma = gamma * (RATE * gap * gamma.sign()).exp()
    gamma = torch.where(gamma.abs() < SWITCH, -SWITCH * gamma.sign(), gamma).clamp(LOWEST, HIGHEST)
    return torch.cat([gamma, edges])


START = (*[1.0] * BINS, *(k / BINS for k in range(1, BINS)))


@calibration_loss(adapted=Adapted(START, updated))
def adafocal(logits: Tensor, target: Tensor, *, adapted: Tensor) -> Tensor:
    r"""Focal loss whose gamma follows the calibration seen in validation, bin by bin, for logits (N, C) and target
    (N,); returns (N,).

    $$ -(1 - p_y)^{\gamma_b} \log p_y \text{ for } \gamma_b > 0, \quad -(1 + p_y)^{|\gamma_b|} \log p_y \text{ for }
    \gamma_b < 0, \quad \gamma_b \leftarrow \gamma_b \, e^{\pm (\mathrm{conf}_b - \mathrm{acc}_b)} $$

    b is the bin of p_y among 15 bins of equal numbers of validation samples by confidence, made anew after each epoch.
    A gamma begins at 1; where it comes within 0.2 of zero it changes its sign, and the loss becomes the inverse focal
    loss, which makes predictions surer. Gammas are kept within -2 and 20.
    """
    log_p = target_log_softmax(logits, target)
    p = log_p.detach().exp()
    place = (p[:, None] > adapted[BINS:]).sum(-1)
    bins = torch.arange(BINS, device=logits.device)
    gamma = torch.where(place[:, None] == bins, adapted[:BINS], 0).sum(-1)
    miss = torch.finfo(log_p.dtype).tiny - torch.expm1(log_p)
    base = torch.where(gamma > 0, miss.log(), torch.log1p(log_p.exp()))
    return -torch.exp(gamma.abs() * base) * log_p

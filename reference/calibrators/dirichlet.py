"""Dirichlet calibration (Kull et al., NeurIPS 2019, arXiv:1910.12656)."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.linear import apply_linear, fit_linear
from reference.calibrators.temperature import best_temperature
from reference.methods import Range, calibrator


@calibrator(search={"off_diagonal": Range(1e-3, 1e3, log=True), "intercept": Range(1e-3, 1e3, log=True)})
def dirichlet(logits: Tensor, target: Tensor, *, off_diagonal: float = 1.0, intercept: float = 0.01) -> Calibrated:
    r"""A linear map of the log-probabilities of least penalised NLL, for logits (N, C) and target (N,); returns a map
    of logits (M, C) to log-probabilities.

    $$ \mathrm{softmax}(W \log p + b), \quad \min_{W, b} \mathrm{NLL} + \lambda \sum_{i \ne j} W_{ij}^2 + \mu
    \sum_i b_i^2 $$

    Exact where each class's predictions have a Dirichlet distribution. W = I and b = 0 is no calibration. Lambda is
    off_diagonal and mu is intercept, as for matrix scaling, from which it differs in that a common shift of a row's
    logits does not change the result.
    """
    scale = 1 / best_temperature(logits, target)
    weights = fit_linear(torch.log_softmax(logits.double(), 1), target, scale, off_diagonal, intercept)
    return lambda z: apply_linear(weights, torch.log_softmax(z.double(), 1))

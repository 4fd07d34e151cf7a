"""Multinomial logistic regression on logits or log-probabilities, off-diagonal entries and intercepts held small."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

STEPS = 200  # of L-BFGS at most
TOLERANCE = 1e-9  # of the relative decrease of the penalised NLL in a step


def penalties(classes: int, off_diagonal: float, intercept: float) -> Tensor:
    """The factor of each squared weight (C, C + 1) in the penalty."""
    weight = torch.full((classes, classes + 1), off_diagonal, dtype=torch.float64).fill_diagonal_(0)
    weight[:, -1] = intercept
    return weight


def preconditioner(x: Tensor, weight: Tensor, spread: float) -> Tensor:
    """The inverse root (C + 1, C + 1) of a row's curvature, as if every class had the variance ``spread``."""
    curve = spread * x.T @ x / len(x) + 2 * weight.amax(0).diag()
    values, vectors = torch.linalg.eigh(curve)
    return vectors * values.clamp(min=1e-12 * float(values[-1])).rsqrt() @ vectors.T


def fit_linear(features: Tensor, target: Tensor, scale: float, off_diagonal: float, intercept: float) -> Tensor:
    """Weights (C, C + 1), the last column the intercepts b, of least mean NLL of softmax(W x + b) plus

    off_diagonal * sum over i != j of W_ij^2 + intercept * sum of b^2.

    For features (N, C), float64, and targets (N,); begins at scale times the identity. The diagonal is free.
    """
    n, classes = features.shape
    x = torch.cat([features, features.new_ones(n, 1)], 1)
    rows = torch.arange(n)
    weight, start = penalties(classes, off_diagonal, intercept), scale * torch.eye(classes, classes + 1).double()
    p = torch.softmax(x @ start.T, 1)
    root = preconditioner(x, weight, max(float((p * (1 - p)).mean()), 1e-6))

    def weights(flat: np.ndarray) -> Tensor:
        return start + torch.from_numpy(flat).reshape(classes, classes + 1) @ root

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = weights(flat)
        log_p = torch.log_softmax(x @ w.T, 1)
        value = (weight * w * w).sum() - log_p[rows, target].mean()
        away = log_p.exp_().index_put_((rows, target), torch.tensor(-1.0, dtype=torch.float64), accumulate=True)
        slope = (away.T @ x / n + 2 * weight * w) @ root
        return float(value), slope.flatten().numpy()

    options = {"maxiter": STEPS, "maxcor": 10, "gtol": 0, "ftol": TOLERANCE}
    found = minimize(objective, np.zeros(start.numel()), jac=True, method="L-BFGS-B", options=options)
    return weights(found.x)


def apply_linear(weights: Tensor, features: Tensor) -> Tensor:
    """Log-probabilities (M, C) of features (M, C) under weights (C, C + 1)."""
    return torch.log_softmax(features @ weights[:, :-1].T + weights[:, -1], 1)

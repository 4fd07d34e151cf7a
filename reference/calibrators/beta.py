"""Beta calibration, one class against the rest (Kull et al., AISTATS 2017)."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated, normalised
from reference.methods import Range, calibrator

STEPS = 50  # of Newton's method at most
TOLERANCE = 1e-9  # of the largest entry of a step
NEAR = 1e-12  # probabilities are kept this far within 0 and 1


def features(log_p: Tensor) -> Tensor:
    """log p, -log(1 - p) and 1 of log-probabilities (N, C): (C, N, 3)."""
    p = log_p.exp().clamp(NEAR, 1 - NEAR).T
    return torch.stack([p.log(), -torch.log1p(-p), torch.ones_like(p)], 2)


def fit_logistic(x: Tensor, y: Tensor, free: Tensor, prior: float) -> Tensor:
    """Weights (C, 3) of C penalised logistic regressions of y (C, N) on x (C, N, 3): (1, 1, 0) is no calibration.

    Weights that are not ``free`` (C, 3) are 0. Damped Newton's method on all at once.
    """
    identity = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    w = identity * free
    value = _penalised(x, y, w, identity, prior)
    for _ in range(STEPS):
        p = torch.sigmoid(torch.einsum("cnf,cf->cn", x, w))
        slope = (torch.einsum("cnf,cn->cf", x, p - y) + prior * (w - identity)) * free
        curve = torch.einsum("cnf,cn,cng->cfg", x, p * (1 - p), x) + prior * torch.eye(3).double()
        curve = curve * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
        step = -torch.linalg.solve(curve, slope)
        if step.abs().max() < TOLERANCE:
            break
        for _ in range(20):
            moved = _penalised(x, y, w + step, identity, prior)
            worse = moved > value + 1e-12 * value.abs()
            if not worse.any():
                break
            step = torch.where(worse[:, None], step / 2, step)
        w, value = torch.where(worse[:, None], w, w + step), torch.where(worse, value, moved)
    return w


def _penalised(x: Tensor, y: Tensor, w: Tensor, identity: Tensor, prior: float) -> Tensor:
    """The NLL of each regression (C,) plus prior / 2 |w - identity|^2."""
    score = torch.einsum("cnf,cf->cn", x, w)
    return (torch.nn.functional.softplus(score) - y * score).sum(1) + prior / 2 * (w - identity).square().sum(1)


def fit_beta(x: Tensor, y: Tensor, prior: float) -> Tensor:
    """As :func:`fit_logistic` with weights a, b >= 0: one that comes out negative is 0, and the others fit anew."""
    free = torch.ones(len(x), 3, dtype=torch.float64)
    w = fit_logistic(x, y, free, prior)
    for column in (0, 1):  # a before b, as the authors do
        negative = w[:, column] < 0
        if negative.any():
            free[negative, column] = 0
            w[negative] = fit_logistic(x[negative], y[negative], free[negative], prior)
    return w


@calibrator(search={"prior": Range(1e-2, 1e2, log=True)})
def beta(logits: Tensor, target: Tensor, *, prior: float = 1.0) -> Calibrated:
    r"""A beta calibration map of each class's probability, for logits (N, C) and target (N,); returns a map of logits
    (M, C) to log-probabilities.

    $$ \frac{f_k(p_k)}{\sum_j f_j(p_j)}, \quad f(p) = \sigma(a \log p - b \log(1 - p) + c), \quad a, b \ge 0 $$

    Exact where a class's probabilities have Beta distributions, one for its samples and one for the others'. The
    parameters have least NLL with a penalty of ours, prior / 2 (|a - 1|^2 + |b - 1|^2 + |c|^2), that a large held-out
    set overrules: without it there is no least NLL where a class is absent.
    """
    x = features(torch.log_softmax(logits.double(), 1))
    y = torch.nn.functional.one_hot(target, len(x)).double().T
    weights = fit_beta(x, y, prior)
    return lambda z: normalised(
        torch.sigmoid(torch.einsum("cnf,cf->cn", features(torch.log_softmax(z.double(), 1)), weights)).T
    )

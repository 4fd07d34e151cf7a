"""Vector scaling (Guo et al., ICML 2017, arXiv:1706.04599), section 4.2."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.temperature import best_temperature
from reference.methods import Range, calibrator

STEPS = 50  # of Newton's method at most
HALVINGS = 30  # of a step at most
TOLERANCE = 1e-10  # of the expected decrease


def penalised(x: Tensor, y: Tensor, parameters: Tensor, prior: float) -> tuple[float, Tensor]:
    """NLL of softmax(w * x + b) plus prior / 2 (|w - 1|^2 + |b|^2), summed over rows, and the probabilities (N, C)."""
    w, b = parameters
    log_p = torch.log_softmax(w * x + b, 1)
    return float(-(y * log_p).sum() + prior / 2 * ((w - 1).square().sum() + b.square().sum())), log_p.exp()


def newton_step(x: Tensor, y: Tensor, p: Tensor, parameters: Tensor, prior: float) -> tuple[Tensor, float]:
    """The step (2, C) to the minimum of the quadratic, and twice the decrease it expects."""
    classes = x.shape[1]
    px, away = p * x, p - y
    slope = torch.stack([(away * x).sum(0) + prior * (parameters[0] - 1), away.sum(0) + prior * parameters[1]])
    parts = torch.cat([px, p], 1)
    curve = -parts.T @ parts
    own = torch.stack([torch.stack([(px * x).sum(0), px.sum(0)]), torch.stack([px.sum(0), p.sum(0)])])
    blocks = curve.reshape(2, classes, 2, classes)
    diagonal = torch.arange(classes)
    blocks[:, diagonal, :, diagonal] += own.permute(2, 0, 1)
    curve.diagonal().add_(prior)
    step = -torch.linalg.solve(curve, slope.flatten()).reshape(2, classes)
    return step, -float((step * slope).sum())


def fit_vector(x: Tensor, target: Tensor, prior: float) -> Tensor:
    """Factors and intercepts (2, C) of least penalised NLL for x (N, C), float64: damped Newton's method."""
    y = torch.nn.functional.one_hot(target, x.shape[1]).double()
    parameters = torch.stack([torch.ones(x.shape[1]), torch.zeros(x.shape[1])]).double()
    value, p = penalised(x, y, parameters, prior)
    for _ in range(STEPS):
        step, expected = newton_step(x, y, p, parameters, prior)
        if expected < TOLERANCE * len(x):
            break
        for halving in range(HALVINGS):
            moved = parameters + step / 2**halving
            lower, p_moved = penalised(x, y, moved, prior)
            if lower <= value - 1e-4 * expected / 2**halving:
                break
        else:
            break
        parameters, value, p = moved, lower, p_moved
    return parameters


@calibrator(search={"prior": Range(1e-2, 1e2, log=True)})
def vector(logits: Tensor, target: Tensor, *, prior: float = 1.0) -> Calibrated:
    r"""A factor and an intercept for each class, for logits (N, C) and target (N,); returns a map of logits (M, C) to
    log-probabilities.

    $$ \mathrm{softmax}(w \odot z / T + b), \quad \min_{w, b} \sum_i -\log p_{i, y_i} + \frac{\lambda}{2} (\lVert w - 1
    \rVert^2 + \lVert b \rVert^2) $$

    The paper's least NLL with a penalty of ours, a normal prior around temperature scaling that a large held-out set
    overrules: without it there is no least NLL where a class is absent. Lambda is prior, and T the best temperature.
    """
    inverse = 1 / best_temperature(logits, target)
    w, b = fit_vector(inverse * logits.double(), target, prior)
    return lambda z: torch.log_softmax(w * (inverse * z.double()) + b, 1)

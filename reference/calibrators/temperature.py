"""Temperature scaling (Guo et al., ICML 2017, arXiv:1706.04599), section 4.2."""

import torch
from scipy.optimize import brentq
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.methods import calibrator

LOWEST, HIGHEST = 0.01, 100.0  # temperatures; the ends are reached only where no temperature between them is best


def slope(shifted: Tensor, own: Tensor, inverse: float) -> float:
    """The derivative of the mean NLL (and of its sign) in the inverse temperature, for logits (N, C) and own (N,)."""
    p = torch.softmax(inverse * shifted, 1)
    return float(((p * shifted).sum(1) - own).mean())


def best_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature in [LOWEST, HIGHEST] of least NLL, which is convex in 1/T; 1 where all are alike.

    By bisection and interpolation on the sign of the derivative. The common script, 200 steps
    of L-BFGS at rate 0.01 from 1.5, stops short of it.
    """
    shifted = logits.double()
    shifted = shifted - shifted.amax(1, keepdim=True)
    own = shifted.gather(1, target[:, None])[:, 0]
    if not shifted.any():
        return 1.0
    if slope(shifted, own, 1 / LOWEST) <= 0:
        return LOWEST
    if slope(shifted, own, 1 / HIGHEST) >= 0:
        return HIGHEST
    return 1 / float(brentq(lambda inverse: slope(shifted, own, inverse), 1 / HIGHEST, 1 / LOWEST, xtol=1e-12))


@calibrator(accuracy_preserving=True)
def temperature(logits: Tensor, target: Tensor) -> Calibrated:
    r"""One temperature of least NLL, for logits (N, C) and target (N,); returns a map of logits (M, C) to
    log-probabilities.

    $$ \mathrm{softmax}(z / T), \quad T = \arg\min_T -\frac{1}{N} \sum_i \log \mathrm{softmax}(z_i / T)_{y_i} $$

    Multiplying all logits by a factor multiplies T by it, so that the result does not change. Where all predictions are
    right no temperature is best; T is then 0.01, and 100 where the logits say nothing of the labels.
    """
    fitted = best_temperature(logits, target)
    return lambda z: torch.log_softmax(z.double() / fitted, 1)

"""Matrix scaling (Guo et al., ICML 2017, arXiv:1706.04599), section 4.2, with the penalty of Kull et al. (2019)."""

from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.linear import apply_linear, fit_linear
from reference.calibrators.temperature import best_temperature
from reference.methods import Range, calibrator


@calibrator(search={"off_diagonal": Range(1e-3, 1e3, log=True), "intercept": Range(1e-3, 1e3, log=True)})
def matrix(logits: Tensor, target: Tensor, *, off_diagonal: float = 1.0, intercept: float = 0.01) -> Calibrated:
    r"""A linear map of the logits of least penalised NLL, for logits (N, C) and target (N,); returns a map of logits
    (M, C) to log-probabilities.

    $$ \mathrm{softmax}(W z + b), \quad \min_{W, b} \mathrm{NLL} + \lambda \sum_{i \ne j} W_{ij}^2 + \mu
    \sum_i b_i^2 $$

    Lambda is off_diagonal and mu is intercept. Without the penalty, off-diagonal and intercept regularisation (Kull et
    al., NeurIPS 2019, arXiv:1910.12656), its C^2 + C parameters overfit. Sums as in the authors' code, where NLL is a
    mean. They choose both factors by cross-validation; the range is a grid that is recalled, not read, and the defaults
    are ours. Begins at temperature scaling.
    """
    scale = 1 / best_temperature(logits, target)
    weights = fit_linear(logits.double(), target, scale, off_diagonal, intercept)
    return lambda z: apply_linear(weights, z.double())

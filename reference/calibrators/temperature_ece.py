"""Temperature of least calibration error (Mukhoti et al., NeurIPS 2020, arXiv:2002.09437), the authors' code."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.temperature import best_temperature
from reference.methods import calibrator
from reference.metrics.bins import equal_width

GRID = torch.arange(1, 101, dtype=torch.float64) / 10  # of temperatures, 0.1 to 10


@calibrator(accuracy_preserving=True)
def temperature_ece(logits: Tensor, target: Tensor) -> Calibrated:
    r"""The temperature of least expected calibration error, for logits (N, C) and target (N,); returns a map of logits
    (M, C) to log-probabilities.

    $$ \mathrm{softmax}(z / T), \quad T = \arg\min_{T \in \{0.1, 0.2, \ldots, 10\}} \mathrm{ECE}_{15}(z / T) $$

    In 15 bins of equal width. The temperature of least NLL is tried too, and wins ties: it is what remains where the
    calibration error says nothing (constant logits), and where the grid is too coarse for the logits' scale.
    """
    shifted = logits.double()
    shifted = shifted - shifted.amax(1, keepdim=True)
    right = (shifted.argmax(1) == target).double()

    def error(t: float) -> float:
        confidence = 1 / (shifted / t).exp().sum(1)
        return equal_width(confidence, right).ece

    fitted = min([best_temperature(logits, target), *GRID.tolist()], key=error)
    return lambda z: torch.log_softmax(z.double() / fitted, 1)

"""Isotonic regression of the predicted class (Zadrozny & Elkan, KDD 2002): on the confidence alone."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated, top, with_confidence
from reference.calibrators.isotonic import fit_isotonic, predict
from reference.methods import calibrator


@calibrator(accuracy_preserving=True, tags=("nonparametric",))
def isotonic_top(logits: Tensor, target: Tensor) -> Calibrated:
    r"""A non-decreasing function of the confidence, for logits (N, C) and target (N,); returns a map of logits (M, C)
    to log-probabilities.

    $$ p_{\hat y} \to f(p_{\hat y}), \quad p_k \to p_k \frac{1 - f(p_{\hat y})}{1 - p_{\hat y}} \text{ for } k \ne \hat
    y $$

    f is of least squares to whether the prediction is right. The other classes share the rest as before. Where f is too
    small for the predicted class to stay the most probable, it gets just enough to stay it.
    """
    confidence, _, right = top(torch.log_softmax(logits.double(), 1), target)
    fitted = fit_isotonic(confidence.exp(), right)

    def calibrated(z: Tensor) -> Tensor:
        log_p = torch.log_softmax(z.double(), 1)
        return with_confidence(log_p, predict(fitted, log_p.amax(1).exp()))

    return calibrated

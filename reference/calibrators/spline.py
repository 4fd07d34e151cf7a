"""Calibration by splines (Gupta et al., ICLR 2021, arXiv:2006.12800), top label."""

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from reference.calibrators.calibrated import Calibrated, top, with_confidence
from reference.methods import calibrator


def recalibration(confidence: np.ndarray, right: np.ndarray, knots: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending confidences (K,) and the accuracy at them (K,), from confidence (N,) and right (N,).

    The accumulated difference of right and confidence, over the share of samples with no larger one, is fitted by
    a natural cubic spline in least squares; its derivative is the difference of accuracy and confidence.
    """
    order = np.argsort(confidence, kind="stable")
    ordered, gained = confidence[order], np.cumsum((right - confidence)[order]) / len(order)
    last = np.append(ordered[1:] > ordered[:-1], True)  # of equal confidences, whose order says nothing
    share = (np.arange(len(order)) + 1) / len(order)
    at = np.linspace(0, 1, knots)
    basis = CubicSpline(at, np.eye(knots), bc_type="natural")
    points, values = np.append(0, share[last]), np.append(0, gained[last])
    heights = np.linalg.lstsq(basis(points), values, rcond=1e-10)[0]
    middle = (points[1:] + points[:-1]) / 2
    return ordered[last], (ordered[last] + basis.derivative()(middle) @ heights).clip(0, 1)


@calibrator(accuracy_preserving=True, search={"knots": (4, 12)}, tags=("nonparametric",))
def spline(logits: Tensor, target: Tensor, *, knots: float = 6) -> Calibrated:
    r"""The confidence plus the slope of a spline of the accumulated error, for logits (N, C) and target (N,); returns a
    map of logits (M, C) to log-probabilities.

    $$ p_{\hat y} \to p_{\hat y} + S'(F(p_{\hat y})), \quad S(t) \approx \frac{1}{N} \sum_{i \le t N} (a_{(i)} -
    p_{(i), \hat y}) $$

    i counts samples by rising confidence, a is 1 where the prediction is right, F is the share of samples with no
    larger confidence, and S a natural cubic spline with evenly spaced knots (rounded), of least squares. Linear between
    the samples, where the authors' code swaps the two weights; the other classes share the rest as before, and the
    predicted class stays the most probable.
    """
    log_confidence, _, right = top(torch.log_softmax(logits.double(), 1), target)
    confidences, accuracies = recalibration(log_confidence.exp().numpy(), right.numpy(), round(float(knots)))

    def calibrated(z: Tensor) -> Tensor:
        log_p = torch.log_softmax(z.double(), 1)
        new = np.interp(log_p.amax(1).exp().numpy(), confidences, accuracies)
        return with_confidence(log_p, torch.from_numpy(new))

    return calibrated

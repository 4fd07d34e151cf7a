"""Isotonic regression, one class against the rest (Zadrozny & Elkan, KDD 2002)."""

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from reference.calibrators.calibrated import Calibrated, normalised
from reference.methods import calibrator


def fit_isotonic(values: Tensor, hits: Tensor) -> IsotonicRegression:
    """The non-decreasing function from values (N,) to [0, 1] of least squares to hits (N,), linear between samples."""
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values.numpy(), hits.double().numpy())


def predict(fitted: IsotonicRegression, values: Tensor) -> Tensor:
    """The fitted function at values (M,), float64."""
    return torch.from_numpy(np.asarray(fitted.predict(values.numpy()), dtype=np.float64))


@calibrator(tags=("nonparametric",))
def isotonic(logits: Tensor, target: Tensor) -> Calibrated:
    r"""A non-decreasing function of each class's probability, for logits (N, C) and target (N,); returns a map of
    logits (M, C) to log-probabilities.

    $$ \frac{f_k(p_k)}{\sum_j f_j(p_j)}, \quad f_k = \arg\min_{f \text{ non-decreasing}} \sum_i (f(p_{ik}) - 1[y_i =
    k])^2 $$

    By pooling adjacent violators, equal probabilities together; linear between the samples and constant outside. A row
    of zeros becomes uniform, and no probability is below 1e-12.
    """
    p = torch.softmax(logits.double(), 1)
    fitted = [fit_isotonic(p[:, k], target == k) for k in range(p.shape[1])]

    def calibrated(z: Tensor) -> Tensor:
        q = torch.softmax(z.double(), 1)
        return normalised(torch.stack([predict(f, q[:, k]) for k, f in enumerate(fitted)], 1))

    return calibrated

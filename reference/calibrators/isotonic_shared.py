"""Accuracy-preserving isotonic regression (Zhang et al., ICML 2020, arXiv:2003.07329), IRM."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.isotonic import fit_isotonic, predict
from reference.methods import calibrator

SLOPE = 1e-9  # of a line added to the function, which makes it strictly increasing


@calibrator(accuracy_preserving=True, tags=("nonparametric",))
def isotonic_shared(logits: Tensor, target: Tensor) -> Calibrated:
    r"""One increasing function of all probabilities, for logits (N, C) and target (N,); returns a map of logits (M, C)
    to log-probabilities.

    $$ \frac{f(p_k)}{\sum_j f(p_j)}, \quad f = \arg\min_{f \text{ non-decreasing}} \sum_i \sum_k (f(p_{ik}) - 1[y_i =
    k])^2 $$

    10^-9 p is added to f, as the authors do, so that it strictly increases and keeps the order of the classes.
    """
    p = torch.softmax(logits.double(), 1)
    hits = torch.nn.functional.one_hot(target, p.shape[1])
    fitted = fit_isotonic(p.flatten(), hits.flatten())

    def calibrated(z: Tensor) -> Tensor:
        log_q = torch.log_softmax(z.double(), 1)
        fine = log_q + torch.tensor(SLOPE, dtype=torch.float64).log()
        log_f = torch.logaddexp(predict(fitted, log_q.exp().flatten()).reshape(log_q.shape).log(), fine)
        return log_f - log_f.logsumexp(1, keepdim=True)

    return calibrated

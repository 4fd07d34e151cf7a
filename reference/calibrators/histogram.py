"""Histogram binning, one class against the rest (Zadrozny & Elkan, ICML 2001)."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated, binned, normalised
from reference.methods import calibrator


@calibrator(search={"bins": (5, 30)}, tags=("nonparametric",))
def histogram(logits: Tensor, target: Tensor, *, bins: float = 15) -> Calibrated:
    r"""The share of each class in bins of its probability, for logits (N, C) and target (N,); returns a map of logits
    (M, C) to log-probabilities.

    $$ \frac{\theta_k(p_k)}{\sum_j \theta_j(p_j)}, \quad \theta_k(p) = \frac{|\{i : y_i = k, b(p_{ik}) = b(p)\}|}{|\{i :
    b(p_{ik}) = b(p)\}|} $$

    b is one of bins (rounded) bins of equal width, open below. A bin without samples has its centre. A row of zeros
    becomes uniform, and no probability is below 1e-12.
    """
    number = round(float(bins))
    p = torch.softmax(logits.double(), 1)
    classes = p.shape[1]
    offset = number * torch.arange(classes)
    place = binned(p, number) + offset
    count = torch.bincount(place.flatten(), minlength=number * classes).double()
    hits = torch.bincount(place[torch.arange(len(p)), target], minlength=number * classes).double()
    centre = ((torch.arange(number, dtype=torch.float64) + 0.5) / number).repeat(classes)
    share = torch.where(count > 0, hits / count.clamp(min=1), centre)
    return lambda z: normalised(share[binned(torch.softmax(z.double(), 1), number) + offset])

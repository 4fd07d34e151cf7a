"""Determinant-based mutual information (Xu et al., NeurIPS 2019, arXiv:1909.03388)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from reference.methods import loss
from reference.softmax import softmax, target_log_softmax

LEAST = math.log(1e-3)  # the logarithm of what the authors' code adds to the determinant
SINGULAR = LEAST - 30  # of smaller determinants, rounding decides the sign
ALIGN = 32  # kernels choose their path by size and alignment; whole vectors give a batch the same bits in any fleet


@loss(batchwise=True, tags=("noise-robust",))
def dmi(logits: Tensor, target: Tensor, *, onset: float = 0.5, progress: Tensor) -> Tensor:
    r"""Minus the log-determinant of the batch's label-by-prediction table, for logits (N, C) and target (N,); returns a
    scalar.

    $$ -\log \left( \left| \det Y^\top P \right| + 10^{-3} \right) $$

    Y (N, C) are the one-hot labels, P (N, C) the probabilities. Label noise with transition T multiplies the expected
    determinant by det T, whatever the classifier, which shifts the loss. A permutation of the predicted classes does
    not change it: the loss alone cannot name the classes. The authors therefore begin from a network trained with
    cross-entropy. Here too: until onset, a share of the epochs, the loss is cross-entropy. Half of them is our choice,
    and not tuned.

    Wherever a class is absent from the batch the determinant is 0 for all predictions, and so is its gradient; with
    many classes, small batches or predictions all alike the loss is constant or nearly so. Determinants below 1e-16
    count as 0, without gradient, so that no singular table is inverted. As in the authors' code, the table is not
    divided by N.
    """
    classes = logits.shape[-1]
    size = -(-classes // ALIGN) * ALIGN
    index = torch.arange(size, device=logits.device)
    labels = (target == index[:, None]).to(logits.dtype)
    table = labels @ pad(softmax(logits).mT, (0, 0, 0, size - classes)).mT
    identity = torch.eye(size, dtype=logits.dtype, device=logits.device)
    table = table + identity * (index >= classes)
    fixed = table.detach()
    factors, pivots, _ = torch.linalg.lu_factor_ex(fixed)
    volume = factors.diagonal(dim1=-2, dim2=-1).abs().log().sum()  # the logarithm of the determinant
    regular = volume > SINGULAR
    inverse = torch.linalg.lu_solve(torch.where(regular, factors, identity), pivots, identity)
    weight = torch.sigmoid(volume.expand(size) - LEAST) * regular  # a whole vector: see ALIGN
    # The inverse is the gradient of the log-determinant; the change is zero, and there for its gradient alone.
    change = ((table - fixed) * (weight * inverse.mT)).sum()
    determinant = -torch.logaddexp(volume, torch.full_like(volume, LEAST)) - change
    return torch.where(progress < onset, -target_log_softmax(logits, target).mean(), determinant)

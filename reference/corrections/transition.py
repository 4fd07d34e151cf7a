"""Forward and backward loss correction (Patrini et al., CVPR 2017, arXiv:1609.03944)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from reference.corrections.labels import Loss, against_all
from reference.methods import correction
from reference.softmax import softmax

ALIGN = 16  # columns: every run's matrix in a fleet then begins on 64 bytes, and its bits are those of any slot
LEAST = 1e-30  # the smallest probability of a noisy label
RIDGE = 1e-4  # added to the squares of the singular values before they are inverted
DEEPEST = -math.log(1e-7)  # the largest loss that the backward correction subtracts


def anchors(log_p: Tensor) -> Tensor:
    """The noise transition (C, C) that log-probabilities (N, C) of a network fitted to noisy labels show.

    Row i is the prediction for one sample that is nearly certain to be of class i: the one whose probability of class i
    is at the 97th percentile for 10 classes, and as deep in the class's share of the samples, three tenths, for others.
    """
    rows, classes = log_p.shape
    rank = max(1, rows - int(0.3 * rows / classes))
    return log_p[log_p.kthvalue(rank, dim=0).indices].exp()


def noisy(logits: Tensor, transition: Tensor) -> Tensor:
    """The log-probabilities of the noisy labels (N, C), log(T' p), none below log(LEAST)."""
    classes = logits.shape[-1]
    p = softmax(logits) @ pad(transition, (0, -classes % ALIGN))
    return p[..., :classes].clamp(min=LEAST).log()


def inverse(transition: Tensor) -> Tensor:
    """The inverse of a transition (C, C), also of a singular one: no entry is much larger than 1 / sqrt(RIDGE).

    Tikhonov regularisation, then two Newton steps, each of which squares what is left of the error: a singular value s
    is inverted up to the factor 1 - (RIDGE / (s^2 + RIDGE))^4, exact to 1e-8 from s = 0.1 on.
    """
    classes = transition.shape[-1]
    wide = -classes % ALIGN
    one = torch.eye(classes + wide, dtype=transition.dtype, device=transition.device)
    beside = torch.cat([one.new_zeros(classes), one.new_ones(wide)]).diag()
    t = pad(transition, (0, wide, 0, wide)) + beside
    found = torch.linalg.solve(t.mT @ t + RIDGE * one, t.mT)
    for _ in range(2):
        found = found @ (2 * one - t @ found)
    return found[:classes, :classes]


@correction(bounded=True, tags=("noise-robust",))
def fwd(base: Loss, logits: Tensor, target: Tensor, *, transition: Tensor) -> Tensor:
    r"""Forward correction: the loss of the noisy labels' probabilities, for logits (N, C) and target (N,); returns
    (N,).

    $$ \ell(\log(T^\top p), \, y), \quad T_{ij} = \mathrm{P}(\text{noisy label } j \mid \text{clean label } i) $$

    T is that of the label noise, known exactly: an upper bound on what an estimate can do. The network learns p, the
    probabilities of the clean labels, while the loss compares T' p with the noisy ones; it is given log(T' p) as its
    logits. Around cross-entropy the minimiser is that of clean labels. Probabilities under 1e-30 are taken as 1e-30,
    which bounds any loss that is continuous in the logits: cross-entropy by 69.
    """
    return base(noisy(logits, transition), target)


@correction(estimate=anchors, bounded=True, tags=("noise-robust",))
def fwd_est(base: Loss, logits: Tensor, target: Tensor, *, transition: Tensor) -> Tensor:
    r"""Forward correction with an estimated noise transition, for logits (N, C) and target (N,); returns (N,).

    $$ \ell(\log(T^\top p), \, y), \quad T_{ij} = p_j(x^{(i)}) $$

    The first half of the training is without correction (T is the identity). Then T is read off the network's own
    predictions: x^(i) is the training sample at the 97th percentile of the predicted probability of class i, not the
    largest, which is likely an outlier. The authors use the 97th percentile for 10 classes and the largest for 100;
    here it is three tenths of a class's share of the samples for any number of classes, the same for 10. They train a
    second network with the estimate; here the first one goes on.
    """
    return base(noisy(logits, transition), target)


@correction(tags=("noise-robust",))
def bwd(base: Loss, logits: Tensor, target: Tensor, *, transition: Tensor) -> Tensor:
    r"""Backward correction: the losses against all labels, weighted by the inverse noise transition, for logits (N, C)
    and target (N,); returns (N,).

    $$ \sum_k [T^{-1}]_{yk} \, \ell(z, k), \quad
    T_{ij} = \mathrm{P}(\text{noisy label } j \mid \text{clean label } i) $$

    T is that of the label noise, known exactly: an upper bound on what an estimate can do. Over the noisy labels of a
    sample the mean is the loss against its clean one, whatever the loss. Some weights are negative, and what they weigh
    is clipped from above at 16.1 = -log 1e-7, where the authors' code clips probabilities: so the sum is bounded from
    below. Singular values of T under 0.1 are inverted in part only, and a singular T allows no recovery.
    """
    weights = inverse(transition)[target]
    losses = against_all(base, logits)
    return (weights.clamp(min=0) * losses + weights.clamp(max=0) * losses.clamp(max=DEEPEST)).sum(-1)


@correction(estimate=anchors, tags=("noise-robust",))
def bwd_est(base: Loss, logits: Tensor, target: Tensor, *, transition: Tensor) -> Tensor:
    r"""Backward correction with an estimated noise transition, for logits (N, C) and target (N,); returns (N,).

    $$ \sum_k [T^{-1}]_{yk} \, \ell(z, k), \quad T_{ij} = p_j(x^{(i)}) $$

    Half-way through the training T is estimated as in ``fwd_est`` and from then on used as in ``bwd``; before, T is the
    identity and the loss is uncorrected.
    """
    return bwd(base, logits, target, transition=transition)

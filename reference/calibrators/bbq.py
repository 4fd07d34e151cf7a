"""Bayesian binning into quantiles, one class against the rest (Naeini et al., AAAI 2015)."""

import math

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated, normalised
from reference.methods import calibrator

WIDEST = 10.0  # numbers of bins are from the cube root of N over this to as many times it
PRIOR = 2.0  # samples that a bin's prior is worth
EDGE = 5e-3  # prior means lie this far within 0 and 1


def cuts(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Where bins begin and end (K,), as ranks of ascending scores (N,), and the model (K,) that each belongs to.

    A model has B bins of equal numbers of samples; scores that tie are in one bin, some bins then being empty.
    """
    n = len(ordered)
    root = n ** (1 / 3)
    least, most = max(1, math.floor(root / WIDEST)), min(math.ceil(n / 5), math.ceil(root * WIDEST))
    sizes = range(least, most + 1)
    ranks = torch.cat([torch.arange(b + 1) * n // b for b in sizes])
    after_ties = torch.searchsorted(ordered, ordered[(ranks - 1).clamp(min=0)], right=True)
    moved = torch.where((ranks > 0) & (ranks < n), after_ties, ranks)
    model = torch.cat([torch.full((b + 1,), k) for k, b in enumerate(sizes)])
    inner = model[1:] == model[:-1]
    return torch.stack([moved[:-1][inner], moved[1:][inner]]), model[1:][inner]


def step_function(scores: Tensor, hits: Tensor) -> tuple[Tensor, Tensor]:
    """The edges (N - 1,) and values (N,) of the average of all models, a step function of the score."""
    order = scores.argsort(stable=True)
    ordered, n = scores[order], len(scores)
    total = torch.cat([hits.new_zeros(1), hits[order].cumsum(0)])
    (begin, end), model = cuts(ordered)
    edges = (ordered[1:] + ordered[:-1]) / 2
    border = torch.cat([edges.new_zeros(1), edges, edges.new_ones(1)])  # by rank
    count, positive = (end - begin).double(), total[end] - total[begin]
    alpha = PRIOR * ((border[begin] + border[end]) / 2).clamp(EDGE, 1 - EDGE)
    evidence = _log_beta(positive + alpha, count - positive + PRIOR - alpha) - _log_beta(alpha, PRIOR - alpha)
    weight = torch.softmax(torch.bincount(model, evidence), 0)[model]
    value = torch.where(count > 0, weight * (positive + alpha) / (count + PRIOR), 0)
    jumps = torch.bincount(begin, value, n + 1) - torch.bincount(end, value, n + 1)
    return edges, jumps.cumsum(0)[:-1]


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


@calibrator(tags=("nonparametric",))
def bbq(logits: Tensor, target: Tensor) -> Calibrated:
    r"""Histograms with many numbers of bins, averaged by how probable the labels make them, for logits (N, C) and
    target (N,); returns a map of logits (M, C) to log-probabilities.

    $$ \frac{\theta_k(p_k)}{\sum_j \theta_j(p_j)}, \quad \theta_k(p) = \sum_M w_M \frac{n_{b 1} + \alpha_b}{n_b + 2},
    \quad w_M \propto \prod_{b \in M} \frac{B(n_{b1} + \alpha_b, n_{b0} + 2 - \alpha_b)}{B(\alpha_b, 2 - \alpha_b)} $$

    Bins of equal mass, from N^(1/3) / 10 to 10 N^(1/3) of them, with a Beta prior worth two samples whose mean is the
    bin's middle, alpha_b / 2. As in a port of the authors' code, but with all models where that prunes the improbable
    ones, and with each bin's posterior mean. Samples with one score are never parted.
    """
    p = torch.softmax(logits.double(), 1)
    fitted = [step_function(p[:, k], (target == k).double()) for k in range(p.shape[1])]

    def calibrated(z: Tensor) -> Tensor:
        q = torch.softmax(z.double(), 1).T.contiguous()
        shares = [values[torch.bucketize(own, edges)] for own, (edges, values) in zip(q, fitted, strict=True)]
        return normalised(torch.stack(shares, 1))

    return calibrated

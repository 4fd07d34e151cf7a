"""Metrics of the order that scores give, for many labels at once: of samples by a label, and of labels by a sample.

Scores (N, L) may be logits or probabilities, targets (N, L) are 0 or 1; everything is computed in float64. Ties are
never broken: average precision and LRAP take a precision at the end of its group of ties, AUC counts a tied pair half,
and what is cut at k takes the mean over all orders of the tied labels. That is what scikit-learn does.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def average_precisions(scores: Tensor, target: Tensor) -> Tensor:
    """Average precision of each label, (L,): the mean over its rows of the precision at their score; NaN without any."""
    ascending, present = _by_label(scores, target)
    start = torch.searchsorted(ascending, ascending)  # of a score's group of ties
    at_least = ascending.shape[-1] - start
    hits = _sums(present.flip(-1)).gather(-1, at_least)
    return (present * hits / at_least).sum(-1) / present.sum(-1)


def aucs(scores: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve of each label, (L,); NaN where a side is empty."""
    below, equal, pairs = ordered_pairs(scores, target)
    return (below + equal / 2) / pairs


def ordered_pairs(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many pairs of a row with the label and one without are in order, tied, and there at all: (L,) each."""
    ascending, present = _by_label(scores, target)
    absent = _sums(1 - present)
    start = torch.searchsorted(ascending, ascending)
    end = torch.searchsorted(ascending, ascending, right=True)
    below, through = absent.gather(-1, start), absent.gather(-1, end)
    pairs = present.sum(-1) * absent[..., -1]
    return (present * below).sum(-1), (present * (through - below)).sum(-1), pairs


def _by_label(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each label's scores in ascending order, and its targets in that order: (L, N) both."""
    ascending, order = scores.double().mT.contiguous().sort(-1)
    return ascending, target.double().mT.gather(-1, order)


def _sums(values: Tensor) -> Tensor:
    """Sums of the first 0, 1, 2, ... values: one more than there are."""
    return pad(values.cumsum(-1), (1, 0))


def label_ranking_average_precision(scores: Tensor, target: Tensor) -> float:
    """The mean over rows of the average precision of their labels; a row without labels counts 1, as in libraries."""
    return float(average_precisions(scores.mT, target.mT).nan_to_num(1.0).mean())


def ranking_loss(scores: Tensor, target: Tensor) -> float:
    """The share of a row's pairs of a present and an absent label that are not in order, ties included; 0 of none."""
    below, _, pairs = ordered_pairs(scores.mT, target.mT)
    return float((1 - below / pairs).nan_to_num(0.0).mean())


def coverage(scores: Tensor, target: Tensor) -> float:
    """How far down the order of labels a row's lowest present one is, in the mean; 0 of a row without labels."""
    lowest = torch.where(target > 0, scores, torch.inf).amin(-1, keepdim=True)
    return float((scores >= lowest).sum(-1).double().mean())


# -- the first k labels of a sample ------------------------------------------------------------------------------------


def expected_weights(scores: Tensor, weights: Tensor) -> Tensor:
    """The weight of each label's rank, the mean over the ranks that ties leave open: (N, L).

    ``weights`` (L,) are those of ranks 1, 2, ...
    """
    descending = (-scores.double()).sort(-1).values
    above = torch.searchsorted(descending, -scores.double())
    through = torch.searchsorted(descending, -scores.double(), right=True)
    total = _sums(weights.double())
    return (total[through] - total[above]) / (through - above)


def _first(k: int, labels: int) -> Tensor:
    """1 for the first k ranks, else 0: (L,)."""
    return (torch.arange(labels) < k).double()


def _discounts(k: int, labels: int) -> Tensor:
    """1 / log2(rank + 1) for the first k ranks, else 0: (L,)."""
    return _first(k, labels) / (torch.arange(labels).double() + 2).log2()


def precision_at(k: int, scores: Tensor, target: Tensor) -> float:
    """The share of the first k labels that are present, in the mean over all rows."""
    chosen = expected_weights(scores, _first(k, scores.shape[-1]))
    return float((chosen * target).sum(-1).mean() / k)


def ndcg_at(k: int, scores: Tensor, target: Tensor) -> float:
    """Discounted gain of the first k labels over the best possible; 0 of a row without labels, as in scikit-learn."""
    discounts = _discounts(k, scores.shape[-1])
    gain = (expected_weights(scores, discounts) * target).sum(-1)
    best = _sums(discounts)[target.sum(-1).long()]
    return float((gain / best).nan_to_num(0.0).mean())


def propensities(counts: Tensor, rows: int, a: float = 0.55, b: float = 1.5) -> Tensor:
    """How likely a label that holds was noticed, from the training rows that have it: (L,) (Jain et al., KDD 2016).

    a and b are those of most data sets; Wikipedia's are 0.5 and 0.4, Amazon's 0.6 and 2.6.
    """
    size = torch.tensor(float(rows), dtype=torch.float64)
    c = (size.log() - 1) * (b + 1) ** a
    return 1 / (1 + c * (counts.double() + b) ** -a)


def propensity_scored_precision_at(k: int, scores: Tensor, target: Tensor, propensity: Tensor) -> float:
    """Precision at k with rare labels worth more, over the best that any order has; NaN if no row has a label.

    Both are sums over all rows before they are divided, as in the Extreme Classification Repository.
    """
    worth = target / propensity
    found = (expected_weights(scores, _first(k, scores.shape[-1])) * worth).sum()
    return float(found / worth.sort(-1, descending=True).values[..., :k].sum())

"""Metrics of the order that scores give: of samples by a label, and of labels by a sample.

Both begin with the same sorting, of each row of an array: :func:`labels_of_rows` and :func:`rows_of_labels` make it of
scores (N, L), logits or probabilities, and targets (N, L), 0 or 1; everything is computed in float64. Ties are never
broken: average precision takes the precision at the end of its group of ties, AUC counts a tied pair half, and what is
cut at k takes the mean over all orders of the tied labels. That is what scikit-learn does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Ordered:
    """Rows sorted by score, the lowest first: (M, K) each."""

    present: Tensor  # the targets in that order, in float64
    order: Tensor  # where each entry was
    start: Tensor  # how many entries of the row have lower scores
    end: Tensor  # how many have no higher scores

    @property
    def at_least(self) -> Tensor:
        """How many entries of the row have scores that are no lower."""
        return self.present.shape[-1] - self.start


def labels_of_rows(scores: Tensor, target: Tensor) -> Ordered:
    """The labels of each row in the order of their scores."""
    ascending, order = scores.double().sort(-1)
    size = scores.shape[-1]
    index = torch.arange(size, device=scores.device)
    higher = ascending.diff(dim=-1) > 0
    start = torch.where(pad(higher, (1, 0), value=True), index, 0).cummax(-1).values
    end = torch.where(pad(higher, (0, 1), value=True), index + 1, size).flip(-1).cummin(-1).values.flip(-1)
    return Ordered(target.double().gather(-1, order), order, start, end)


def rows_of_labels(scores: Tensor, target: Tensor) -> Ordered:
    """The rows of each label in the order of their scores."""
    return labels_of_rows(scores.mT.contiguous(), target.mT)


def entries(scores: Tensor, target: Tensor) -> Ordered:
    """All entries in the order of their scores, as one row: (1, N L)."""
    return labels_of_rows(scores.reshape(1, -1), target.reshape(1, -1))


def _sums(values: Tensor) -> Tensor:
    """Sums of the first 0, 1, 2, ... values: one more than there are."""
    return pad(values.cumsum(-1), (1, 0))


def average_precisions(ordered: Ordered) -> Tensor:
    """The mean over a row's present entries of the precision at their score, (M,); NaN without any."""
    hits = _sums(ordered.present.flip(-1)).gather(-1, ordered.at_least)
    return (ordered.present * hits / ordered.at_least).sum(-1) / ordered.present.sum(-1)


def pairs_in_order(ordered: Ordered) -> tuple[Tensor, Tensor, Tensor]:
    """How many pairs of a present and an absent entry are in order, tied, and there at all: (M,) each."""
    absent = _sums(1 - ordered.present)
    below, through = absent.gather(-1, ordered.start), absent.gather(-1, ordered.end)
    every = ordered.present.sum(-1) * absent[..., -1]
    return (ordered.present * below).sum(-1), (ordered.present * (through - below)).sum(-1), every


def aucs(ordered: Ordered) -> Tensor:
    """The area under the ROC curve of each row, (M,); NaN where all entries are present or none is."""
    below, tied, every = pairs_in_order(ordered)
    return (below + tied / 2) / every


def label_ranking_average_precision(labels: Ordered) -> float:
    """The mean average precision of rows of labels; one without labels counts 1, as in libraries."""
    return float(average_precisions(labels).nan_to_num(1.0).mean())


def ranking_loss(labels: Ordered) -> float:
    """The share of a row's pairs that are not in order, ties included; 0 of a row without pairs."""
    below, _, every = pairs_in_order(labels)
    return float((1 - below / every).nan_to_num(0.0).mean())


def coverage(labels: Ordered) -> float:
    """How far down the order of labels a row's lowest present one is, in the mean; 0 of a row without labels."""
    return float((labels.present * labels.at_least).amax(-1).mean())


# -- the first k labels of a row ---------------------------------------------------------------------------------------


def expected_weights(labels: Ordered, weights: Tensor) -> Tensor:
    """The weight of each label's rank, the mean over the ranks that ties leave open, in the order of scores: (N, L).

    ``weights`` (L,) are those of ranks 1, 2, ...
    """
    total = _sums(weights.double())
    size = weights.shape[-1]
    return (total[size - labels.start] - total[size - labels.end]) / (labels.end - labels.start)


def _first(k: int, labels: int) -> Tensor:
    """1 for the first k ranks, else 0: (L,)."""
    return (torch.arange(labels) < k).double()


def _discounts(k: int, labels: int) -> Tensor:
    """1 / log2(rank + 1) for the first k ranks, else 0: (L,)."""
    return _first(k, labels) / (torch.arange(labels).double() + 2).log2()


def precision_at(k: int, labels: Ordered) -> float:
    """The share of the first k labels that are present, in the mean over all rows."""
    chosen = expected_weights(labels, _first(k, labels.present.shape[-1]))
    return float((chosen * labels.present).sum(-1).mean() / k)


def ndcg_at(k: int, labels: Ordered) -> float:
    """Discounted gain of the first k labels over the best possible; 0 of a row without labels, as in scikit-learn."""
    discounts = _discounts(k, labels.present.shape[-1])
    gain = (expected_weights(labels, discounts) * labels.present).sum(-1)
    best = _sums(discounts)[labels.present.sum(-1).long()]
    return float((gain / best).nan_to_num(0.0).mean())


def propensities(counts: Tensor, rows: int, a: float = 0.55, b: float = 1.5) -> Tensor:
    """How likely a label that holds was noticed, from the training rows that have it: (L,) (Jain et al., KDD 2016).

    a and b are those of most data sets; Wikipedia's are 0.5 and 0.4, Amazon's 0.6 and 2.6.
    """
    size = torch.tensor(float(rows), dtype=torch.float64)
    c = (size.log() - 1) * (b + 1) ** a
    return 1 / (1 + c * (counts.double() + b) ** -a)


def propensity_scored_precision_at(k: int, labels: Ordered, propensity: Tensor) -> float:
    """Precision at k with rare labels worth more, over the best that any order has; NaN if no row has a label.

    Both are sums over all rows before they are divided, as in the Extreme Classification Repository.
    """
    worth = labels.present / propensity[labels.order]
    found = (expected_weights(labels, _first(k, worth.shape[-1])) * worth).sum()
    return float(found / worth.topk(min(k, worth.shape[-1])).values.sum())

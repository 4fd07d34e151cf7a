"""Metrics of decisions, label by label and over all of them, and the thresholds that make decisions of scores."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Counts:
    """Right and wrong decisions of each label: (L,) each, in float64."""

    tp: Tensor
    fp: Tensor
    fn: Tensor


def counted(decided: Tensor, target: Tensor) -> Counts:
    """The decisions (N, L), true for a label taken for present, beside the targets (N, L)."""
    said, present = decided.double(), target.double()
    tp = (said * present).sum(0)
    return Counts(tp, said.sum(0) - tp, present.sum(0) - tp)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 for 0 / 0."""
    return part / whole.clamp(min=1e-300)


def decision_metrics(decided: Tensor, target: Tensor) -> dict[str, float]:
    """Per-class (CP, CR, CF1) and overall (OP, OR, OF1) precision, recall and F1, and what else is counted.

    CP and CR are means over labels and CF1 their harmonic mean, which is not ``macro_f1``, the mean of the labels' F1;
    0 / 0 counts as 0. ``hamming`` is the share of wrong entries, ``subset`` that of rows without one.
    """
    c = counted(decided, target)
    precision, recall = ratio(c.tp, c.tp + c.fp).mean(), ratio(c.tp, c.tp + c.fn).mean()
    tp, fp, fn = c.tp.sum(), c.fp.sum(), c.fn.sum()
    wrong = decided != (target > 0)
    found = {
        "cp": precision,
        "cr": recall,
        "cf1": ratio(2 * precision * recall, precision + recall),
        "op": ratio(tp, tp + fp),
        "or": ratio(tp, tp + fn),
        "of1": ratio(2 * tp, 2 * tp + fp + fn),
        "macro_f1": ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn).mean(),
        "hamming": wrong.double().mean(),
        "subset": (~wrong.any(-1)).double().mean(),
    }
    return {name: float(value) for name, value in found.items()}


def first(k: int, scores: Tensor) -> Tensor:
    """True for the k highest labels of each row, of ties those that come first: (N, L)."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True)


def common_threshold(scores: Tensor, target: Tensor) -> Tensor:
    """The threshold for all labels with the greatest OF1, 0-d: a label is present where its score is above it."""
    return _best(scores.reshape(-1, 1), target.reshape(-1, 1))[0]


def label_thresholds(scores: Tensor, target: Tensor) -> Tensor:
    """The threshold of each label with its greatest F1, (L,); the common one for labels that no row has."""
    return torch.where(target.sum(0) > 0, _best(scores, target), common_threshold(scores, target))


def _best(scores: Tensor, target: Tensor) -> Tensor:
    """Half-way between two scores that are next to each other; -inf to take every row; of equals the highest: (L,)."""
    ascending, order = scores.double().mT.contiguous().sort(-1)
    present = target.double().mT.gather(-1, order)
    taken = torch.arange(scores.shape[0], 0, -1, dtype=torch.float64, device=scores.device)
    hits = present.flip(-1).cumsum(-1).flip(-1)
    f1 = 2 * hits / (taken + present.sum(-1, keepdim=True))
    lower = torch.cat([torch.full_like(ascending[:, :1], -torch.inf), ascending[:, :-1]], -1)
    f1 = torch.where(lower < ascending, f1, -1.0)  # no threshold parts a group of ties
    at = f1.shape[-1] - 1 - f1.flip(-1).argmax(-1, keepdim=True)
    low, high = lower.gather(-1, at)[:, 0], ascending.gather(-1, at)[:, 0]
    middle = low + (high - low) / 2
    return torch.where(middle < high, middle, low)

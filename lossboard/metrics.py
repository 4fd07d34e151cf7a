"""What is measured of a trained network besides its accuracy curves: of its probabilities, once, at the end.

scikit-learn and torchmetrics have these metrics and tests hold them equal; here they are a few tensor operations,
because a small network is trained in less time than a library's checks of its arguments take.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lossboard.problem import MultiLabel, Problem
from reference.metrics.multilabel import frequency_groups, multilabel_metrics
from reference.metrics.multilabel_decisions import label_thresholds
from reference.metrics.multilabel_ranking import average_precisions, rows_of_labels

TOP = 5  # top-2 to top-5 accuracy
BINS = 15  # of confidence, of equal width


def score(problem: Problem, scores: Tensor, target: Tensor) -> float:
    """What is measured after an epoch, of scores (N, C) for rows with these targets (N,), or (N, L)."""
    if isinstance(problem, MultiLabel):
        return mean_average_precision(scores, target)
    right = (~(scores < scores.gather(1, target[:, None]))).sum(1) == 1  # the largest alone; ties and NaN are wrong
    return balanced(right, target) if problem.balanced else int(right.sum()) / len(target)


def mean_average_precision(scores: Tensor, target: Tensor) -> float:
    """Of the labels that some row has, of scores (N, L); 0 where no row has any. NaN is the lowest score."""
    own = (target > 0).any(0)
    known = torch.where(scores.isnan(), -torch.inf, scores)[:, own]
    return float(average_precisions(rows_of_labels(known, target[:, own])).mean()) if own.any() else 0.0


def metrics(problem: Problem, predictions: Callable[[str], Tensor]) -> dict[str, float]:
    """Metrics of one run: ``predictions(part)`` are those of the rows of "train", "val" or "test".

    They are log-probabilities (N, C), or logits (N, L) of a multi-label problem.
    """
    if isinstance(problem, MultiLabel):
        return of_labels(problem, predictions)
    return of_classes(problem, predictions)


LEFT_OUT = {  # "map" is an epoch's score, "ndcg1" is "p1", "one_error" what that leaves
    *("map", "one_error", "ndcg1"),
    *(f"top3_{name}" for name in ("cp", "cr", "op", "or", "macro_f1", "hamming", "subset")),
}


def of_labels(problem: MultiLabel, logits: Callable[[str], Tensor]) -> dict[str, float]:
    """What ``multilabel_metrics`` has of the test rows, but for what another says already or few ask for.

    Decisions are at a probability of 1/2, ``fixed``, and at each label's best threshold in F1 on the validation rows as
    they were observed, ``tuned``. ``map_new`` is the mean average precision on the rows that are new.
    """
    scores, target = logits("test"), problem.labels[problem.test]
    tuned = label_thresholds(logits("val"), problem.labels[problem.val])
    counts, rows = problem.clean[problem.train].sum(0), len(problem.train)
    found = multilabel_metrics(scores, target, counts=counts, rows=rows, fixed=0.0, tuned=tuned)
    found["map_new"] = mean_average_precision(scores[problem.new], target[problem.new])
    return {name: value for name, value in found.items() if name not in LEFT_OUT}


def of_classes(problem: Problem, log_probabilities: Callable[[str], Tensor]) -> dict[str, float]:
    """Metrics of log-probabilities (N, C).

    ``top2`` to ``top5`` (where there are more classes; ``top1`` of a balanced problem), ``nll``, ``ece`` and
    ``balanced`` are of the clean test labels; ``memorised`` is the share of the wrong training labels that are
    predicted, where there are any. Of a balanced problem ``recall_head``, ``recall_medium`` and ``recall_tail`` are the
    mean recall of classes by their size.
    """
    log_p, target = log_probabilities("test").double(), problem.labels[problem.test]
    own = log_p.gather(1, target[:, None])
    rank = (~(log_p < own)).sum(1)  # 1 is the largest alone; ties count against the label, NaN too
    rank = torch.where(own[:, 0].isnan(), problem.classes + 1, rank)
    found = {f"top{k}": share(rank <= k) for k in range(2, min(TOP, problem.classes - 1) + 1)}
    found["nll"] = float(-own.mean())
    found["ece"] = calibration_error(log_p, target)
    found["balanced"] = balanced(rank == 1, target)
    if problem.balanced:  # of others it is an epoch's score
        found["top1"] = share(rank == 1)
        for name, group in frequency_groups(problem.told("counts")).items():
            own = group[target]
            if own.any():
                found[f"recall_{name}"] = balanced((rank == 1)[own], target[own])
    wrong = problem.labels[problem.train] != problem.clean[problem.train]
    if wrong.any():
        seen = log_probabilities("train")[wrong]
        given = seen.gather(1, problem.labels[problem.train][wrong][:, None])
        found["memorised"] = share((~(seen < given)).sum(1) == 1)
    return found


def share(flags: Tensor) -> float:
    """How many of these (N,) are true."""
    return float(flags.double().mean())


def calibration_error(log_p: Tensor, target: Tensor) -> float:
    """Expected calibration error of the most probable class in 15 bins of equal width (Guo et al., ICML 2017)."""
    confidence, predicted = log_p.exp().max(1)
    if confidence.isnan().any():
        return float("nan")
    right = (predicted == target).double()
    place = (confidence * BINS).ceil().clamp(1, BINS).long() - 1  # bins are open below and closed above
    gap = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, right - confidence)
    return float(gap.abs().sum() / len(target))


def balanced(right: Tensor, target: Tensor) -> float:
    """The mean of the recall of every class that occurs."""
    count = target.bincount().double()
    hits = torch.zeros_like(count).index_add_(0, target, right.double())
    return float((hits / count)[count > 0].mean())

"""What is measured of a trained network besides its accuracy curves: of its probabilities, once, at the end.

scikit-learn and torchmetrics have these metrics and tests hold them equal; here they are a few tensor operations,
because a small network is trained in less time than a library's checks of its arguments take.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lossboard.problem import Problem

TOP = 5  # top-2 to top-5 accuracy
BINS = 15  # of confidence, of equal width


def metrics(problem: Problem, log_probabilities: Callable[[str], Tensor]) -> dict[str, float]:
    """Metrics of one run: ``log_probabilities(part)`` are those (N, C) of the rows of "train" or "test".

    ``top2`` to ``top5`` (where there are more classes), ``nll``, ``ece`` and ``balanced`` are of the clean test labels;
    ``memorised`` is the share of the wrong training labels that are predicted, where there are any.
    """
    log_p, target = log_probabilities("test").double(), problem.labels[problem.test]
    own = log_p.gather(1, target[:, None])
    rank = (log_p >= own).sum(1)  # 1 is the largest alone; ties count against the label, NaN too
    rank = torch.where(own[:, 0].isnan(), problem.classes + 1, rank)
    found = {f"top{k}": share(rank <= k) for k in range(2, min(TOP, problem.classes - 1) + 1)}
    found["nll"] = float(-own.mean())
    found["ece"] = calibration_error(log_p, target)
    found["balanced"] = balanced(rank == 1, target)
    wrong = problem.labels[problem.train] != problem.clean[problem.train]
    if wrong.any():
        seen = log_probabilities("train")[wrong]
        given = seen.gather(1, problem.labels[problem.train][wrong][:, None])
        found["memorised"] = share((seen >= given).sum(1) == 1)
    return found


def share(flags: Tensor) -> float:
    """How many of these (N,) are true."""
    return float(flags.double().mean())


def calibration_error(log_p: Tensor, target: Tensor) -> float:
    """Expected calibration error of the most probable class in 15 bins of equal width (Guo et al., ICML 2017)."""
    confidence, predicted = log_p.exp().max(1)
    right = (predicted == target).double()
    place = (confidence * BINS).ceil().clamp(1, BINS).long() - 1  # bins are open below and closed above
    gap = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, right - confidence)
    return float(gap.abs().sum() / len(target))


def balanced(right: Tensor, target: Tensor) -> float:
    """The mean of the recall of every class that occurs."""
    count = target.bincount().double()
    hits = torch.zeros_like(count).index_add_(0, target, right.double())
    return float((hits / count)[count > 0].mean())

"""The estimators' own bias: what each says of predictions whose calibration error is known, by the number of samples.

A function of the metrics' source and of this file's constants; kept as an artifact, since it takes some seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lossboard.artifacts import artifact
from lossboard.problem import stream
from lossboard.sources import source
from lossboard.train import one_thread
from reference.metrics import calibration
from reference.metrics.kernel import kernel_ece
from reference.metrics.predictions import top_label
from reference.metrics.simulated import Simulation, bias
from reference.metrics.smooth import smooth_error

DRAWS = {100: 60, 300: 40, 1000: 20, 3000: 8}  # samples of a test set -> how many of them are drawn
CASES = {  # ten classes, confidences most of which are near 1
    "calibrated": Simulation(classes=10, skew=2.0),
    "too sure": Simulation(classes=10, skew=2.0, slope=0.9),
}
Estimator = Callable[[Tensor, Tensor], float]


def _smooth(log_p: Tensor, target: Tensor) -> float:
    confidence, right = top_label(log_p, target)
    return smooth_error(confidence.numpy(), (confidence - right).numpy())


ESTIMATORS: Mapping[str, Estimator] = {  # of the mean absolute error of the predicted class's confidence
    "ece": calibration.ece,
    "sweep_ece": calibration.sweep_ece,
    "debiased_ece": calibration.debiased_ece,
    "kernel_ece": kernel_ece,
    "smooth_ece": _smooth,
}


@dataclass(frozen=True)
class Line:
    """One estimator on test sets of one size: its mean error and twice the standard error of that."""

    case: str
    truth: float
    estimator: str
    samples: int
    bias: float
    margin: float


def lines() -> list[Line]:
    """Every estimator on every case and size."""
    modules = [f"reference.metrics.{name}" for name in ("calibration", "kernel", "smooth", "simulated")]
    made_of = {
        "metrics": [source(module) for module in modules],
        "draws": list(DRAWS.items()),
        "cases": {name: repr(case) for name, case in CASES.items()},
        "estimators": list(ESTIMATORS),
        "torch": torch.__version__,
    }
    found = artifact("bias", made_of, _measured).tensors
    return [
        Line(case, CASES[case].error(), name, samples, *(float(f"{v:.4g}") for v in found[case][i, k].tolist()))
        for case in CASES
        for i, name in enumerate(ESTIMATORS)
        for k, samples in enumerate(DRAWS)
    ]


def _measured() -> dict[str, Tensor]:
    """Of each case: bias and twice its standard error (estimators, sizes, 2)."""
    one_thread()
    found = {}
    for name, case in CASES.items():
        truth = case.error()
        values = [
            [
                bias(estimator, case, truth, rows=rows, draws=draws, generator=stream("bias", name, rows))
                for rows, draws in DRAWS.items()
            ]
            for estimator in ESTIMATORS.values()
        ]
        found[name] = torch.tensor([[(each.bias, 2 * each.standard_error) for each in row] for row in values])
    return found

"""The reject option of a network that is trained: scores by which its predictions are accepted, beside each other.

The confidence, the margin of the two largest probabilities and the entropy need no fitting; a logistic regression and
the learned rejector are fitted to half of the validation rows, and the thresholds of all five are set on the other
half. All are measured for the control alone: the question is about a fixed predictor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from reference.metrics.predictions import top_label
from reference.metrics.selective import margin, negative_entropy, risk_curve, threshold_at
from reference.rejection import learned_rejector, two_stage_rejector
from suites.calibration.inputs import Rows

COST = 0.05  # of a rejection, for the rejectors; and the risk that thresholds are set for
COVERAGES = tuple(range(10, 101, 10))  # percent
SCORES = ("confidence", "margin", "entropy", "logistic", "learned")
WIDEST = 100  # features of a row that rejectors see beside the outputs


def measured(outputs: Mapping[str, Tensor], rows: Rows, generator: Generator) -> dict[str, float]:
    """For each score the area under its risk-coverage curve, points of it, and what a threshold set for 5 % gives."""
    z = {part: outputs[part].double() for part in ("val", "test")}
    x = {"val": rows.features[rows.val], "test": rows.features[rows.test]}
    log_p = {part: torch.log_softmax(z[part], 1) for part in z}
    wrong = {part: 1 - top_label(log_p[part], rows.labels[getattr(rows, part)])[1] for part in z}
    seen = {part: _features(log_p[part], x[part]) for part in z}
    fitted, held = slice(0, None, 2), slice(1, None, 2)
    logistic = two_stage_rejector(seen["val"][fitted], wrong["val"][fitted], cost=COST)
    learned = learned_rejector(seen["val"][fitted], wrong["val"][fitted], generator, cost=COST)
    scores = {
        "confidence": {part: log_p[part].amax(1) for part in z},
        "margin": {part: margin(log_p[part]) for part in z},
        "entropy": {part: negative_entropy(log_p[part]) for part in z},
        "logistic": {part: logistic(seen[part]) for part in z},
        "learned": {part: learned(seen[part]) for part in z},
    }
    found: dict[str, float] = {}
    for name, score in scores.items():
        curve = risk_curve(score["test"], wrong["test"])
        accepted = score["test"] >= threshold_at(score["val"][held], wrong["val"][held], COST)
        found[f"reject_{name}_aurc"] = curve.aurc
        found[f"reject_{name}_accepted"] = float(accepted.double().mean())
        found[f"reject_{name}_risk"] = float(wrong["test"][accepted].mean()) if accepted.any() else 0.0
        found |= {f"reject_{name}_at{c}": curve.risk_at(c / 100) for c in COVERAGES}
    return found


def _features(log_p: Tensor, x: Tensor) -> Tensor:
    """What rejectors see (N, F): the probabilities in order, their logarithms by class, and the inputs where few."""
    ordered = log_p.exp().sort(1, descending=True).values[:, :3]
    inputs = [x.flatten(1).double()] if x.flatten(1).shape[1] <= WIDEST else []
    return torch.cat([ordered, log_p.clamp(min=-30), *inputs], 1)

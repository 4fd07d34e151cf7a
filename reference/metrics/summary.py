"""All metrics of calibration that need no further choice, in one pass over the probabilities."""

import torch
from torch import Tensor

from reference.metrics.bins import BINS, adaptive, equal_mass, equal_width, monotone_sweep
from reference.metrics.calibration import expected_if_calibrated
from reference.metrics.classwise import class_bins, decomposition
from reference.metrics.kernel import kernel_ece
from reference.metrics.predictions import top_label
from reference.metrics.scores import nll
from reference.metrics.selective import risk_curve
from reference.metrics.smooth import smooth_error

RISKS = (0.01, 0.05)  # of which the coverage is told


def summary(log_p: Tensor, target: Tensor) -> dict[str, float]:
    """Metrics by id of log-probabilities (N, C) and targets (N,), binned ones with 15 bins.

    ``reliability``, ``resolution``, ``uncertainty`` and ``within`` make up ``brier``.
    """
    confidence, right = top_label(log_p, target)
    width, mass = equal_width(confidence, right), equal_mass(confidence, right)
    classes = class_bins(log_p, target, BINS)
    parts = decomposition(classes)
    curve = risk_curve(confidence, 1 - right)
    return {
        "accuracy": float(right.mean()),
        "nll": nll(log_p, target),
        "brier": classes.brier,
        "reliability": parts.reliability,
        "resolution": parts.resolution,
        "uncertainty": parts.uncertainty,
        "within": parts.within,
        "sharpness": classes.sharpness,
        "ece": width.ece,
        "ece_if_calibrated": expected_if_calibrated(confidence, equal_width, torch.Generator().manual_seed(0)),
        "l2_ece": width.l2,
        "mce": width.mce,
        "ace": width.ace,
        "debiased_ece": width.ece_debiased,
        "ece_equal_mass": mass.ece,
        "debiased_l2": mass.l2_debiased,
        "adaptive_ece": adaptive(confidence, right).ece,
        "sweep_ece": monotone_sweep(confidence, right).ece,
        "classwise_ece": classes.ece,
        "smooth_ece": smooth_error(confidence.numpy(), (confidence - right).numpy()),
        "kernel_ece": kernel_ece(log_p, target),
        "aurc": curve.aurc,
        "excess_aurc": curve.excess_aurc,
    } | {f"coverage_{risk:g}": curve.coverage_at(risk) for risk in RISKS}

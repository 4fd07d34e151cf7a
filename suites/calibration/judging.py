"""From a network's outputs to a record: fit the calibrator on the validation rows, measure on the test rows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lossboard.problem import fingerprint, stream
from lossboard.protocol import Cell
from lossboard.records import Record
from lossboard.run import Context, recorded
from reference.methods import PLAIN, Method
from reference.metrics.bins import equal_width
from reference.metrics.predictions import top_label
from reference.metrics.scores import nll
from reference.metrics.smooth import smooth_error
from reference.metrics.summary import summary
from suites.calibration import rejecting
from suites.calibration.inputs import copies, rows, shifts

if TYPE_CHECKING:
    from suites.calibration.networks import Network

BINS = 10  # of the reliability diagrams, for which a record has their counts

Outputs = Mapping[str, Tensor]  # of a set of rows: logits (N, C), or log-probabilities where the loss has a link


def record(cell: Cell, context: Context, network: Network) -> Record:
    """What a cell gave."""
    start = time.process_time()
    method = context.methods[cell.method]
    if network.outputs is None:
        return recorded(cell, "diverged", {}, seconds=network.seconds, bits=network.bits)
    found = rows(cell.task, cell.seed, context.data)
    own = found.labels[found.val], found.labels[found.test]
    images = found.features.ndim == 4
    changes = list(shifts(images))
    log_p = probabilities(method, cell, network.outputs, own[0], ["test", *changes], len(copies(images)))
    metrics = judged(network.outputs, log_p, *own)
    shifted = [main(log_p[name], own[1]) for name in changes]
    metrics |= {f"shifted_{name}": sum(each[name] for each in shifted) / len(shifted) for name in shifted[0]}
    if cell.method == PLAIN:
        metrics |= rejecting.measured(network.outputs, found, stream(cell.task.dataset, cell.seed, "rejector"))
    seconds = time.process_time() - start
    if method.calibrator is None:
        return recorded(cell, "ok", metrics, seconds=network.seconds + seconds, bits=network.bits)
    return recorded(cell, "ok", metrics, seconds=seconds, bits=fingerprint([log_p["test"]]))


def probabilities(
    method: Method, cell: Cell, outputs: Outputs, target: Tensor, names: list[str], count: int
) -> dict[str, Tensor]:
    """Log-probabilities (N, C), float64, of these sets of rows: the calibrator is fitted to "val" and its labels (N,).

    ``count`` is how many transformed copies a set has, for a calibrator that asks for them.
    """
    if method.calibrator is None:
        return {name: torch.log_softmax(outputs[name].double(), 1) for name in names}
    supplied, given = method.calibrator.supplied, {}
    if "generator" in supplied:
        given["generator"] = stream(cell.task.dataset, cell.seed, "calibrator")

    def seen(name: str) -> dict[str, Tensor]:
        """The outputs of a set's copies, where the calibrator asks for them."""
        wanted = [outputs[f"{name}-copy{k}"] for k in range(count)] if "copies" in supplied else []
        return {"copies": torch.stack(wanted)} if wanted else {}

    params = {key: cell.params[key] for key in method.calibrator.defaults}
    fitted = method.calibrator.function(outputs["val"], target, **params, **given, **seen("val"))
    return {name: fitted(outputs[name], **seen(name)) for name in names}


def judged(outputs: Outputs, log_p: Outputs, val: Tensor, test: Tensor) -> dict[str, float]:
    """Metrics of the test rows, and their bins for a reliability diagram: counts, and sums of confidence and rights."""
    before = torch.log_softmax(outputs["val"].double(), 1)
    confidence, right = top_label(log_p["test"], test)
    edges = torch.arange(1, BINS, dtype=torch.float64) / BINS
    place = torch.bucketize(confidence.double(), edges)
    weights = {"n": torch.ones_like(right), "conf": confidence, "right": right}
    totals = {what: torch.bincount(place, each.double(), BINS) for what, each in weights.items()}
    sums = {f"bin{k + 1:02}_{what}": float(total[k]) for k in range(BINS) for what, total in totals.items()}
    return {
        **summary(log_p["test"], test),
        "val": float(torch.tensor(-nll(before, val)).exp()),
        "changed": float((log_p["test"].argmax(1) != outputs["test"].argmax(1)).double().mean()),
        **sums,
    }


def main(log_p: Tensor, target: Tensor) -> dict[str, float]:
    """The metrics that shifted test sets are judged by."""
    confidence, right = top_label(log_p, target)
    p = log_p.exp()
    own = p.gather(1, target[:, None])[:, 0]
    return {
        "smooth_ece": smooth_error(confidence.numpy(), (confidence - right).numpy()),
        "ece": equal_width(confidence, right).ece,
        "accuracy": float(right.mean()),
        "nll": nll(log_p, target),
        "brier": float(((p * p).sum(1) - 2 * own + 1).mean()),
    }

"""Tasks that train nothing: probabilities that a network gave to CIFAR-10's test images, each without its own label.

Half of the images are for fitting, with CIFAR-10's labels; the others judge. On ``cifar10h`` they judge by what people
answered: each of some fifty answers to an image is a label, so that the target is their distribution.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor

from lossboard.problem import divided, fingerprint, stream
from lossboard.protocol import Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from suites.calibration import PREDICTED
from suites.calibration.judging import judged, probabilities


def records(unit: Unit, context: Context) -> Iterable[Record]:
    """A record for each cell."""
    torch.set_num_threads(1)
    for cell in unit.cells:
        start = time.process_time()
        method = context.methods[cell.method]
        outputs, val, test, answered = _given(cell.task, cell.seed, context)
        log_p = probabilities(method, cell, outputs, val, ["test"], 0)
        bits = fingerprint([log_p["test"]])
        seen, judge = ({name: each["test"][answered] for name, each in (("test", part),)} for part in (outputs, log_p))
        metrics = judged({"val": outputs["val"], **seen}, judge, val, test)
        yield Record(
            method=cell.method,
            task=cell.task.name,
            id=cell.task.id,
            seed=cell.seed,
            trial=cell.trial,
            params=dict(cell.params),
            status="ok",
            metrics=metrics,
            seconds=time.process_time() - start,
            bits=bits,
        )


def _given(task: Task, seed: int, context: Context) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Log-probabilities of both halves, labels of the first, and labels of the second with the row of each."""
    given, own = context.data(PREDICTED[task.dataset]), context.data(task.dataset)
    log_p = torch.from_numpy(given.features["test"].copy()).double().clamp(min=1e-12).log()
    labels = torch.from_numpy(given.labels["test"].copy())
    _, val, test = divided(task.split, len(labels), len(labels), stream(PREDICTED[task.dataset], seed, "split"))
    outputs = {"val": log_p[val], "test": log_p[test]}
    if task.dataset == PREDICTED[task.dataset]:
        return outputs, labels[val], labels[test], torch.arange(len(test))
    counts = torch.from_numpy(own.features["test"].copy()).long()[test]
    row = torch.arange(len(test)).repeat_interleave(counts.sum(1))
    answers = torch.arange(counts.shape[1]).repeat(len(test)).repeat_interleave(counts.flatten())
    return outputs, labels[val], answers, row

"""Calibration: train with a loss, fit a calibrator to the network's outputs, judge the probabilities.

A method is a training loss with a calibrator behind it, or without one: ``focal`` trains, ``temperature`` stands behind
cross-entropy, ``temperature-focal`` behind focal loss. A network is trained once; its outputs are kept as an artifact
that every calibrator behind it shares.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from lossboard.protocol import Cell, Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from reference.methods import PLAIN, Method, calibrated, catalogue

LOSSES = (  # those of the other kind of loss that are trained here; all of ``reference.calibration`` are
    *("bitemp", "boot_soft", "ce", "focal", "gce", "js", "ldr", "logitclip", "ls", "mixup", "mse", "nce_rce", "poly1"),
    *("pskd", "sce", "sqen", "tce"),
)
EVERYWHERE = "temperature"  # the calibrator that stands behind every loss
GIVEN = "predictions-only"  # a tag: what needs a network's predictions and neither its inputs nor its training
NETWORKS = 120  # trained in a unit at most
PREDICTED = {"cifar10_cvprobs": "cifar10_cvprobs", "cifar10h": "cifar10_cvprobs"}  # dataset -> that of predictions
SECONDS = {"cnn": 150e-6, "resnet18": 40e-3}  # a training image, on one core
MEASURED_S = 6e-5  # all metrics, a test row
REJECTING_S = 0.3  # the rejectors, a network


def methods() -> Mapping[str, Method]:
    """Every training loss, every calibrator behind cross-entropy, and temperature scaling behind every loss."""
    known = {id: method for id, method in catalogue("loss").items() if id in LOSSES} | dict(catalogue("calibration"))
    losses = {id: dataclasses.replace(method, kind="calibration") for id, method in sorted(known.items())}
    fitted = {id: method for id, method in catalogue("calibrator").items() if id != "none"}
    behind = [_tagged(calibrated(method, losses[PLAIN])) for method in fitted.values()]
    behind += [calibrated(fitted[EVERYWHERE], method) for id, method in losses.items() if id != PLAIN]
    return dict(sorted((losses | {method.id: method for method in behind}).items()))


def _tagged(method: Method) -> Method:
    alone = method.calibrator is not None and "copies" not in method.calibrator.supplied
    return dataclasses.replace(method, tags=(*method.tags, *([GIVEN] if alone else [])))


def datasets(cells: Iterable[Cell]) -> set[str]:
    """What is loaded beside the tasks' own data: predictions that are given."""
    return {PREDICTED[cell.task.dataset] for cell in cells if cell.task.dataset in PREDICTED}


def trained_with(method: str) -> str:
    """The training loss of a method's id, as far as an id tells: what cells of one network have in common.

    >>> trained_with("temperature-focal"), trained_with("focal")
    ('focal', 'focal')
    """
    first, _, rest = method.partition("-")
    found = catalogue("calibrator").keys() - {"none"}
    return (rest or PLAIN) if first in found else method


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """All that stands behind one training loss on one dataset; networks of images apart, given predictions together."""

    def together(cell: Cell) -> tuple[str, ...]:
        task = cell.task
        parts = repr([task.parts.get(part) for part in ("split", "model", "recipe")])
        if "model" not in task.parts:
            return (task.dataset, parts)
        alone = tuple(map(str, network(cell))) if task.model.kind != "mlp" else ()
        return (trained_with(cell.method), task.dataset, parts, *alone)

    def network(cell: Cell) -> tuple[str, int, int]:
        return (cell.task.name, cell.seed, cell.trial)

    for _, found in groupby(sorted(cells, key=together), key=together):
        same = sorted(found, key=network)
        networks = [tuple(own) for _, own in groupby(same, key=network)]
        for start in range(0, len(networks), NETWORKS):
            part = networks[start : start + NETWORKS]
            unit = tuple(itertools.chain.from_iterable(part))
            yield Unit(unit, cost=len(part) * _seconds(same[0].task) + sum(map(_measured_s, unit)))


def _rows(task: Task) -> tuple[float, float]:
    """About how many rows a task trains on and is judged by."""
    from lossboard.data import pins

    pin, split = pins()[task.dataset], task.split
    own = sum(count for name, count in pin.splits.items() if name != "test") or pin.splits["test"]
    test = pin.splits.get("test", 0) * (split.kind == "official") or own * split.test
    return min(own * (1 - split.val - split.test), split.train or own), min(test, split.held_out or test)


def _seconds(task: Task) -> float:
    """About how long a network takes a processor: what a row of an epoch took on the machine this was written on."""
    from lossboard.data import pins

    if "recipe" not in task.parts:
        return 0.0
    each = 0.6e-6 + 3e-9 * math.prod(pins()[task.dataset].shape) + 2e-9 * task.model.width * task.model.width**0.5
    return (each if task.model.kind == "mlp" else SECONDS[task.model.kind]) * _rows(task)[0] * task.recipe.epochs


def _measured_s(cell: Cell) -> float:
    """About how long all metrics of a cell take."""
    return 0.02 + MEASURED_S * _rows(cell.task)[1] + (REJECTING_S if cell.method == PLAIN else 0.0)


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Train what is not kept yet, and judge every method of the unit. Images train on a GPU where there is one."""
    from suites.calibration import judging, networks, predictions

    if "recipe" not in unit.cells[0].task.parts:
        yield from predictions.records(unit, context)
        return
    found = networks.trained(unit.cells, context)
    for cell in unit.cells:
        yield judging.record(cell, context, found[networks.key(cell)])

"""Compression: how much accuracy does a network keep when it is stored in fewer bits, or with fewer weights?

A network is trained once for a task's data, model, loss and seed, and kept as an artifact; every compressor is given
the same network and the same calibration rows. What it returns is written to bytes, read again, and judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from lossboard.protocol import Cell, Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from reference.methods import Method, catalogue
from suites.compression.settings import Loss, Setting, Training

SECTIONS = {"setting": Setting, "loss": Loss, "training": Training}
# Seconds of a row of a training step on one core; of models of the hub a guess: they ask for a GPU.
TRAINING_S = {"mlp": 1e-5, "cnn": 5e-5, "resnet8": 1e-3, "transformer": 1.2e-2, "causal-lm": 1.0}


def methods() -> Mapping[str, Method]:
    """Every compressor; its kind is what it does: "quantization" or "pruning"."""
    return {
        id: dataclasses.replace(method, kind="quantization" if "grid" in method.supplied else "pruning")
        for id, method in catalogue("compressor").items()
    }


def network(task: Task, seed: int) -> tuple[str, ...]:
    """What decides the network of a cell."""
    parts = (task.parts.get(part) for part in ("split", "model", "loss", "training"))
    return (task.dataset, task.data, *map(repr, parts), str(seed))


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """All compressors of one network at one setting. A network's first unit trains it, and is the dearer for that.

    Units are begun in the order of their cost: where training takes long, no two wait for one network.
    """
    known, trained = methods(), set[tuple[str, ...]]()

    def together(cell: Cell) -> tuple[str, ...]:
        return (*network(cell.task, cell.seed), cell.task.id)

    for key, found in groupby(sorted(cells, key=together), key=together):
        own = tuple(found)
        training = 0.0 if key[:-1] in trained else _step_s(own[0].task) * own[0].task.parts["training"].steps
        trained.add(key[:-1])
        yield Unit(own, cost=training + sum(_seconds(cell, known) for cell in own))


def _step_s(task: Task) -> float:
    """About how long a step of training takes a processor."""
    return 2e-4 + TRAINING_S[task.model.kind] * task.parts["training"].batch


def _seconds(cell: Cell, known: Mapping[str, Method]) -> float:
    """About how long a cell takes."""
    training: Training = cell.task.parts["training"]
    further = training.further if "training" in known[cell.method].supplied else 0.05 * training.further
    return 0.05 + _step_s(cell.task) * further


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Train the network if it is not kept yet, and compress it in every way that the unit asks for."""
    from suites.compression import judging, networks

    subject = networks.subject(unit.cells[0].task, unit.cells[0].seed, context.data)
    for cell in unit.cells:
        yield judging.record(cell, context.methods[cell.method], subject)

"""Noisy labels: train with corrupted labels, measure on clean ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from lossboard.errors import UsageError
from lossboard.protocol import Cell, Split, Task, Unit, nearest
from lossboard.records import Record
from lossboard.run import Context, chunks, recorded

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from lossboard.data import Dataset
    from lossboard.problem import Problem

FLEET = 216  # runs of a unit: a method and its compiled step meet each dataset once; a kill loses so many
SECONDS = {"cnn": 90e-6, "cnn8": 10e-3, "resnet18": 40e-3, "resnet34": 75e-3}  # a training image, on one core


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """One fleet for each method, dataset and network; convolutional networks train one at a time."""

    alike: dict[int, str] = {}  # tasks are few and cells many

    def together(cell: Cell) -> tuple[str, ...]:
        task = cell.task
        if id(task) not in alike:
            alike[id(task)] = repr((task.split, task.model, task.recipe))
        return (cell.method, task.dataset, alike[id(task)])

    for _, found in groupby(sorted(cells, key=together), key=together):
        runs = list(found)
        task = runs[0].task
        for part in chunks(runs, FLEET if task.model.kind == "mlp" else 1):
            yield Unit(part, cost=len(part) * _seconds(task))


def _seconds(task: Task) -> float:
    """About how long one run takes a processor: what a row of an epoch took on the machine this was written on."""
    from lossboard.data import pins

    pin = pins()[task.dataset]
    rows = sum(count for name, count in pin.splits.items() if name != "test") * (1 - task.split.val - task.split.test)
    each = 0.11e-6 + 0.9e-9 * math.prod(pin.shape) if task.model.kind == "mlp" else SECONDS[task.model.kind]
    return each * min(rows, task.split.train or rows) * task.recipe.epochs


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Train the unit's cells and yield a record each. Networks of images train on a GPU where there is one."""
    import torch

    from lossboard.fleet import fleet
    from lossboard.problem import Run
    from lossboard.train import train

    task, method = unit.cells[0].task, context.methods[unit.cells[0].method]
    runs = [Run(problem(c.task, c.seed, context.data), c.params, (c.task.dataset, c.seed)) for c in unit.cells]
    features = runs[0].problem.features
    if task.model.kind == "mlp":
        width = task.model.width or min(features.shape[1], runs[0].problem.classes)
        outcomes = fleet(method, runs, [width] * task.model.layers, task.recipe)
    else:
        network = networks(*features.shape[1:3]).get(task.model.kind)
        if network is None:
            raise UsageError(f"model kind '{task.model.kind}'; {nearest(task.model.kind, ('mlp', *networks(1, 28)))}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        outcomes = [train(method, one, network, task.recipe, device=device) for one in runs]
    for cell, outcome in zip(unit.cells, outcomes, strict=True):
        yield recorded(cell, outcome.status, outcome.metrics(), seconds=outcome.seconds, bits=outcome.bits)


def networks(channels: int, side: int) -> dict[str, Callable[[int, Generator], nn.Module]]:
    """Kind of model -> the network for such images with so many outputs, its weights drawn from the generator."""
    from kernels.cnn import FastCNN
    from reference.models.cnn8 import CNN8
    from reference.models.resnet import resnet18, resnet34

    return {
        "cnn": functools.partial(FastCNN, channels, side),
        "cnn8": functools.partial(CNN8, channels, side),
        "resnet18": functools.partial(resnet18, channels),
        "resnet34": functools.partial(resnet34, channels),
    }


@functools.lru_cache(maxsize=256)
def problem(task: Task, seed: int, data: Callable[[str], Dataset]) -> Problem:
    """The task's data for one seed: split, then labels corrupted in the training and validation rows alone."""
    from lossboard.problem import Problem, divided, observed, stream
    from reference.noise import KINDS, TRANSITIONS, corrupt, transition

    features, labels, own, classes = _scaled(task.dataset, task.split, data)
    round_, fold = divmod(seed, task.split.folds)
    train, val, test = divided(task.split, len(labels), own, stream(task.dataset, seed, "split"), fold)
    rows = _joined(train, val)
    kind, rate = task.corruption.kind, task.corruption.rate
    if kind not in KINDS:
        raise UsageError(f"corruption kind '{kind}'; {nearest(kind, KINDS)}")
    noisy = labels.clone()
    noisy[rows] = corrupt(
        kind,
        labels[rows],
        classes,
        rate=rate,
        dataset=task.dataset,
        generator=stream(task.dataset, round_, "noise", kind, rate),
        features=features[rows].flatten(1),
        people=_people(task, rows, own, data),
    )
    if kind in TRANSITIONS:
        matrix = transition(kind, classes, rate, task.dataset)
    else:
        matrix = observed(labels[rows], noisy[rows], classes)
    return Problem(features, noisy, train, val, test, classes, labels, matrix)


def _people(task: Task, rows: Tensor, own: int, data: Callable[[str], Dataset]) -> Tensor | None:
    """What people said of these rows, where the corruption is theirs: they labelled the dataset's own training rows."""
    import torch

    from lossboard.data import human

    name = task.corruption.people
    if name is None:
        return None
    if rows.max() >= own:
        raise UsageError(f"{task.name}: people labelled the training rows alone; use a split of kind 'official'")
    return torch.from_numpy(human(data(task.dataset), name, task.corruption.rate))[rows]


@functools.lru_cache(maxsize=4)
def _scaled(dataset: str, split: Split, data: Callable[[str], Dataset]) -> tuple[Tensor, Tensor, int, int]:
    from lossboard.problem import scaled

    found = data(dataset)
    return (*scaled(found, split), found.classes)


def _joined(train: Tensor, val: Tensor) -> Tensor:
    """The rows whose labels are corrupted, in the order of the dataset: noise does not depend on who is held out."""
    import torch

    return torch.cat([train, val]).sort().values

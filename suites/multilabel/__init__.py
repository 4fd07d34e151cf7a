"""Multi-label and long-tailed data: which loss finds rare labels, and labels of which few were seen?"""

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
    from torch import Generator, Tensor

    from lossboard.data import Dataset
    from lossboard.problem import MultiLabel, Problem

FLEET = 200  # runs of a unit: a kill loses so many
TAIL = "long_tail"  # the corruption that cuts classes; its rate is the size of the smallest over that of the largest
HEAVY = {"neural_ndcg": 0.1e-6, "spml_rank": 0.01e-6}  # seconds a row of an epoch for each pair of labels


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """Fleets of one method on one dataset: whatever is seen of the labels; each long tail has rows of its own."""

    def together(cell: Cell) -> tuple[str, ...]:
        task = cell.task
        tail = task.name if task.kind == "longtail" else ""
        return (cell.method, task.dataset, tail, repr((task.split, task.model, task.recipe)))

    for _, found in groupby(sorted(cells, key=together), key=together):
        runs = list(found)
        each = _seconds(runs[0].method, runs[0].task)
        for part in chunks(runs, FLEET):
            yield Unit(part, cost=len(part) * each)


def _seconds(method: str, task: Task) -> float:
    """About how long one run takes a processor: what a row of an epoch took on the machine this was written on."""
    from lossboard.data import pins

    pin = pins()[task.dataset]
    features, labels = math.prod(pin.shape), pin.classes
    rows = sum(count for name, count in pin.splits.items() if name != "test") * (1 - task.split.val - task.split.test)
    each = 0.5e-6 + 0.1e-9 * task.model.width * (features + labels) + 30e-9 * labels
    each += HEAVY.get(method, 0.0) * labels**2
    return each * min(rows, task.split.train or rows) * task.recipe.epochs


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Train the unit's cells and yield a record each."""
    from lossboard.fleet import fleet
    from lossboard.problem import Run

    task, method = unit.cells[0].task, context.methods[unit.cells[0].method]
    if task.model.kind != "mlp":
        raise UsageError(f"model kind '{task.model.kind}'; {nearest(task.model.kind, ('mlp',))}")
    runs = [Run(problem(c.task, c.seed, context.data), c.params, (c.task.dataset, c.seed)) for c in unit.cells]
    # Eager: there are many pairs of a method and a shape, each with few runs, and a compilation takes seconds.
    outcomes = fleet(method, runs, [task.model.width] * task.model.layers, task.recipe, compiles=False)
    for cell, outcome in zip(unit.cells, outcomes, strict=True):
        yield recorded(cell, outcome.status, outcome.metrics(), seconds=outcome.seconds, bits=outcome.bits)


@functools.lru_cache(maxsize=256)
def problem(task: Task, seed: int, data: Callable[[str], Dataset]) -> Problem:
    """The task's data for one seed: sets of labels, of which training and validation rows show what the task says, or
    classes that are cut to a long tail."""
    if task.kind == "longtail":
        return _long_tail(task, seed, data)
    return _label_sets(task, seed, data)


def _label_sets(task: Task, seed: int, data: Callable[[str], Dataset]) -> MultiLabel:
    import torch

    from lossboard.data import repeated
    from lossboard.problem import MultiLabel, divided, stream
    from reference.partial import observed

    features, labels, own, classes = _scaled(task.dataset, task.split, data)
    train, val, test = divided(task.split, len(labels), own, stream(task.dataset, seed, "split"))
    rows = torch.cat([train, val]).sort().values
    kind, rate = task.corruption.kind, task.corruption.rate
    shown, seen = labels, None
    if kind != "everything":
        seen = torch.ones_like(labels)
        draw = stream(task.dataset, seed, "observed", kind, rate)
        seen[rows] = observed(kind, labels[rows], rate=rate, generator=draw)
        shown = labels * seen
    new = ~torch.from_numpy(repeated(features[test].numpy(), features[rows].numpy()))
    return MultiLabel(features, shown, train, val, test, classes, labels, seen=seen, new=new)


def _long_tail(task: Task, seed: int, data: Callable[[str], Dataset]) -> Problem:
    import torch

    from lossboard.problem import Problem, spread, stream
    from reference.tails import exponential

    features, labels, own, classes = _scaled(task.dataset, task.split, data)
    pool, test = torch.arange(own), spread(torch.arange(own, len(labels)), task.split.held_out)
    if task.split.kind == "random":  # of each class the same share, so that what is left is as large for every seed
        test, pool = _stratified(labels, task.split.test, stream(task.dataset, seed, "split"))
    kept = pool[exponential(labels[pool], classes, task.corruption.rate, stream(task.dataset, seed, TAIL))]
    order = kept[torch.randperm(len(kept), generator=stream(task.dataset, seed, TAIL, "split"))]
    val = round(task.split.val * len(kept))
    return Problem(features.flatten(1), labels, order[val:], order[:val], test, classes, labels, balanced=True)


def _stratified(labels: Tensor, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """The numbers of the rows of a share of every class, and of the others; each in order."""
    import torch

    order = torch.randperm(len(labels), generator=generator)
    groups = [order[labels[order] == label] for label in labels.unique()]
    cuts = [round(share * len(group)) for group in groups]
    first = torch.cat([group[:cut] for group, cut in zip(groups, cuts, strict=True)])
    others = torch.cat([group[cut:] for group, cut in zip(groups, cuts, strict=True)])
    return first.sort().values, others.sort().values


@functools.lru_cache(maxsize=16)
def _scaled(dataset: str, split: Split, data: Callable[[str], Dataset]) -> tuple[Tensor, Tensor, int, int]:
    """Features, labels as classes or in bytes, the number of rows not set aside for test, and of labels."""
    from lossboard.problem import scaled

    found = data(dataset)
    features, labels, own = scaled(found, split)
    if labels.ndim == 2:
        import torch

        labels = labels.to(torch.uint8)
    return features, labels, own, found.classes

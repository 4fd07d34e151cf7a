"""Trained networks of defences, kept as artifacts: what other defences learn from, combine, and attacks are run on."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Generator, Tensor, nn

from kernels.cnn import FastCNN
from lossboard import defend as loop
from lossboard.artifacts import Artifact, artifacts, unfinished
from lossboard.data import Dataset
from lossboard.environment import environment
from lossboard.errors import UsageError
from lossboard.problem import Problem, Run, divided, scaled, stream
from lossboard.protocol import Cell, Task, nearest
from lossboard.run import Context
from lossboard.sources import source
from reference.methods import Method, catalogue
from reference.models.mlp import MLP
from reference.models.pixels import Scaled
from reference.models.preact_resnet import PreActResNet
from suites.adversarial import SMALL

CODE = (  # whose change makes kept networks others, beside the defence's own
    *("suites.adversarial.networks", "lossboard.defend", "lossboard.problem", "lossboard.protocol", "lossboard.train"),
    *("reference.models.mlp", "reference.models.abreast", "reference.models.cnn", "reference.models.preact_resnet"),
    "reference.models.pixels",
    *("kernels.cnn", "kernels.stem", "kernels.pooled_convolution", "kernels.pooling"),
)
WIDTH = 32  # of hidden layers, where a task does not say
ABOUT = ("bits", "ok", "seconds", "passes", "val", "robust_val", "epoch")  # what is kept beside the parameters
Model = Callable[[Tensor], Tensor]  # inputs (N, ...) -> logits (N, C)


@dataclass(frozen=True)
class Network:
    """A trained network, or one that combines several, with what its training took and gave.

    ``val`` and ``robust_val`` are accuracies on validation rows, without and under the attack that chose the epoch;
    nan for a combination. ``seconds`` are its own, ``passes`` those of the networks that it needs, too.
    """

    model: Model
    ok: bool
    bits: str
    seconds: float
    passes: float
    val: float = math.nan
    robust_val: float = math.nan
    epoch: int = 0
    surrogates: tuple[Model, ...] = ()  # of a combination: its members, and the means of several of them


@functools.lru_cache(maxsize=8)
def problem(task: Task, seed: int, data: Callable[[str], Dataset]) -> Problem:
    """The task's rows for one seed, as images in [0, 1]: tables of a square number of features, and points as they are.

    Raises:
        UsageError: a feature is negative.
    """
    features, labels, own = scaled(data(task.dataset), dataclasses.replace(task.split, scale="unit"))
    if features.min() < 0:
        raise UsageError(f"'{task.dataset}' has negative features; attacks are made for inputs in [0, 1]")
    if features.ndim == 2:
        side = math.isqrt(features.shape[1])
        square = side * side == features.shape[1]
        features = features.view(-1, 1, side, side) if square else features.view(*features.shape, 1, 1)
    train, val, test = divided(task.split, len(labels), own, stream(task.dataset, seed, "split"))
    return Problem(features, labels, train, val, test, data(task.dataset).classes, labels)


def device(task: Task) -> str:
    """Where a task's networks are trained and attacked."""
    return "cuda" if torch.cuda.is_available() and task.model.kind not in SMALL else "cpu"


def _made(task: Task, rows: Problem, generator: Generator) -> nn.Module:
    """The task's network for these rows: behind a scaling by the mean and deviation of each channel."""
    x, model, classes = rows.features[rows.train], task.model, rows.classes
    channels, side = x.shape[1], x.shape[-1]
    mean, deviation = x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).tolist()
    hidden = [model.width or WIDTH] * model.layers
    narrow = {"width": model.width} if model.width else {}
    known: dict[str, Callable[[], nn.Module]] = {
        "mlp": lambda: MLP(math.prod(x.shape[1:]), hidden, classes, generator),
        "cnn": lambda: FastCNN(channels, side, classes, generator, **narrow),
        "preact_resnet18": lambda: PreActResNet(channels, classes, generator, (2, 2, 2, 2), **narrow),
    }
    if model.kind not in known:
        raise UsageError(f"model kind '{model.kind}'; {nearest(model.kind, known)}")
    return Scaled(known[model.kind](), mean, deviation, flat=model.kind in SMALL)


def network(cell: Cell, context: Context) -> Network:
    """The network of one cell, as :func:`networks` has it."""
    (found,) = networks([cell], context)
    return found


def networks(cells: Sequence[Cell], context: Context) -> list[Network]:
    """Those of cells of one method on one task: from the disk, or trained, and then kept; or combinations of several.

    Small networks are trained at once.
    """
    method = context.methods[cells[0].method]
    kinds = {id: (catalogue("defence")[id], [_needed(cell, id) for cell in cells]) for id in method.needs}
    found = {id: _networks(own, kind, [{}] * len(own), context) for id, (kind, own) in kinds.items()}
    needs = [{id: found[id][i] for id in method.needs} for i in range(len(cells))]
    if not method.combines:
        return _networks(cells, method, needs, context)
    return [_combined(cell, method, own) for cell, own in zip(cells, needs, strict=True)]


def _combined(cell: Cell, method: Method, needs: Mapping[str, Network]) -> Network:
    members = {id: one.model for id, one in needs.items() if isinstance(one.model, nn.Module)}
    passes = sum(one.passes for one in needs.values())
    ok = all(one.ok for one in needs.values())
    combination = loop.combined(method, members, cell.params)
    own: list[Model] = list(members.values())
    surrogates = (*own, *(mean(some) for count in range(2, len(own) + 1) for some in combinations(own, count)))
    return Network(combination, ok, "", 0.0, passes, surrogates=surrogates)


def mean(members: Sequence[Model]) -> Model:
    """The mean of their log-probabilities: what a combination says, about, without its kinks."""
    return lambda x: torch.stack([torch.log_softmax(member(x), 1) for member in members]).mean(0)


def _needed(cell: Cell, id: str) -> Cell:
    """The cell of a defence that another one needs: at its author's defaults, whatever the trial."""
    params = {"lr": cell.task.recipe.lr, **catalogue("defence")[id].defaults}
    return Cell(id, cell.task, cell.seed, 0, params)


def _networks(
    cells: Sequence[Cell], method: Method, needs: Sequence[Mapping[str, Network]], context: Context
) -> list[Network]:
    """Of this method, which combines nothing, with what each cell's needs."""
    task = cells[0].task
    rows = [problem(task, cell.seed, context.data) for cell in cells]
    made_of = [_made_of(cell, method) for cell in cells]

    def trained(at: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """The networks of these cells."""
        runs = [Run(rows[i], _params(cells[i], method), (task.dataset, cells[i].seed)) for i in at]
        teachers = [{id: one.model for id, one in needs[i].items() if isinstance(one.model, nn.Module)} for i in at]
        how: dict[str, Any] = {"network": functools.partial(_made, task), "recipe": task.recipe}
        how["threat"] = task.parts["threat"]
        if task.model.kind in SMALL:
            yield from map(_tensors, loop.defend(method, runs, teachers=teachers, **how))
            return
        for i, run, known in zip(at, runs, teachers, strict=True):
            how |= {"device": where, "checkpoint": unfinished("defence", made_of[i])}
            (done,) = loop.defend(method, [run], teachers=[known], **how)
            yield _tensors(done)

    where, found = device(task), []
    for i, kept in enumerate(artifacts("defence", made_of, trained)):
        unfinished("defence", made_of[i]).unlink(missing_ok=True)
        model = _made(task, rows[i], torch.Generator()).to(where)
        if rows[i].features.ndim == 4:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as it was trained
        network = _loaded(kept, model)
        passes = network.passes + sum(each.passes for each in needs[i].values())
        found.append(dataclasses.replace(network, passes=passes))
    return found


def _params(cell: Cell, method: Method) -> dict[str, float]:
    return {name: cell.params[name] for name in ("lr", *method.defaults)}


def _made_of(cell: Cell, method: Method) -> dict[str, Any]:
    """All that decides a network: of its task what it is trained with, and not how it is judged."""
    task = cell.task
    parts = {name: dataclasses.asdict(part) for name, part in task.parts.items() if name != "judging"}
    return {
        "suite": [task.suite, task.version],
        "data": [task.dataset, task.data],
        "parts": parts,
        "seed": cell.seed,
        "defence": method.id,
        "params": _params(cell, method),
        "source": [source(part) for part in (method.module, *(catalogue("defence")[id].module for id in method.needs))],
        "code": {module: source(module) for module in CODE},
        "env": dict(environment()),
        "device": device(task),
    }


def _tensors(done: loop.Defended) -> dict[str, Tensor]:
    """Parameters by name, and what is said of the training."""
    about = {"ok": float(done.status == "ok"), "seconds": done.seconds, "passes": done.passes, "epoch": done.epoch}
    about |= {"val": done.val[done.epoch], "robust_val": done.robust_val[done.epoch]}
    found = {name: torch.tensor(value, dtype=torch.float64) for name, value in about.items()}
    found["bits"] = torch.tensor(list(done.bits.encode()), dtype=torch.uint8)
    return found | {f"model.{name}": value for name, value in done.model.state_dict().items()}


def _loaded(kept: Artifact, model: nn.Module) -> Network:
    prefix = "model."
    model.load_state_dict({key.removeprefix(prefix): v for key, v in kept.tensors.items() if key.startswith(prefix)})
    said = {name: float(kept.tensors[name]) for name in ABOUT if name != "bits"}
    numbers: dict[str, Any] = {name: said[name] for name in ("seconds", "passes", "val", "robust_val")}
    bits = bytes(kept.tensors["bits"].tolist()).decode()
    return Network(model.eval().requires_grad_(False), said["ok"] > 0, bits, epoch=int(said["epoch"]), **numbers)

"""Trained networks: what they say of every set of rows, kept as artifacts that all calibrators behind one share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from lossboard.artifacts import Artifact, artifact, find
from lossboard.environment import environment
from lossboard.errors import UsageError
from lossboard.fleet import fleet
from lossboard.problem import Outcome, Run
from lossboard.protocol import Cell, Task, nearest
from lossboard.run import Context
from lossboard.sources import source
from lossboard.train import train
from reference.methods import Method
from suites.calibration.inputs import problem

CODE = (  # whose change makes kept outputs others, beside the loss's own
    *("suites.calibration.inputs", "lossboard.problem", "lossboard.fleet", "lossboard.step", "lossboard.native"),
    *("lossboard.train", "kernels.mlp", "kernels.cnn", "reference.models.mlp", "reference.models.resnet"),
)
Key = tuple[str, int, int, str]  # task id, seed, trial, training loss


@dataclass(frozen=True)
class Network:
    """A trained network: the outputs (N, C) of each set of rows; None where one, or a parameter, is not finite."""

    outputs: Mapping[str, Tensor] | None
    bits: str
    seconds: float  # processor time of its training


def loss_of(method: Method) -> Method:
    """What a method trains with."""
    return method.base or method


def key(cell: Cell) -> Key:
    """What decides a network, as its cells say it."""
    from suites.calibration import trained_with

    return (cell.task.id, cell.seed, cell.trial, trained_with(cell.method))


def trained(cells: Sequence[Cell], context: Context) -> dict[Key, Network]:
    """The networks of these cells, of one training loss on one dataset: from the disk, the others trained and kept."""
    with_copies = any("copies" in (m.calibrator.supplied if m.calibrator else ()) for m in _methods(cells, context))
    wanted = {key(cell): cell for cell in cells}
    known = {each: find(*_address(cell, context, with_copies)) for each, cell in wanted.items()}
    missing = [cell for each, cell in wanted.items() if known[each] is None]
    found = {each: _network(kept) for each, kept in known.items() if kept is not None}
    if missing:
        outcomes = _outcomes(missing, context, with_copies)
        for cell, outcome in zip(missing, outcomes, strict=True):
            tensors = functools.partial(_tensors, outcome)
            found[key(cell)] = _network(artifact(*_address(cell, context, with_copies), tensors))
    return found


def _methods(cells: Sequence[Cell], context: Context) -> list[Method]:
    return [context.methods[id] for id in {cell.method for cell in cells}]


def _address(cell: Cell, context: Context, with_copies: bool) -> tuple[str, dict[str, object]]:
    """Name of the artifact, and all that decides its content."""
    loss, here = loss_of(context.methods[cell.method]), environment()
    return "outputs", {
        "task": cell.task.id,
        "seed": cell.seed,
        "loss": loss.id,
        "params": {name: cell.params[name] for name in ("lr", *loss.defaults)},
        "source": source(loss.module),
        "code": {module: source(module) for module in CODE},
        "copies": with_copies,
        "env": dict(here),
        "cuda": torch.cuda.is_available() and cell.task.model.kind != "mlp",
    }


def _outcomes(cells: Sequence[Cell], context: Context, with_copies: bool) -> list[Outcome]:
    task, loss = cells[0].task, loss_of(context.methods[cells[0].method])
    runs = [
        Run(
            problem(cell.task, cell.seed, context.data, with_copies),
            {name: cell.params[name] for name in ("lr", *loss.defaults)},
            (cell.task.dataset, cell.seed),
        )
        for cell in cells
    ]
    features = runs[0].problem.features
    if task.model.kind == "mlp":
        width = task.model.width or min(features.shape[1], runs[0].problem.classes)
        return fleet(loss, runs, [width] * task.model.layers, task.recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [train(loss, one, _maker(task, features.shape), task.recipe, device=device) for one in runs]


def _maker(task: Task, shape: torch.Size) -> Callable[[int, Generator], nn.Module]:
    """What makes a network for such images (rows, channels, height, width), with so many outputs."""
    from kernels.cnn import EarlierFastCNN
    from reference.models.resnet import resnet18

    known: dict[str, Callable[[int, Generator], nn.Module]]
    known = {
        "cnn": functools.partial(EarlierFastCNN, shape[1], shape[2]),
        "resnet18": functools.partial(resnet18, shape[1]),
    }
    if task.model.kind not in known:
        raise UsageError(f"model kind '{task.model.kind}'; {nearest(task.model.kind, ('mlp', *known))}")
    return known[task.model.kind]


def _tensors(outcome: Outcome) -> dict[str, Tensor]:
    about = {"bits": torch.tensor(list(outcome.bits.encode()), dtype=torch.uint8)}
    about["seconds"] = torch.tensor(outcome.seconds, dtype=torch.float64)
    usable = outcome.status == "ok" and all(tensor.isfinite().all() for tensor in outcome.outputs.values())
    return about | (dict(outcome.outputs) if usable else {})  # finite weights may still say what is no number


def _network(kept: Artifact) -> Network:
    outputs = {name: tensor for name, tensor in kept.tensors.items() if name not in ("bits", "seconds")}
    bits = bytes(kept.tensors["bits"].tolist()).decode()
    return Network(outputs or None, bits, float(kept.tensors["seconds"]))

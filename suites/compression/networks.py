"""The networks that are compressed: made by the suite, alike on every machine but for the last bits, and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lossboard.artifacts import artifact
from lossboard.environment import environment
from lossboard.errors import UsageError
from lossboard.problem import divided, scaled, stream
from lossboard.protocol import Task, nearest
from lossboard.sources import source
from lossboard.train import one_thread
from reference.compressors.activations import ranges, rounding
from reference.compressors.folding import folded
from reference.compressors.training import Training, descend, loaded, parameters
from reference.methods import catalogue

if TYPE_CHECKING:
    from lossboard.data import Dataset
    from suites.compression.settings import Setting

CODE = (
    *("suites.compression.networks", "lossboard.problem", "reference.compressors.training"),
    *("reference.models.mlp", "reference.models.cnn", "reference.models.resnet", "reference.models.transformer"),
    *("reference.models.tokens", "reference.compressors.folding"),
)
PIECE = 4  # rows of a text that are judged at once, where there are many different tokens
HELD_OUT = 0.05  # of a text, at its end: what is tested on


@dataclass(frozen=True)
class Rows:
    """Inputs (N, ...) and targets (N,), or of a text (N, T), for training and for test."""

    inputs: Tensor
    target: Tensor
    test_inputs: Tensor
    test_target: Tensor
    classes: int

    @property
    def text(self) -> bool:
        return self.target.ndim == 2


@dataclass(frozen=True)
class Subject:
    """A trained network in evaluation mode, without normalisation of batches, with what compressors are given.

    ``logits`` are those of the test rows; without them they are computed again for each judgement, piece by piece.
    """

    network: nn.Module
    rows: Rows
    calibration: Tensor
    task: Task
    seed: int
    logits: Tensor | None = None
    known: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)  # bits -> ranges of activations

    def given(self, setting: Setting) -> nn.Module:
        """The network that compressors are given: as it is, or with activations in few bits."""
        if not setting.activations:
            return self.network
        return rounding(self.network, self.ranges(setting), setting.activations)

    def ranges(self, setting: Setting) -> Mapping[str, Tensor]:
        """Steps and zero-points of activations, where the setting rounds them: decided by the full network."""
        bits = setting.activations
        if bits and bits not in self.known:
            self.known[bits] = ranges(self.network, self.calibration, bits)
        return self.known[bits] if bits else {}

    def training(self, batches: str = "further") -> Training:
        """What a compressor may train the network further with; the same batches for each, drawn by a stream's name."""
        how = self.task.parts["training"]
        batch = how.further_batch or how.batch
        return _training(self.task, self.rows, how.further, batch, how.further_lr, self.stream(batches))

    def again(self) -> nn.Module:
        """The network as it is after training from the same weights with other batches."""
        return _made(self.task, self.seed, self.rows, "batches again")

    def beside(self, network: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Logits (M, C) of test rows by a network and by the full one, and targets (M,): all at once, or in pieces."""
        inputs, target = self.rows.test_inputs, self.rows.test_target
        if self.logits is not None:
            yield outputs(network, inputs), self.logits, target.flatten()
            return
        for part, wanted in zip(inputs.split(PIECE), target.split(PIECE), strict=True):
            yield outputs(network, part), outputs(self.network, part), wanted.flatten()

    def stream(self, name: str) -> torch.Generator:
        own = stream(self.task.dataset, self.seed, name)
        return own if self.device.type == "cpu" else torch.Generator(self.device).manual_seed(own.initial_seed())

    @property
    def device(self) -> torch.device:
        return self.rows.inputs.device


@functools.lru_cache(maxsize=1)
def subject(task: Task, seed: int, data: Callable[[str], Dataset]) -> Subject:
    """The network of a task's data, model, loss and training with this seed, trained now or before."""
    one_thread()
    if task.model.repository:
        return _language_model(task, seed, data)
    found = rows(task, seed, data)
    network = _made(task, seed, found)
    return Subject(network, found, _calibration(task, seed, found), task, seed, outputs(network, found.test_inputs))


def _made(task: Task, seed: int, found: Rows, batches: str = "batches") -> nn.Module:
    """The network of a task and seed, trained with batches that a stream of this name draws."""
    if not task.parts["training"].steps:
        raise UsageError(f"task '{task.name}': its training has no steps, and its model no repository to come from")
    network = built(task, found, stream(task.dataset, seed, "weights"))
    what = dict(_made_of(task, seed))
    if batches != "batches":
        what["batches"] = batches
    kept = artifact("network", what, lambda: _trained(task, seed, network, found, batches))
    return loaded(folded(network), kept.tensors).eval()


def _language_model(task: Task, seed: int, data: Callable[[str], Dataset]) -> Subject:
    """A network of the hub; seeds differ in calibration rows, and in what methods that train or draw make of it."""
    from suites.compression.language import pretrained, tokens

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, tokenizer = pretrained(task.model)
    network = network.to(device)
    texts, context = data(task.dataset).features, task.parts["training"].context
    train, test = (_rows(tokens(texts[split].tobytes(), tokenizer).to(device), context) for split in ("valid", "test"))
    found = Rows(*train, *test, classes=len(tokenizer))
    return Subject(network, found, _calibration(task, seed, found), task, seed)


def _calibration(task: Task, seed: int, found: Rows) -> Tensor:
    chosen = torch.randperm(len(found.target), generator=stream(task.dataset, seed, "calibration"))
    chosen = chosen.to(found.inputs.device)
    return found.inputs[chosen[: task.parts["training"].calibration]]


def _made_of(task: Task, seed: int) -> Mapping[str, object]:
    loss = task.parts["loss"]
    parts = {part: asdict(task.parts[part]) for part in ("split", "model", "loss", "training") if part in task.parts}
    return {
        "data": [task.dataset, task.data],
        **parts,
        "seed": seed,
        "source": source(catalogue(loss.kind)[loss.method].module),
        "code": {module: source(module) for module in CODE},
        "env": environment(),
    }


def _trained(task: Task, seed: int, network: nn.Module, found: Rows, batches: str) -> Mapping[str, Tensor]:
    how = task.parts["training"]
    training = _training(task, found, how.steps, how.batch, how.lr, stream(task.dataset, seed, batches))
    trained = descend(network.train(), training, parameters(network))
    return {name: p.detach() for name, p in folded(loaded(network, trained)).named_parameters()}


def _training(task: Task, found: Rows, steps: int, batch: int, lr: float, generator: torch.Generator) -> Training:
    how, loss = task.parts["training"], task.parts["loss"]
    method = catalogue(loss.kind)[loss.method]
    if method.supplied or method.batchwise or method.link or method.outputs:
        raise UsageError(f"loss '{loss.method}': networks are trained here with losses of logits and target alone")
    return Training(found.inputs, found.target, method.function, steps, batch, lr, generator, how.decay)


def rows(task: Task, seed: int, data: Callable[[str], Dataset]) -> Rows:
    """The task's rows for one seed: of tables and images by its split, of a text windows in the order they come."""
    if "split" not in task.parts:
        texts = data(task.dataset).features
        return _windows(texts["all" if "all" in texts else "valid"].tobytes(), task.parts["training"].context)
    features, labels, own, classes = _scaled(task, data)
    train, _, test = divided(task.split, len(labels), own, stream(task.dataset, seed, "split"))
    return Rows(features[train], labels[train], features[test], labels[test], classes)


@functools.lru_cache(maxsize=2)
def _scaled(task: Task, data: Callable[[str], Dataset]) -> tuple[Tensor, Tensor, int, int]:
    found = data(task.dataset)
    features, labels, own = scaled(found, task.split)
    if task.model.kind in ("cnn", "resnet8") and features.ndim == 2:
        side = round(features.shape[1] ** 0.5)
        features = features.view(-1, 1, side, side)
    return features, labels, own, found.classes


def _windows(text: bytes, context: int) -> Rows:
    from reference.models.tokens import characters

    vocabulary = characters(text)
    tokens = vocabulary.encode(text)
    cut = round(len(tokens) * (1 - HELD_OUT))
    (inputs, target), (test_inputs, test_target) = (_rows(part, context) for part in (tokens[:cut], tokens[cut:]))
    return Rows(inputs, target, test_inputs, test_target, len(vocabulary.pieces))


def _rows(tokens: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Windows (N, context) one after another, and the token after each."""
    count = (len(tokens) - 1) // context
    return tokens[: count * context].view(count, context), tokens[1 : count * context + 1].view(count, context)


def built(task: Task, found: Rows, generator: torch.Generator) -> nn.Module:
    """The untrained network of a task."""
    from reference.models.cnn import CNN
    from reference.models.mlp import MLP
    from reference.models.resnet import ResNet
    from reference.models.transformer import Transformer

    model, shape = task.model, found.inputs.shape
    made: dict[str, Callable[[], nn.Module]] = {
        "mlp": lambda: MLP(shape[1], [model.width] * model.layers, found.classes, generator),
        "cnn": lambda: CNN(shape[1], shape[2], found.classes, generator, model.width or 16),
        "resnet8": lambda: ResNet(shape[1], found.classes, generator, (1, 1, 1), model.width or 16),
        "transformer": lambda: Transformer(found.classes, generator, width=model.width, layers=model.layers),
    }
    if model.kind not in made:
        raise UsageError(f"model kind '{model.kind}'; {nearest(model.kind, made)}")
    return made[model.kind]()


@torch.no_grad()
def outputs(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (M, C) of inputs (N, ...): of a text each token's."""
    return torch.cat([network(part).flatten(0, -2) for part in inputs.split(128)])

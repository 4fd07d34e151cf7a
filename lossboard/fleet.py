"""Fleets: many runs of one method on one dataset, trained at once.

A small network spends its time between operations, not in them. A fleet stacks R runs that differ in labels, split,
seed and hyperparameters: every parameter is a tensor (R, ...). The loss is the plain per-sample function under
``vmap``, told its run's hyperparameters as tensors. On processors, in float32, both passes through the networks and the
step are kernels of our own (``lossboard/native.py``), between which PyTorch computes the loss's gradient by the
outputs. On GPUs, in float64 and where numba cannot compile, a step is one function in PyTorch, from the batch's rows to
the new parameters (:class:`Step`), and every matrix product a batched one. What is PyTorch's is compiled where a
compiler is present and the runs are long enough to pay for it. The length of a single run decides, not the size of the
fleet: a run's bits are the same in any company.

What each run computes must not depend on its slot or its neighbours, to the bit. torch's matrix kernels choose their
path by size and by alignment, so every matrix of every run begins on 64 bytes: hidden widths are padded to multiples of
16 with zero units that stay zero, and rows come in multiples of 16, which own kernels ask for too.

Outputs are class-major, (R, C, N): reductions over a short class dimension then vectorise over samples.

What bounds it, on an AMD EPYC (Zen 5) for cross-entropy on the letter network, R = 70, in the fastest of many steps on
a machine that others used too: a step takes 230 us (540 with PyTorch alone): 74 forward, 85 backward with the step of
descent, 65 the loss, 6 between them. The kernels' products come to 143 GFLOP/s, tanh and all else within their time,
where one core does 239 with vectors of 512 bits; without tanh the forward pass was a quarter shorter. The compiled loss
sweeps over all outputs several times, through the second-level cache, and about 14 us of it are left whatever R is, by
a line through two R. To an epoch of 200 steps come 8.6 ms of evaluation and 6 of shuffling, 2.5 of them ``randperm``.
More is to be had from the loss, evaluated run by run where the outputs still are in the first-level cache; that is not
another factor of two.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossboard import compiler, native
from lossboard.errors import UsageError
from lossboard.metrics import metrics
from lossboard.problem import MultiLabel, Outcome, Run, fingerprint
from lossboard.protocol import Recipe
from lossboard.step import Step, Tensors
from lossboard.targets import targets
from lossboard.train import batch_size, halfway, one_thread
from reference.methods import TOLD, Method
from reference.models.mlp import MLP
from reference.softmax import log_softmax

ALIGN = 16  # floats: 64 bytes
CACHED = 640_000  # features of a step's batches that one core's cache holds with what is made of them
PAYS = 500  # steps of a run from which on compilation pays
STACK = 8  # compiled fleets are filled up to multiples of this, so that few sizes are compiled


@dataclass(frozen=True)
class Layout:
    """The layers of stacked MLPs: hidden widths are rounded up."""

    widths: tuple[int, ...]  # features, hidden ..., outputs: as asked for
    padded: tuple[int, ...]

    @classmethod
    def of(cls, features: int, hidden: Sequence[int], outputs: int) -> Layout:
        return cls((features, *hidden, outputs), (features, *(_up(width, ALIGN) for width in hidden), outputs))

    def stacked(self, models: Sequence[MLP]) -> list[Tensor]:
        """Weights (R, out, in) and biases (R, out), layer by layer, of these models; zero where padded."""
        layers, dtype = [], next(models[0].parameters()).dtype
        for a, b in itertools.pairwise(self.padded):
            layers += [torch.zeros(len(models), *shape, dtype=dtype) for shape in ((b, a), (b,))]
        for r, model in enumerate(models):
            for layer, parameter in zip(layers, model.parameters(), strict=True):
                layer[r][tuple(slice(size) for size in parameter.shape)] = parameter.detach()
        return layers

    def parameters(self, layers: Sequence[Tensor], r: int) -> list[Tensor]:
        """The parameters of run r without padding, in the order of the model's own."""
        found = []
        for i, (a, b) in enumerate(itertools.pairwise(self.widths)):
            found += [layers[2 * i][r, :b, :a], layers[2 * i + 1][r, :b]]
        return found


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def fleet(
    method: Method,
    runs: Sequence[Run],
    hidden: Sequence[int],
    recipe: Recipe,
    *,
    device: str = "cpu",
    compiles: bool | None = None,
) -> list[Outcome]:
    """Train MLPs with these hidden widths, one for each run, all with one method. Runs share features and sizes.

    ``compiles`` says whether to compile the step; None: if a single run is long enough and there is a compiler.

    Raises:
        MethodError: the loss returns something of the wrong shape.
        UsageError: the recipe asks for what only single networks have.
    """
    if recipe.nesterov or recipe.clip or recipe.augment or recipe.precision != "float32":
        raise UsageError("nesterov, clip, augment and precision are for convolutional networks; leave them out")
    one_thread()
    start = time.process_time()
    rows = len(runs[0].problem.train)
    batch = batch_size(recipe, rows)
    compiled = recipe.epochs * (rows // batch) >= PAYS and compiler.available() if compiles is None else compiles
    parts = -(-len(runs) // (len(runs) if device != "cpu" else stack(batch * runs[0].problem.features.shape[1])))
    size = _up(-(-len(runs) // parts), STACK if compiled else 1)
    found: list[Outcome] = []
    for part in (runs[i : i + size] for i in range(0, len(runs), size)):
        filled = [*part, *[part[-1]] * (size - len(part))] if compiled else part
        found += _trained(_State(method, filled, hidden, recipe, torch.device(device), compiled), len(part))
    each = (time.process_time() - start) / len(runs)
    return [replace(outcome, seconds=each) for outcome in found]


def stack(features: int) -> int:
    """How many runs step together on a processor, for batches of so many features each: what its cache holds.

    Fewer than 32 and the time between operations counts; from 96 on nothing is gained.
    """
    return min(96, max(32, CACHED // features // STACK * STACK))


def _trained(state: _State, count: int) -> list[Outcome]:
    """Train the fleet; outcomes of its first runs, without their time."""
    val: list[Tensor] = []
    test: list[Tensor] = []
    for epoch in range(state.recipe.epochs):
        state.epoch(epoch)
        state.adapt()
        if state.recipe.evaluates(epoch):
            for curve, score in zip((val, test), state.evaluate(), strict=True):
                curve.append(score)
    finite = state.finite()
    found = [state.metrics(r) if finite[r] else {} for r in range(count)]
    curves = [curve.tolist() for curve in (torch.stack(val, 1), torch.stack(test, 1))]
    return [
        Outcome(
            "ok" if finite[r] else "diverged",
            tuple(curves[0][r]),
            tuple(curves[1][r]),
            fingerprint(state.parameters(r)),
            0.0,
            found[r],
            state.outputs(r),
        )
        for r in range(count)
    ]


class _State:
    """A fleet at work: parameters, momentum, memory and streams of its runs."""

    def __init__(
        self,
        method: Method,
        runs: Sequence[Run],
        hidden: Sequence[int],
        recipe: Recipe,
        device: torch.device,
        compiled: bool,
    ) -> None:
        first = runs[0].problem
        self.method, self.runs, self.recipe, self.device = method, runs, recipe, device
        self.features = first.features.contiguous().to(device)
        dtype = self.features.dtype
        self.classes = first.classes
        outputs = method.outputs(first.classes) if method.outputs else first.classes
        width = first.features.shape[1]
        self.layout = Layout.of(width, hidden, outputs)
        weights = self.layout.stacked([MLP(width, hidden, outputs, run.stream("weights")) for run in runs])
        layers = len(weights)
        if method.learned:
            weights.append(torch.stack([method.learned(first.classes, run.stream("learned")) for run in runs]))
        self.weights = [w.to(device, dtype) for w in weights]
        self.velocity = [torch.zeros_like(w) for w in self.weights]
        self.lr = torch.tensor([run.params["lr"] for run in runs], dtype=torch.float64)
        self.hyper = {
            key: torch.tensor([run.params[key] for run in runs], dtype=dtype, device=device) for key in method.defaults
        }
        self.targets = targets([run.problem for run in runs], method.supplied, device)
        self.rows = {
            name: torch.stack([getattr(run.problem, name) for run in runs]).to(device)
            for name in ("train", "val", "test")
        }
        self.kept = [{name: rows.to(device) for name, rows in run.problem.kept.items()} for run in runs]
        held = torch.cat([self.rows["val"], self.rows["test"]], 1)
        own_kernels = native.usable(self.features)
        alone = own_kernels and not method.link and not isinstance(first, MultiLabel)
        piece = held.shape[1] if alone else None  # own kernels that judge take a few rows at a time themselves
        self.evaluated = [(rows, self.targets.wanted(rows)) for rows in self._chunks(held, piece)]
        self.batch = batch_size(recipe, self.rows["train"].shape[1])
        self.order, self.draws = ([run.stream(name) for run in runs] for name in ("batches", "draws"))
        self.memory = self._memory(dtype)
        self.told = self._told(dtype)
        self.adapted = self._adapted(dtype)
        step = Step(method, recipe.momentum, recipe.weight_decay, layers)
        shapes = (self.features.shape, dtype, self.classes, self.batch, self.evaluated[0][0].shape)
        key = (method.function, method.correction, recipe, self.layout, shapes, device, own_kernels)
        made: Callable[..., tuple[Callable[..., Any], ...]] = tuple
        if compiled:
            made = functools.partial(compiler.compiled, method.id, key)
        if own_kernels:
            fast = native.NativeStep(step, self.layout.padded, made)
            self.weights, self.velocity = fast.laid_out(self.weights), fast.laid_out(self.velocity)
            self.advance, self.judged, self.scores = fast.advance, fast.judged, fast.scores
        else:
            self.advance, self.judged = made((step.advance, step.judged))
            self.scores = step.scores

    def _memory(self, dtype: torch.dtype) -> Tensor | None:
        kept = self.method.memory
        if kept is None:
            return None
        shape = (*self.rows["train"].shape, self.classes) if kept.per_class else self.rows["train"].shape
        return torch.full(shape, kept.initial, dtype=dtype, device=self.device)

    def _told(self, dtype: torch.dtype) -> Tensors:
        """The facts of the training rows that the method asks for, a row a run."""
        asked = [name for name in self.method.supplied if name in TOLD]
        found = {name: torch.stack([run.problem.told(name) for run in self.runs]) for name in asked}
        if self.method.estimate:
            found["transition"] = torch.eye(self.classes).expand(len(self.runs), -1, -1).contiguous()
        return {name: fact.to(self.device, dtype) for name, fact in found.items()}

    def _adapted(self, dtype: torch.dtype) -> Tensor | None:
        if self.method.adapted is None:
            return None
        return torch.tensor([self.method.adapted.initial] * len(self.runs), dtype=dtype, device=self.device)

    def epoch(self, epoch: int) -> None:
        """One pass over every run's training rows, in that run's own order."""
        dtype = self.features.dtype
        count = self.rows["train"].shape[1]
        steps = count // self.batch
        order = torch.empty(len(self.runs), count, dtype=torch.int64)
        for each, generator in zip(order, self.order, strict=True):
            torch.randperm(count, generator=generator, out=each)
        order = order[:, : steps * self.batch].unflatten(1, (steps, self.batch)).transpose(0, 1).to(self.device)
        rows = native.picked(self.rows["train"], order)
        given: Tensors = {}
        if "progress" in self.method.supplied:
            given["progress"] = torch.full((len(self.runs),), epoch / self.recipe.epochs, dtype=dtype).to(self.device)
        if self.method.estimate and epoch == halfway(self.recipe):
            self.told["transition"] = self._estimated()
        given |= self.told
        if self.adapted is not None:
            given["adapted"] = self.adapted
        draws = None
        if self.method.draws:
            size = (steps, self.batch, self.method.draws)
            draws = torch.stack([torch.rand(size, generator=g, dtype=dtype) for g in self.draws], 1).to(self.device)
        lr = (self.lr * self.recipe.factor(epoch)).to(self.device, dtype)
        for i, (at, chosen, (target, known)) in enumerate(zip(order, rows, self.targets.batches(rows), strict=True)):
            given |= known
            if draws is not None:
                given["draws"] = draws[i]
            if self.memory is not None:
                index = at if self.memory.ndim == 2 else at[..., None].expand(*at.shape, self.classes)
                given["state"] = self.memory.gather(1, index)
            new = self.advance(self.weights, self.velocity, self.features, chosen, target, lr, self.hyper, dict(given))
            if self.memory is not None:
                self.memory.scatter_(1, index, new)

    @torch.no_grad()
    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Each run's score on its validation and test rows, (R,) and (R,): what the problem says is measured.

        That is the share of rows whose label has the largest score, alone, where it says nothing. Ties and NaN are
        wrong.
        """
        found = [self.judged(self.weights, self.features, rows, wanted, self.hyper) for rows, wanted in self.evaluated]
        parts = self.rows["val"], self.rows["test"]
        count = parts[0].shape[1], parts[1].shape[1]
        val, test = torch.cat(found, -1)[..., : sum(count)].split(count, -1)
        return self.targets.scores(val, parts[0]), self.targets.scores(test, parts[1])

    @torch.no_grad()
    def adapt(self) -> None:
        """What a loss makes of the validation rows after each epoch, where it does."""
        if self.adapted is None or self.method.adapted is None:
            return
        problems = [run.problem for run in self.runs]
        each = [
            self.method.adapted.update(known, self.predictions("val", r), one.labels[one.val].to(self.device))
            for r, (known, one) in enumerate(zip(self.adapted, problems, strict=True))
        ]
        self.adapted = torch.stack(each)

    def outputs(self, r: int) -> Tensors:
        """What predicts, of run r for the rows that its problem keeps: (N, C) each, on the CPU."""
        return {name: self.said(rows[None], r).cpu() for name, rows in self.kept[r].items()}

    @torch.no_grad()
    def said(self, rows: Tensor, r: int) -> Tensor:
        """What predicts, of run r for these rows (1, N): (N, C)."""
        weights = [w[r : r + 1] for w in self.weights]
        hyper = {key: value[r : r + 1] for key, value in self.hyper.items()}
        found = [self.scores(weights, self.features, chunk, hyper)[0].T for chunk in self._chunks(rows)]
        return torch.cat(found)[: rows.shape[1]]

    def predictions(self, part: str, r: int) -> Tensor:
        """Of run r for its rows of one part: log-probabilities (N, C), or logits of labels (N, L)."""
        scores = self.said(self.rows[part][r : r + 1], r)
        return scores if self.method.link or isinstance(self.runs[r].problem, MultiLabel) else log_softmax(scores)

    def _chunks(self, rows: Tensor, most: int | None = None) -> list[Tensor]:
        """Rows (R, n) in pieces of one width, a multiple of 16 (64 bytes in every slot), filled up with the first row.

        The width, about ``most``, is that of a run alone: 64 to 256 rows, fewer where they have many features.
        """
        count = rows.shape[1]
        most = most or min(256, max(64, 8192 // self.features.shape[1]))
        width = _up(-(-count // -(-count // most)), ALIGN)
        filled = torch.cat([rows, rows[:, :1].expand(-1, -count % width)], 1)
        return [part.contiguous() for part in filled.split(width, 1)]

    def _estimated(self) -> Tensor:
        assert self.method.estimate
        each = [self.method.estimate(self.predictions("train", r)) for r in range(len(self.runs))]
        return torch.stack(each).to(self.device, self.features.dtype)

    def metrics(self, r: int) -> dict[str, float]:
        """The metrics of run r that need its predictions."""
        problem = self.runs[r].problem
        return metrics(problem, lambda part: self.predictions(part, r).cpu())

    def finite(self) -> list[bool]:
        """Whether every parameter of each run is finite."""
        return [all(bool(w[r].isfinite().all()) for w in self.weights) for r in range(len(self.runs))]

    def parameters(self, r: int) -> list[Tensor]:
        """Every parameter of run r, without padding: the network's, then the loss's own."""
        own = [self.weights[-1][r]] if self.method.learned else []
        return [p.cpu() for p in (*self.layout.parameters(self.weights, r), *own)]

"""Fleets: many runs of one loss on one dataset, trained at once.

A small network spends its time between operations, not in them. A fleet stacks R runs that differ in labels, split,
seed and hyperparameters: one flat parameter vector a run, (R, P), whose weights are views; every matrix product is a
batched one. The loss is the plain per-sample function under ``vmap``, told its run's hyperparameters as tensors.

What each run computes must not depend on its slot or its neighbours, to the bit. Matrix kernels choose their path by
size and by alignment, so every matrix of every run begins on 64 bytes: hidden widths are padded to multiples of 16 with
zero units that stay zero, rows come in multiples of 16, and so do the segments of the parameter vector.

Activations are class-major, (R, units, N): reductions over a short class dimension then vectorise over samples.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lossboard.problem import Outcome, Run, fingerprint
from lossboard.protocol import Recipe
from lossboard.train import batch_size, check_shape, one_thread
from reference.methods import Method
from reference.models.mlp import MLP

ALIGN = 16  # floats: 64 bytes
CHUNK = 256  # rows evaluated at once


@dataclass(frozen=True)
class Layout:
    """Where each layer of an MLP lies in the flat parameter vector of a run."""

    widths: tuple[int, ...]  # features, hidden ..., classes: as asked for
    padded: tuple[int, ...]  # hidden widths rounded up
    offsets: tuple[int, ...]  # weight, bias, weight, bias, ...
    size: int

    @classmethod
    def of(cls, features: int, hidden: Sequence[int], classes: int) -> Layout:
        widths = (features, *hidden, classes)
        padded = (features, *(_up(width, ALIGN) for width in hidden), classes)
        offsets, size = [], 0
        for a, b in itertools.pairwise(padded):
            for length in (a * b, b):
                offsets.append(size)
                size += _up(length, ALIGN)
        return cls(widths, padded, tuple(offsets), size)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Weights (R, out, in) and biases (R, out) of each layer, as views of the flat parameters (R, P)."""
        views = []
        for i, (a, b) in enumerate(itertools.pairwise(self.padded)):
            weight, bias = self.offsets[2 * i : 2 * i + 2]
            views.append(flat[:, weight : weight + a * b].view(-1, b, a))
            views.append(flat[:, bias : bias + b])
        return views

    def load(self, flat: Tensor, models: Sequence[MLP]) -> None:
        """Write the parameters of these models into the flat vectors; the rest stays zero."""
        for r, model in enumerate(models):
            for view, parameter in zip(self.views(flat), model.parameters(), strict=True):
                view[r][tuple(slice(size) for size in parameter.shape)] = parameter.detach()

    def parameters(self, flat: Tensor, r: int) -> list[Tensor]:
        """The parameters of run r without padding, in the order of the model's own."""
        views = self.views(flat)
        found = []
        for i, (a, b) in enumerate(itertools.pairwise(self.widths)):
            found += [views[2 * i][r, :b, :a], views[2 * i + 1][r, :b]]
        return found


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def forward(layers: Sequence[Tensor], x: Tensor) -> Tensor:
    """Logits (R, classes, N) of the stacked networks for features (R, d, N)."""
    for i in range(0, len(layers), 2):
        x = torch.baddbmm(layers[i + 1][..., None], layers[i], x if i == 0 else x.tanh())
    return x


def fleet(method: Method, runs: Sequence[Run], hidden: Sequence[int], recipe: Recipe) -> list[Outcome]:
    """Train MLPs with these hidden widths, one for each run, all with one loss. Runs share features and sizes.

    Raises:
        MethodError: the loss returns something of the wrong shape.
    """
    one_thread()
    start = time.process_time()
    state = _State(method, runs, hidden, recipe)
    val, test = [], []
    for epoch in range(recipe.epochs):
        state.epoch(epoch)
        val.append(state.accuracy("val"))
        test.append(state.accuracy("test"))
    each = (time.process_time() - start) / len(runs)
    finite = state.flat.isfinite().all(1).tolist()
    curves = zip(torch.stack(val, 1).tolist(), torch.stack(test, 1).tolist(), strict=True)
    return [
        Outcome(
            "ok" if finite[r] else "diverged",
            tuple(v),
            tuple(t),
            fingerprint(state.layout.parameters(state.flat, r)),
            each,
        )
        for r, (v, t) in enumerate(curves)
    ]


class _State:
    """A fleet at work: parameters, momentum, memory and streams of its runs."""

    def __init__(self, method: Method, runs: Sequence[Run], hidden: Sequence[int], recipe: Recipe) -> None:
        first = runs[0].problem
        self.method, self.runs, self.recipe = method, runs, recipe
        self.features = first.features.contiguous()
        self.classes = first.classes
        self.layout = Layout.of(first.features.shape[1], hidden, first.classes)
        dtype = self.features.dtype
        self.flat = torch.zeros(len(runs), self.layout.size, dtype=dtype)
        models = [MLP(first.features.shape[1], hidden, first.classes, run.stream("weights")) for run in runs]
        self.layout.load(self.flat, models)
        self.momentum = torch.zeros_like(self.flat)
        self.layers = [view.requires_grad_() for view in self.layout.views(self.flat)]
        self.velocity = self.layout.views(self.momentum)
        self.lr = torch.tensor([[run.params["lr"]] for run in runs], dtype=dtype)
        self.hyper = {key: torch.tensor([run.params[key] for run in runs], dtype=dtype) for key in method.defaults}
        self.labels = torch.stack([run.problem.labels for run in runs])
        self.rows = {
            name: torch.stack([getattr(run.problem, name) for run in runs]) for name in ("train", "val", "test")
        }
        self.batch = batch_size(recipe, self.rows["train"].shape[1])
        self.order = [run.stream("batches") for run in runs]
        self.draws = [run.stream("draws") for run in runs]
        self.memory = self._memory(dtype)

    def _memory(self, dtype: torch.dtype) -> Tensor | None:
        kept = self.method.memory
        if kept is None:
            return None
        shape = (*self.rows["train"].shape, self.classes) if kept.per_class else self.rows["train"].shape
        return torch.full(shape, kept.initial, dtype=dtype)

    def epoch(self, epoch: int) -> None:
        """One pass over every run's training rows, in that run's own order."""
        count = self.rows["train"].shape[1]
        steps = count // self.batch
        order = torch.stack([torch.randperm(count, generator=g)[: steps * self.batch] for g in self.order])
        rows = self.rows["train"].gather(1, order)
        target = self.labels.gather(1, rows)
        given: dict[str, Tensor] = {}
        if "progress" in self.method.supplied:
            given["progress"] = torch.full((len(self.runs),), epoch / self.recipe.epochs, dtype=self.flat.dtype)
        step_lr = self.lr * self.recipe.factor(epoch)
        for at in range(0, steps * self.batch, self.batch):
            part = slice(at, at + self.batch)
            x = self._gather(rows[:, part])
            self._step(x, target[:, part], order[:, part], given, step_lr)

    def _gather(self, rows: Tensor) -> Tensor:
        """Features of these rows (R, N) as (R, d, N), the N rows of a run together in memory."""
        picked = self.features.index_select(0, rows.reshape(-1))  # many times faster than indexing
        return picked.view(*rows.shape, -1).transpose(1, 2)

    def _step(self, x: Tensor, target: Tensor, at: Tensor, given: dict[str, Tensor], lr: Tensor) -> None:
        if self.method.draws:
            shape, dtype = (self.batch, self.method.draws), self.flat.dtype
            given["draws"] = torch.stack([torch.rand(shape, generator=g, dtype=dtype) for g in self.draws])
        if self.memory is not None:
            index = at if self.memory.ndim == 2 else at[..., None].expand(*at.shape, self.classes)
            given["state"] = self.memory.gather(1, index)
        logits = forward(self.layers, x).transpose(1, 2)
        value, new = torch.vmap(self._objective)(logits, target, self.hyper, given)
        gradients = torch.autograd.grad(value.sum(), self.layers)  # runs share nothing: each gets its own gradient
        with torch.no_grad():
            self.momentum.mul_(self.recipe.momentum)
            if self.recipe.weight_decay:
                self.momentum.add_(self.flat, alpha=self.recipe.weight_decay)
            for velocity, gradient in zip(self.velocity, gradients, strict=True):
                velocity.add_(gradient)
            self.flat.addcmul_(lr, self.momentum, value=-1)
            if self.memory is not None:
                self.memory.scatter_(1, index, new.detach())

    def _objective(
        self, logits: Tensor, target: Tensor, hyper: dict[str, Tensor], given: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One run's mean loss over a batch, and its new memory rows (a zero where the loss keeps none)."""
        result = self.method.function(logits, target, **hyper, **given)
        values, new = result if self.memory is not None else (result, target.new_zeros(()))
        check_shape(self.method, values, self.batch)
        return values.mean(), new

    @torch.no_grad()
    def accuracy(self, part: str) -> Tensor:
        """Each run's share of rows whose label has the largest logit, alone: (R,). Ties and NaN are wrong."""
        rows = self.rows[part]
        count = rows.shape[1]
        right = torch.zeros(len(self.runs), dtype=torch.int64)
        for at in range(0, count, CHUNK):
            chunk = rows[:, at : at + CHUNK]
            wanted = self.labels.gather(1, chunk)
            short = -chunk.shape[1] % ALIGN
            if short:  # whole multiples of 64 bytes in every slot
                chunk = torch.cat([chunk, chunk[:, :1].expand(-1, short)], 1)
            logits = forward(self.layers, self._gather(chunk))[..., : wanted.shape[1]]
            own = logits.gather(1, wanted[:, None])
            right += ((logits >= own).sum(1, dtype=torch.int16) == 1).sum(1)  # argmax is nine times slower
        return right.double() / count

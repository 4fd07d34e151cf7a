"""The plain loop: one run of one loss, as a reader would write it. Fleets are held to it by a test."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lossboard.errors import UsageError
from lossboard.measures import measures
from lossboard.problem import Outcome, Run, fingerprint
from lossboard.protocol import Recipe
from reference.methods import Method, MethodError, named, supply
from reference.softmax import log_softmax

EVALUATED = 250  # rows evaluated at once: activations of images then stay below what allocators keep


def one_thread() -> None:
    """One thread, and denormal numbers as zero: saturated losses make many, and each costs a hundred times more."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _keep_memory()


@functools.cache
def _keep_memory() -> None:
    """Have glibc keep what a step frees instead of mapping and zeroing its pages again: twice as fast for images.

    One freed block of 31 MiB raises its thresholds to that size; elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def halfway(recipe: Recipe) -> int:
    """The epoch before which a method that estimates its noise transition does so."""
    return recipe.epochs // 2


def train(method: Method, run: Run, network: Callable[[int, torch.Generator], nn.Module], recipe: Recipe) -> Outcome:
    """Train a network, made by ``network(outputs, generator)``, with one method; SGD with momentum as the recipe says.

    Raises:
        MethodError: the loss returns something of the wrong shape.
    """
    one_thread()
    start = time.process_time()
    loop = _Loop(method, run, network, recipe)
    val, test = [], []
    for epoch in range(recipe.epochs):
        loop.epoch(epoch)
        val.append(loop.accuracy(run.problem.val))
        test.append(loop.accuracy(run.problem.test))
    finite = all(bool(p.isfinite().all()) for p in loop.weights)
    found = measures(run.problem, loop.log_probabilities) if finite else {}
    bits, seconds = fingerprint(loop.weights), time.process_time() - start
    return Outcome("ok" if finite else "diverged", tuple(val), tuple(test), bits, seconds, found)


class _Loop:
    """One run at work."""

    def __init__(
        self, method: Method, run: Run, network: Callable[[int, torch.Generator], nn.Module], recipe: Recipe
    ) -> None:
        self.method, self.problem, self.recipe = method, run.problem, recipe
        classes, dtype = self.problem.classes, self.problem.features.dtype
        self.model = network(method.outputs(classes) if method.outputs else classes, run.stream("weights"))
        if self.problem.features.ndim == 4:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster so
        self.weights: list[Tensor] = list(self.model.parameters())
        self.head = [p for p in self.weights if p.ndim == 2][-1]
        self.learned: dict[str, Tensor] = {}
        if method.learned:
            self.learned["learned"] = method.learned(classes, run.stream("learned")).to(dtype).requires_grad_()
            self.weights.append(self.learned["learned"])
        self.velocity = [torch.zeros_like(p) for p in self.weights]
        self.lr = run.params["lr"]
        self.hyper = {key: torch.tensor(run.params[key], dtype=dtype) for key in method.defaults}
        self.order, self.draws = run.stream("batches"), run.stream("draws")
        self.batch = batch_size(recipe, len(self.problem.train))
        self.memory = None
        if method.memory:
            shape = (len(self.problem.train), classes) if method.memory.per_class else (len(self.problem.train),)
            self.memory = torch.full(shape, method.memory.initial, dtype=dtype)
        self.transition = torch.eye(classes, dtype=dtype) if method.estimate else self.problem.transition.to(dtype)

    def epoch(self, epoch: int) -> None:
        rows, dtype = len(self.problem.train), self.problem.features.dtype
        steps = rows // self.batch
        order = torch.randperm(rows, generator=self.order)[: steps * self.batch].view(steps, self.batch)
        if self.method.estimate and epoch == halfway(self.recipe):
            self.transition = self.method.estimate(self.log_probabilities("train")).to(dtype)
        given = {
            **self.learned,
            "head": self.head.detach(),
            "progress": torch.tensor(epoch / self.recipe.epochs, dtype=dtype),
            "transition": self.transition,
        }
        draws = None
        if self.method.draws:
            draws = torch.rand((steps, self.batch, self.method.draws), generator=self.draws, dtype=dtype)
        for i, at in enumerate(order):
            if draws is not None:
                given["draws"] = draws[i]
            if self.memory is not None:
                given["state"] = self.memory[at]
            self._step(at, given, self.lr * self.recipe.factor(epoch))

    def _step(self, at: Tensor, given: dict[str, Tensor], lr: float) -> None:
        chosen = self.problem.train[at]
        x, target = self.problem.features.index_select(0, chosen), self.problem.labels[chosen]
        values = {**self.hyper, **given}
        second, share = target, None
        mix = self.method.hook("inputs")
        if mix:
            x, second, share = mix(x, target, **supply(named(mix), values))

        def slope() -> tuple[list[Tensor], Tensor]:
            logits = self.model(x)
            result = self.method.function(logits, target, **supply(named(self.method.function), values))
            loss, memory = result if self.memory is not None else (result, target)
            check_shape(self.method, loss, len(at))
            if share is not None:
                other = self.method.function(logits, second, **supply(named(self.method.function), values))
                loss = share * loss + (1 - share) * other
            return list(torch.autograd.grad(loss.mean(), self.weights)), memory.detach()

        gradients, memory = slope()
        if self.memory is not None:
            self.memory[at] = memory
        perturb, project = self.method.hook("weights"), self.method.hook("gradients")
        with torch.no_grad():
            if perturb:
                kept = [p.clone() for p in self.weights]
                _assign(self.weights, perturb(self.weights, gradients, **supply(named(perturb), values)))
                with torch.enable_grad():
                    gradients, _ = slope()
                _assign(self.weights, kept)
            if project:
                gradients = project(self.weights, gradients, **supply(named(project), values))
            torch._foreach_mul_(self.velocity, self.recipe.momentum)
            if self.recipe.weight_decay:
                torch._foreach_add_(self.velocity, self.weights, alpha=self.recipe.weight_decay)
            torch._foreach_add_(self.velocity, gradients)
            torch._foreach_add_(self.weights, self.velocity, alpha=-lr)

    @torch.no_grad()
    def scores(self, rows: Tensor) -> Tensor:
        """What predicts (N, C): the network's outputs, or the link's log-probabilities."""
        outputs = torch.cat([self.model(self.problem.features.index_select(0, part)) for part in rows.split(EVALUATED)])
        link = self.method.link
        return link(outputs, **supply(named(link), {**self.hyper, **self.learned})) if link else outputs

    def log_probabilities(self, part: str) -> Tensor:
        """Of the rows of "train", "val" or "test": (N, C)."""
        scores = self.scores(getattr(self.problem, part))
        return scores if self.method.link else log_softmax(scores)

    def accuracy(self, rows: Tensor) -> float:
        """Share of these rows whose label has the largest score, alone; ties and NaN are wrong."""
        scores, target = self.scores(rows), self.problem.labels[rows]
        return int(((scores >= scores.gather(1, target[:, None])).sum(1) == 1).sum()) / len(rows)


def _assign(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def batch_size(recipe: Recipe, rows: int) -> int:
    """The recipe's, or for few rows the largest multiple of 16 among them.

    Raises:
        UsageError: fewer than 16 training rows.
    """
    if rows < 16:
        raise UsageError(f"{rows} training rows: networks are trained on batches of at least 16")
    return min(recipe.batch, rows // 16 * 16)


def check_shape(method: Method, values: Tensor, batch: int) -> None:
    """The contract of a loss's value: (N,), or a scalar where it is batchwise."""
    wanted = () if method.batchwise else (batch,)
    if values.shape != wanted:
        raise MethodError(
            f"loss '{method.id}' returned shape {tuple(values.shape)} for {batch} samples, expected {wanted}"
        )

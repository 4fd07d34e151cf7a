"""The plain loop: one run of one loss, as a reader would write it. Fleets are held to it by a test."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossboard.errors import UsageError
from lossboard.metrics import metrics, score
from lossboard.problem import MultiLabel, Outcome, Run, fingerprint
from lossboard.protocol import Recipe
from reference.methods import TOLD, Method, MethodError, named, supply
from reference.softmax import log_softmax

EVALUATED = 128  # rows evaluated at once: a cache holds most activations of so many images


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


def train(
    method: Method,
    run: Run,
    network: Callable[[int, torch.Generator], nn.Module],
    recipe: Recipe,
    *,
    device: str = "cpu",
) -> Outcome:
    """Train a network, made by ``network(outputs, generator)``, with one method; SGD with momentum as the recipe says.

    Raises:
        MethodError: the loss returns something of the wrong shape.
    """
    one_thread()
    start = time.process_time()
    loop = _Loop(method, run, network, recipe, torch.device(device))
    val, test = [], []
    for epoch in range(recipe.epochs):
        loop.epoch(epoch)
        loop.adapt()
        if recipe.evaluates(epoch):
            val.append(loop.score("val"))
            test.append(loop.score("test"))
    finite = all(bool(p.isfinite().all()) for p in loop.weights)
    found = metrics(run.problem, lambda part: loop.predictions(part).cpu()) if finite else {}
    outputs = {name: loop.scores(rows.to(device)).cpu() for name, rows in run.problem.kept.items()}
    bits, seconds = fingerprint(loop.weights), time.process_time() - start
    return Outcome("ok" if finite else "diverged", tuple(val), tuple(test), bits, seconds, found, outputs)


class _Loop:
    """One run at work."""

    def __init__(
        self,
        method: Method,
        run: Run,
        network: Callable[[int, torch.Generator], nn.Module],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.method, self.recipe, self.device = method, recipe, device
        self.problem = problem = run.problem.to(device)
        classes, dtype = problem.classes, problem.features.dtype
        self.model = network(method.outputs(classes) if method.outputs else classes, run.stream("weights")).to(device)
        if problem.features.ndim == 4:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster so
        self.weights: list[Tensor] = list(self.model.parameters())
        self.head = [p for p in self.weights if p.ndim == 2][-1]
        self.learned: dict[str, Tensor] = {}
        if method.learned:
            first = method.learned(classes, run.stream("learned"))
            self.learned["learned"] = first.to(device, dtype).requires_grad_()
            self.weights.append(self.learned["learned"])
        self.velocity = [torch.zeros_like(p) for p in self.weights]
        self.lr = run.params["lr"]
        self.hyper = {key: torch.tensor(run.params[key], dtype=dtype, device=device) for key in method.defaults}
        self.order, self.draws, self.shifts = (run.stream(name) for name in ("batches", "draws", "augment"))
        self.batch = batch_size(recipe, len(problem.train))
        self.memory = None
        if method.memory:
            shape = (len(problem.train), classes) if method.memory.per_class else (len(problem.train),)
            self.memory = torch.full(shape, method.memory.initial, dtype=dtype, device=device)
        self.told = {name: problem.told(name).to(device, dtype) for name in method.supplied if name in TOLD}
        if method.estimate:
            self.told["transition"] = torch.eye(classes).to(device, dtype)
        self.adapted: dict[str, Tensor] = {}
        if method.adapted:
            self.adapted["adapted"] = torch.tensor(method.adapted.initial, dtype=dtype, device=device)

    def epoch(self, epoch: int) -> None:
        rows, dtype = len(self.problem.train), self.problem.features.dtype
        steps = rows // self.batch
        order = torch.randperm(rows, generator=self.order)[: steps * self.batch].view(steps, self.batch)
        if self.method.estimate and epoch == halfway(self.recipe):
            self.told["transition"] = self.method.estimate(self.predictions("train")).to(dtype)
        given = {
            **self.learned,
            **self.adapted,
            "head": self.head.detach(),
            "progress": torch.tensor(epoch / self.recipe.epochs, dtype=dtype, device=self.device),
            **self.told,
        }
        draws = None
        if self.method.draws:
            size = (steps, self.batch, self.method.draws)
            draws = torch.rand(size, generator=self.draws, dtype=dtype).to(self.device)
        self.model.train()
        for i, at in enumerate(order.to(self.device)):
            if draws is not None:
                given["draws"] = draws[i]
            if self.memory is not None:
                given["state"] = self.memory[at]
            self._step(at, given, self.lr * self.recipe.factor(epoch))

    def _step(self, at: Tensor, given: dict[str, Tensor], lr: float) -> None:
        chosen = self.problem.train[at]
        x, target = self.problem.features.index_select(0, chosen), self.problem.labels[chosen]
        if isinstance(self.problem, MultiLabel):
            target = target.to(x.dtype)
            seen = self.problem.seen
            given = given | {"observed": torch.ones_like(target) if seen is None else seen[chosen].to(x.dtype)}
        if self.recipe.augment:
            x = augmented(x, self.recipe.augment, self.shifts)
        values = {**self.hyper, **given}
        second, share = target, None
        mix = self.method.hook("inputs")
        if mix:
            x, second, share = mix(x, target, **supply(named(mix), values))

        def slope() -> tuple[list[Tensor], Tensor]:
            logits = self._forward(x)
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
                with torch.enable_grad(), statistics_kept(self.model):
                    gradients, _ = slope()
                _assign(self.weights, kept)
            if project:
                gradients = project(self.weights, gradients, **supply(named(project), values))
            if self.recipe.clip:
                norm = torch.stack(torch._foreach_norm(gradients)).norm()
                torch._foreach_mul_(gradients, (self.recipe.clip / norm).clamp(max=1))
            self._descend(gradients, lr)

    def _descend(self, gradients: list[Tensor], lr: float) -> None:
        if self.recipe.nesterov and self.recipe.weight_decay:
            gradients = list(torch._foreach_add(gradients, self.weights, alpha=self.recipe.weight_decay))
        torch._foreach_mul_(self.velocity, self.recipe.momentum)
        if self.recipe.weight_decay and not self.recipe.nesterov:
            torch._foreach_add_(self.velocity, self.weights, alpha=self.recipe.weight_decay)
        torch._foreach_add_(self.velocity, gradients)
        change = self.velocity
        if self.recipe.nesterov:
            change = list(torch._foreach_add(gradients, self.velocity, alpha=self.recipe.momentum))
        torch._foreach_add_(self.weights, change, alpha=-lr)

    def _forward(self, x: Tensor) -> Tensor:
        if self.recipe.precision == "float32":
            return self.model(x)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            outputs: Tensor = self.model(x)
        return outputs.to(self.problem.features.dtype)

    @torch.no_grad()
    def scores(self, rows: Tensor) -> Tensor:
        """What predicts (N, C): the network's outputs, or what the link makes of them."""
        self.model.eval()
        parts = rows.split(EVALUATED)
        outputs = torch.cat([self._forward(self.problem.features.index_select(0, part)) for part in parts])
        link = self.method.link
        return link(outputs, **supply(named(link), {**self.hyper, **self.learned})) if link else outputs

    def adapt(self) -> None:
        """What a loss makes of the validation rows after each epoch, where it does."""
        if self.method.adapted:
            known, target = self.adapted["adapted"], self.problem.labels[self.problem.val]
            self.adapted["adapted"] = self.method.adapted.update(known, self.predictions("val"), target)

    def predictions(self, part: str) -> Tensor:
        """Of the rows of "train", "val" or "test": log-probabilities (N, C), or logits of labels (N, L)."""
        scores = self.scores(getattr(self.problem, part))
        return scores if self.method.link or isinstance(self.problem, MultiLabel) else log_softmax(scores)

    def score(self, part: str) -> float:
        """Of the rows of "val" or "test", what the problem says is measured after an epoch."""
        rows = getattr(self.problem, part)
        return score(self.problem, self.scores(rows), self.problem.labels[rows])


def _assign(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch normalisation as in training, but its running statistics stay as they are."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def augmented(x: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Images (N, c, h, w), each shifted by up to 4 pixels and mirrored half the time; "crop-flip-turn" turns them too.

    Shifts are whole pixels; what comes in from outside is 0. Turns are by up to 20 degrees, bilinear.
    """
    count, _, height, width = x.shape
    shift = torch.randint(9, (2, count), generator=generator).to(x.device)
    flip = torch.rand(count, generator=generator).to(x.device) < 0.5
    padded = F.pad(x, (4, 4, 4, 4)).permute(0, 2, 3, 1)
    rows = shift[0][:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(count, -1)
    columns = shift[1][:, None] + torch.where(flip[:, None], width - 1 - columns, columns)
    samples = torch.arange(count, device=x.device)[:, None, None]
    x = padded[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if kind == "crop-flip-turn":
        angle = (2 * torch.rand(count, generator=generator, dtype=x.dtype) - 1).to(x.device) * math.radians(20)
        sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
        turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
        x = F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)
    return x


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

"""The plain loop: one run of one loss, as a reader would write it. Fleets are held to it by a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lossboard.errors import UsageError
from lossboard.problem import Outcome, Problem, Run, fingerprint
from lossboard.protocol import Recipe
from reference.methods import Method, MethodError


def one_thread() -> None:
    """One thread, and denormal numbers as zero: saturated losses make many, and each costs a hundred times more."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def train(method: Method, run: Run, network: Callable[[torch.Generator], nn.Module], recipe: Recipe) -> Outcome:
    """Train a network, made by ``network(generator)``, with one loss; SGD with momentum as the recipe says.

    Raises:
        MethodError: the loss returns something of the wrong shape.
    """
    one_thread()
    start = time.process_time()
    problem = run.problem
    model = network(run.stream("weights"))
    if problem.features.ndim == 4:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster so
    hyper = {key: torch.tensor(run.params[key], dtype=problem.features.dtype) for key in method.defaults}
    order, draws = run.stream("batches"), run.stream("draws")
    rows = len(problem.train)
    batch = batch_size(recipe, rows)
    shape = (rows, problem.classes) if method.memory and method.memory.per_class else (rows,)
    memory = torch.full(shape, method.memory.initial, dtype=problem.features.dtype) if method.memory else None
    momentum = [torch.zeros_like(p) for p in model.parameters()]
    val, test = [], []
    for epoch in range(recipe.epochs):
        lr = run.params["lr"] * recipe.factor(epoch)
        shuffled = torch.randperm(rows, generator=order)
        for at in shuffled[: rows // batch * batch].view(-1, batch):
            given: dict[str, Any] = {}
            if memory is not None:
                given["state"] = memory[at]
            if "progress" in method.supplied:
                given["progress"] = torch.tensor(epoch / recipe.epochs, dtype=problem.features.dtype)
            if method.draws:
                given["draws"] = torch.rand(batch, method.draws, generator=draws, dtype=problem.features.dtype)
            chosen = problem.train[at]
            target = problem.labels[chosen]
            logits = model(problem.features.index_select(0, chosen))
            result = method.function(logits, target, **hyper, **given)
            values = result if memory is None else result[0]
            check_shape(method, values, batch)
            gradients = torch.autograd.grad(values.mean(), list(model.parameters()))
            if memory is not None:
                memory[at] = result[1].detach()
            with torch.no_grad():
                for p, v, g in zip(model.parameters(), momentum, gradients, strict=True):
                    v.mul_(recipe.momentum).add_(p, alpha=recipe.weight_decay).add_(g)
                    p.sub_(lr * v)
        val.append(accuracy(model, problem, problem.val))
        test.append(accuracy(model, problem, problem.test))
    parameters = list(model.parameters())
    finite = all(bool(p.isfinite().all()) for p in parameters)
    seconds = time.process_time() - start
    return Outcome("ok" if finite else "diverged", tuple(val), tuple(test), fingerprint(parameters), seconds)


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


@torch.no_grad()
def accuracy(model: nn.Module, problem: Problem, rows: Tensor) -> float:
    """Share of these rows whose label has the largest logit, alone; ties and NaN are wrong."""
    right = 0
    for part in rows.split(1000):
        logits = model(problem.features[part])
        own = logits.gather(1, problem.labels[part][:, None])
        right += int(((logits >= own).sum(1) == 1).sum())
    return right / len(rows)

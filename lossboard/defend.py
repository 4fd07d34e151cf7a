"""The plain loop of a defence: one network trained against attacks; an attack on validation rows chooses the epoch."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossboard.problem import Run, fingerprint
from lossboard.protocol import Recipe
from lossboard.train import augmented, batch_size, one_thread, statistics_kept
from reference.attacks.ascent import Found, frozen
from reference.attacks.objectives import right
from reference.attacks.pgd import pgd_margin
from reference.attacks.search import Search
from reference.bounds import worst
from reference.methods import Method, MethodError, named, supply

ATTACKED = 256  # rows attacked at once


@dataclass(frozen=True)
class Threat:
    """What an attack may do, and how a defence looks for it while it trains.

    ``step`` is a share of eps. Over the share ``ramp`` of the training eps grows in a line from 0, for defences that do
    not say themselves at what radius they train: at a large eps a network may otherwise never begin to learn.
    ``precision`` "bfloat16" has the search for training inputs, and nothing else, run the
    network in mixed precision.
    """

    eps: float
    norm: str = "linf"
    steps: int = 10
    step: float = 0.25
    ramp: float = 0.0
    precision: str = "float32"


@dataclass(frozen=True)
class Defended:
    """A trained network in evaluation mode, as it was at the epoch of best accuracy under attack on validation rows."""

    model: nn.Module
    status: str  # "ok", or "diverged": a parameter is not finite
    epoch: int  # the chosen one
    val: tuple[float, ...]  # accuracy on validation rows after each epoch
    robust_val: tuple[float, ...]  # and under attack
    bits: str  # first 12 hex of the SHA-256 of the chosen parameters
    seconds: float  # processor time
    passes: float  # forward and backward, through the network, of a training row


def defend(
    method: Method,
    run: Run,
    network: Callable[[int, torch.Generator], nn.Module],
    recipe: Recipe,
    threat: Threat,
    *,
    teachers: Mapping[str, nn.Module] | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> Defended:
    """Train a network, made by ``network(classes, generator)``, with one defence.

    Args:
        teachers: the trained networks of the defences that the method ``needs``.
        checkpoint: a file that is written after each epoch and, if it is there, gone on from: to the same bits.

    Raises:
        MethodError: the defence combines others and trains nothing, or returns something of the wrong shape.
    """
    one_thread()
    loop = Loop(method, run, network, recipe, threat, teachers or {}, torch.device(device))
    if checkpoint and checkpoint.exists():
        loop.restore(torch.load(checkpoint, weights_only=True))
    while loop.done < recipe.epochs:
        loop.epoch()
        if checkpoint:
            beside = checkpoint.with_suffix(".part")
            torch.save(loop.state(), beside)
            os.replace(beside, checkpoint)
    return loop.outcome()


class Loop:
    """One run at work. After ``restore(state())`` it goes on as if it had not been interrupted."""

    def __init__(
        self,
        method: Method,
        run: Run,
        network: Callable[[int, torch.Generator], nn.Module],
        recipe: Recipe,
        threat: Threat,
        teachers: Mapping[str, nn.Module],
        device: torch.device,
    ) -> None:
        if method.combines:
            raise MethodError(f"'{method.id}' trains nothing: it combines {', '.join(method.needs)}")
        if method.radius and threat.norm != "linf":
            raise MethodError(f'\'{method.id}\' bounds an "linf" ball, not one of "{threat.norm}"')
        self.method, self.recipe, self.threat, self.device = method, recipe, threat, device
        self.problem = run.problem.to(device)
        self.model = network(self.problem.classes, run.stream("weights")).to(device)
        if self.problem.features.ndim == 4:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster so
        self.teachers = [teachers[id].to(device).eval() for id in method.needs]
        self.weights = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(
            self.weights,
            lr=run.params["lr"],
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            foreach=True,
        )
        self.lr = run.params["lr"]
        self.hyper = {key: run.params[key] for key in method.defaults}
        self.carried = torch.tensor(method.carried, device=device)
        self.run, self.streams = run, {name: run.stream(name) for name in ("batches", "attack", "augment")}
        self.batch = batch_size(recipe, len(self.problem.train))
        self.done, self.seconds, self.passed = 0, 0.0, 0
        self.val: list[float] = []
        self.robust_val: list[float] = []
        self.best = self._kept()

    def epoch(self) -> None:
        """One epoch, and the accuracy on validation rows without and with an attack, which is the same every time."""
        start = time.process_time()
        rows = len(self.problem.train)
        steps = rows // self.batch
        order = torch.randperm(rows, generator=self.streams["batches"])[: steps * self.batch].view(steps, self.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.recipe.factor(self.done)
        for i, at in enumerate(order.to(self.device)):
            self.step(self.problem.train[at], (self.done + i / steps) / self.recipe.epochs)
        self.val.append(self.accuracy("val"))
        attack = functools.partial(pgd_margin, steps=10, step=0.25)
        self.robust_val.append(self.accuracy("val", attack))
        self.done += 1
        if self.robust_val[-1] >= max(self.robust_val):
            self.best = self._kept()
        self.seconds += time.process_time() - start

    def step(self, rows: Tensor, progress: float) -> None:
        """One step of descent on these rows of the problem, at this share of the training."""
        method, x, target = self.method, self.problem.features[rows], self.problem.labels[rows]
        if self.recipe.augment:
            x = augmented(x, self.recipe.augment, self.streams["augment"])
        now = torch.tensor(progress, device=self.device)
        ramped = min(1.0, progress / self.threat.ramp) if self.threat.ramp else 1.0
        eps = self.threat.eps * (float(method.radius(now)) if method.radius else ramped)
        found = self._search(x, target, eps) if method.inner else None
        asked = named(method.function)
        known: dict[str, Any] = {**self.hyper, "progress": now, "carried": self.carried}
        if found:
            known["right_steps"] = found.right_steps
        if self.teachers:
            with torch.no_grad():
                known["accurate"] = self.teachers[0](x)
                known["robust"] = self.teachers[1](found.x if found else x)
        makes: dict[str, Callable[[], Tensor]] = {
            "clean": lambda: self._forward(x),
            "adversarial": lambda: self._forward(found.x),  # type: ignore[union-attr]  # declared with inner=
            "worst": lambda: self._worst(x, target, eps),
        }
        self.model.train()

        def slope() -> tuple[list[Tensor], Tensor]:
            made = {name: makes[name]() for name in makes if name in asked}
            result = method.function(target, **supply(asked, {**known, **made}))
            values, carried = result if method.carried else (result, self.carried)
            if values.shape != target.shape:
                raise MethodError(f"defence '{method.id}' returned shape {tuple(values.shape)}, expected ({len(x)},)")
            return list(torch.autograd.grad(values.mean(), self.weights)), carried

        if method.weights:
            with statistics_kept(self.model):
                gradients, _ = slope()
            moved = method.weights(self.weights, gradients, **supply(named(method.weights), self.hyper))
            before = [p.detach().clone() for p in self.weights]
            self._assign(moved)
            gradients, self.carried = slope()
            self._assign(before)
        else:
            gradients, self.carried = slope()
        for p, gradient in zip(self.weights, gradients, strict=True):
            p.grad = gradient
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self.optimizer.step()

    def _search(self, x: Tensor, target: Tensor, eps: float) -> Found:
        """What the inner search finds, with the network in evaluation mode and no gradients of its parameters."""
        assert self.method.inner is not None
        self.model.eval()
        threat = self.threat
        search = Search(eps, threat.step * eps, threat.steps, self.streams["attack"], threat.norm)
        with frozen(self.model):
            forward = functools.partial(self._forward, precision=threat.precision)
            hyper = supply(named(self.method.inner), self.hyper)
            found: Found = self.method.inner(forward, x, target, search, **hyper)
        return found

    def _worst(self, x: Tensor, target: Tensor, eps: float) -> Tensor:
        self.passed += 2 * len(x)  # of both ends of the bounds
        return worst(self.model, x, target, eps)

    def _forward(self, x: Tensor, precision: str = "") -> Tensor:
        self.passed += len(x) * torch.is_grad_enabled()
        if "bfloat16" not in (precision, self.recipe.precision):
            return self.model(x)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            outputs: Tensor = self.model(x)
        return outputs.to(x.dtype)

    @torch.no_grad()
    def _assign(self, values: Sequence[Tensor]) -> None:
        for p, value in zip(self.weights, values, strict=True):
            p.copy_(value)

    def accuracy(self, part: str, attack: Callable[..., Tensor] | None = None) -> float:
        """On the rows of "val" or "test", as they are or as this attack leaves them."""
        rows, stream = getattr(self.problem, part), self.run.stream("validation")
        self.model.eval()
        count = 0
        for some in rows.split(ATTACKED):
            x, target = self.problem.features[some], self.problem.labels[some]
            if attack:
                x = attack(self.model, x, target, eps=self.threat.eps, norm=self.threat.norm, generator=stream)
            with torch.no_grad():
                count += int(right(self.model(x), target).sum())
        return count / len(rows)

    def _kept(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.model.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Everything that changes, for ``torch.save``."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
            "carried": self.carried,
            "best": self.best,
            "done": self.done,
            "seconds": self.seconds,
            "passed": self.passed,
            "val": self.val,
            "robust_val": self.robust_val,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        self.carried, self.best = state["carried"], state["best"]
        self.done, self.seconds, self.passed = state["done"], state["seconds"], state["passed"]
        self.val, self.robust_val = list(state["val"]), list(state["robust_val"])

    def outcome(self) -> Defended:
        """What the epochs so far gave. The network becomes that of the best of them."""
        finite = all(bool(p.isfinite().all()) for p in self.weights)
        self.model.load_state_dict(self.best)
        self.model.eval()
        best = max(range(self.done), key=lambda epoch: (self.robust_val[epoch], epoch))
        curves = (tuple(self.val), tuple(self.robust_val))
        status = "ok" if finite else "diverged"
        passes = self.passed / len(self.problem.train)
        return Defended(self.model, status, best, *curves, fingerprint(self.weights), self.seconds, passes)


def combined(
    method: Method, members: Mapping[str, nn.Module], params: Mapping[str, float]
) -> Callable[[Tensor], Tensor]:
    """A defence that combines trained networks, as the one model that attacks see.

    Raises:
        MethodError: the defence is trained, or one of the networks is missing.
    """
    missing = [id for id in method.needs if id not in members]
    if missing or not method.combines:
        raise MethodError(f"'{method.id}' " + (f"needs {', '.join(missing)}" if missing else "is trained"))
    own = {key: params[key] for key in method.defaults}
    return lambda x: method.function(torch.stack([members[id](x) for id in method.needs]), **own)

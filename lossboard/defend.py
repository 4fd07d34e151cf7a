"""The loop of a defence: networks trained against attacks; an attack on validation rows chooses the epoch of each.

A small network spends its time between operations, not in them: MLPs of runs that differ in seed and hyperparameters
are trained at once. Their batches lie one after the other, the search for inputs and the network see them as one
(:func:`reference.models.abreast.abreast`); what a run draws and the loss of its rows are its own, so that its bits are
the same in any company. A network of images fills a processor by itself, and is trained alone.
"""

from __future__ import annotations

import functools
import io
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossboard.problem import Problem, Run, fingerprint
from lossboard.protocol import Recipe
from lossboard.records import write_atomically
from lossboard.threat import Threat
from lossboard.train import augmented, batch_size, one_thread, statistics_kept
from reference.attacks.ascent import Found, Objective, frozen
from reference.attacks.objectives import margin, right
from reference.attacks.pgd import pgd_margin
from reference.attacks.search import Search
from reference.bounds import worst
from reference.methods import Method, MethodError, named, supply
from reference.models.abreast import abreast, stackable

ATTACKED = 256  # validation images attacked at once
TRIED, TRY = 10, 0.25  # steps of the attack on validation rows, and the size of one as a share of eps
ALIGNED = 16  # small networks see multiples of so many rows


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
    runs: Sequence[Run],
    network: Callable[[Problem, torch.Generator], nn.Module],
    recipe: Recipe,
    threat: Threat,
    *,
    teachers: Sequence[Mapping[str, nn.Module]] | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> list[Defended]:
    """Train a network for each run, made by ``network(problem, generator)``, with one defence.

    Args:
        runs: one, or several of one size whose networks are MLPs.
        teachers: of each run, the trained networks of the defences that the method ``needs``.
        checkpoint: a file that is written after each epoch and, if it is there, gone on from: to the same bits.

    Raises:
        MethodError: the defence combines others and trains nothing, or returns something of the wrong shape.
    """
    one_thread()
    how = (network, recipe, threat, teachers or [{}] * len(runs), torch.device(device))
    loop = Loop(method, runs, *how)
    if checkpoint and checkpoint.exists():
        try:
            loop.restore(torch.load(checkpoint, weights_only=True))
        except Exception as error:  # whatever a damaged file makes of its reading
            warnings.warn(f"{checkpoint} cannot be read ({error}); the training starts anew", stacklevel=2)
            checkpoint.unlink()
            loop = Loop(method, runs, *how)
    while loop.done < recipe.epochs:
        loop.epoch()
        if checkpoint:
            _write(loop.state(), checkpoint)
    return loop.outcomes()


def _write(state: Mapping[str, Any], path: Path) -> None:
    written = io.BytesIO()
    torch.save(state, written)
    write_atomically(path, written.getvalue())


@dataclass(frozen=True)
class Searches(Search):
    """The searches of several runs whose rows follow each other: each draws from its own stream.

    There is no ``generator`` of all: a search draws with :meth:`anywhere` and :meth:`near`.
    """

    each: tuple[Search, ...] = ()
    alone: Callable[[int], Callable[[Tensor], Tensor]] | None = None

    @classmethod
    def of(cls, each: Sequence[Search], alone: Callable[[int], Callable[[Tensor], Tensor]] | None = None) -> Searches:
        """Of these runs; ``alone(r)`` is the network of one."""
        return cls(**{**vars(each[0]), "generator": "of no run"}, each=tuple(each), alone=alone)

    def anywhere(self, x: Tensor) -> Tensor:
        return torch.cat([one.anywhere(own) for one, own in zip(self.each, x.chunk(len(self.each)), strict=True)])

    def near(self, x: Tensor) -> Tensor:
        return torch.cat([one.near(own) for one, own in zip(self.each, x.chunk(len(self.each)), strict=True)])

    def ascend(
        self, model: Any, x: Tensor, target: Tensor, objective: Objective, start: Tensor, patience: int | None = None
    ) -> Found:
        """Where rows may stop there are soon not as many of each run: then run by run."""
        if patience is None:
            return super().ascend(model, x, target, objective, start)
        assert self.alone
        parts = zip(self.each, *(given.chunk(len(self.each)) for given in (x, target, start)), strict=True)
        networks = map(self.alone, range(len(self.each)))
        return _joint(
            [
                one.ascend(network, x, y, objective, start, patience)
                for network, (one, x, y, start) in zip(networks, parts, strict=True)
            ]
        )


@dataclass(frozen=True)
class Batch:
    """The rows of a step, one run after the other: inputs (R N, ...), targets (R N,), and what was found beside."""

    x: Tensor
    target: Tensor
    eps: float
    found: Found | None
    told: Mapping[str, Sequence[Any]]  # name -> a value for each run


class Loop:
    """Runs at work. After ``restore(state())`` it goes on as if it had not been interrupted."""

    def __init__(
        self,
        method: Method,
        runs: Sequence[Run],
        network: Callable[[Problem, torch.Generator], nn.Module],
        recipe: Recipe,
        threat: Threat,
        teachers: Sequence[Mapping[str, nn.Module]],
        device: torch.device,
    ) -> None:
        if method.combines:
            raise MethodError(f"'{method.id}' trains nothing: it combines {', '.join(method.needs)}")
        if method.radius and threat.norm != "linf":
            raise MethodError(f'\'{method.id}\' bounds an "linf" ball, not one of "{threat.norm}"')
        self.method, self.recipe, self.threat, self.device = method, recipe, threat, device
        self.runs = runs
        self.problems = [run.problem.to(device) for run in runs]
        self.models = nn.ModuleList(network(run.problem, run.stream("weights")) for run in runs).to(device)
        if self.problems[0].features.ndim == 4:
            self.models.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster
        self.teachers = [
            abreast([known[id].to(device).eval().requires_grad_(False) for known in teachers]) for id in method.needs
        ]
        self.weights = [list(model.parameters()) for model in self.models]
        self.optimizer = torch.optim.SGD(
            [{"params": own, "lr": run.params["lr"]} for own, run in zip(self.weights, runs, strict=True)],
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            foreach=True,
        )
        self.hyper = [{key: run.params[key] for key in method.defaults} for run in runs]
        self.carried = [torch.tensor(method.carried, device=device) for _ in runs]
        self.streams = [{name: run.stream(name) for name in ("batches", "attack", "augment")} for run in runs]
        self.batch = batch_size(recipe, len(self.problems[0].train))
        self.done, self.seconds, self.passed = 0, 0.0, [0] * len(runs)
        self.val: list[list[float]] = []  # an epoch, a run
        self.robust_val: list[list[float]] = []
        self.best = [self._kept(r) for r in range(len(runs))]

    def epoch(self) -> None:
        """One epoch, and the accuracy on validation rows without and with an attack, which is the same every time."""
        start = time.process_time()
        rows = len(self.problems[0].train)
        steps = rows // self.batch
        drawn = [torch.randperm(rows, generator=streams["batches"]) for streams in self.streams]
        orders = [order[: steps * self.batch].view(steps, self.batch).to(self.device) for order in drawn]
        for group, run in zip(self.optimizer.param_groups, self.runs, strict=True):
            group["lr"] = run.params["lr"] * self.recipe.factor(self.done)
        for i, at in enumerate(zip(*orders, strict=True)):
            batches = [one.train[own] for one, own in zip(self.problems, at, strict=True)]
            self.step(batches, (self.done + i / steps) / self.recipe.epochs)
        val, robust_val = self._validated()
        self.val.append(val)
        self.robust_val.append(robust_val)
        self.done += 1
        for r, curve in enumerate(zip(*self.robust_val, strict=True)):
            if curve[-1] >= max(curve):
                self.best[r] = self._kept(r)
        self.seconds += time.process_time() - start

    def step(self, batches: Sequence[Tensor], progress: float) -> None:
        """One step of descent of each run on these rows of its problem, at this share of the training."""
        gradients = self._gradients(self._batch(batches, progress))
        for own, slopes in zip(self.weights, gradients, strict=True):
            for p, slope in zip(own, slopes, strict=True):
                p.grad = slope
            if self.recipe.clip:
                nn.utils.clip_grad_norm_(own, self.recipe.clip)
        self.optimizer.step()

    def _batch(self, batches: Sequence[Tensor], progress: float) -> Batch:
        """These rows, what the search finds beside them, and what a defence may be told of each run."""
        method, each = self.method, list(zip(self.problems, batches, strict=True))
        parts = [one.features[rows] for one, rows in each]
        if self.recipe.augment:
            streams = [streams["augment"] for streams in self.streams]
            parts = [augmented(x, self.recipe.augment, own) for x, own in zip(parts, streams, strict=True)]
        x, target = _joined(parts), _joined([one.labels[rows] for one, rows in each])
        now = torch.tensor(progress, device=self.device)
        ramped = min(1.0, progress / self.threat.ramp) if self.threat.ramp else 1.0
        eps = self.threat.eps * (float(method.radius(now)) if method.radius else ramped)
        found = self._search(x, target, eps) if method.inner else None
        told: dict[str, Sequence[Any]] = {"progress": [now] * len(self.runs)}
        if found:
            told["right_steps"] = self._apart(found.right_steps)
        if self.teachers:
            with torch.no_grad():
                told["accurate"] = self._apart(self.teachers[0](x))
                told["robust"] = self._apart(self.teachers[1](found.x if found else x))
        return Batch(x, target, eps, found, told)

    def _gradients(self, batch: Batch) -> list[list[Tensor]]:
        """Of the parameters of each run, at its weights or where the defence moves them; with what it carries on."""
        method = self.method
        self.models.train()
        if not method.weights:
            gradients, self.carried = self._slopes(batch)
            return gradients
        with statistics_kept(self.models):
            gradients, _ = self._slopes(batch)
        each = zip(self.weights, gradients, self.hyper, strict=True)
        moved = [method.weights(own, slopes, **supply(named(method.weights), hyper)) for own, slopes, hyper in each]
        before = [[p.detach().clone() for p in own] for own in self.weights]
        self._assign(moved)
        gradients, self.carried = self._slopes(batch)
        self._assign(before)
        return gradients

    def _slopes(self, batch: Batch) -> tuple[list[list[Tensor]], list[Tensor]]:
        """The gradients of the parameters of each run as they are, and what each run carries on."""
        method, asked, network = self.method, named(self.method.function), abreast(list(self.models))
        makes: dict[str, Callable[[], Sequence[Tensor]]] = {
            "clean": lambda: self._apart(self._forward(network, batch.x)),
            "adversarial": lambda: self._apart(self._forward(network, batch.found.x)),  # type: ignore[union-attr]
            "worst": lambda: self._worst(batch.x, batch.target, batch.eps),
        }
        made = {**batch.told, "carried": self.carried, **{name: makes[name]() for name in makes if name in asked}}
        total, carried = torch.zeros((), device=self.device), []
        for r, target in enumerate(self._apart(batch.target)):
            given = self.hyper[r] | {name: values[r] for name, values in made.items()}
            result = method.function(target, **supply(asked, given))
            values, kept = result if method.carried else (result, self.carried[r])
            if values.shape != target.shape:
                said = f"returned shape {tuple(values.shape)}, expected {tuple(target.shape)}"
                raise MethodError(f"defence '{method.id}' {said}")
            total = total + values.mean()
            carried.append(kept)
        slopes = iter(torch.autograd.grad(total, list(self.models.parameters())))
        return [[next(slopes) for _ in own] for own in self.weights], carried

    def _search(self, x: Tensor, target: Tensor, eps: float) -> Found:
        """What the inner search finds, with the networks in evaluation mode and no gradients of their parameters."""
        assert self.method.inner is not None
        self.models.eval()
        inner, threat = self.method.inner, self.threat
        each = [Search(eps, threat.step * eps, threat.steps, own["attack"], threat.norm) for own in self.streams]
        told = [supply(named(inner), hyper) for hyper in self.hyper]
        with frozen(self.models):
            if len(each) > 1 and all(one == told[0] for one in told):
                together = Searches.of(each, self._seen)
                return inner(self._seen(*range(len(each))), x, target, together, **told[0])
            parts = zip(self._apart(x), self._apart(target), each, told, strict=True)
            return _joint([inner(self._seen(r), *given, **own) for r, (*given, own) in enumerate(parts)])

    def _seen(self, *own: int) -> Callable[[Tensor], Tensor]:
        """The networks of these runs, as they are now and as searches see them."""
        network = abreast([self.models[r] for r in own])
        return functools.partial(self._forward, network, searching=True, own=own)

    def _worst(self, x: Tensor, target: Tensor, eps: float) -> list[Tensor]:
        rows = zip(self.models, self._apart(x), self._apart(target), strict=True)
        self._passes(2 * len(x))  # of both ends of the bounds
        return [worst(model, own, labels, eps) for model, own, labels in rows]

    def _forward(
        self, network: Callable[[Tensor], Tensor], x: Tensor, searching: bool = False, own: Sequence[int] = ()
    ) -> Tensor:
        self._passes(len(x) * torch.is_grad_enabled(), own)
        if "bfloat16" not in (self.recipe.precision, self.threat.precision if searching else ""):
            return network(x)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            outputs = network(x)
        return outputs.to(x.dtype)

    def _passes(self, rows: int, own: Sequence[int] = ()) -> None:
        """Count what so many rows are of these runs, of all where it does not say."""
        for r in own or range(len(self.runs)):
            self.passed[r] += rows // len(own or self.runs)

    def _apart(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What belongs to each run, of what is computed for all rows."""
        return rows.chunk(len(self.runs))

    @torch.no_grad()
    def _assign(self, values: Sequence[Sequence[Tensor]]) -> None:
        for own, each in zip(self.weights, values, strict=True):
            for p, value in zip(own, each, strict=True):
                p.copy_(value)

    @torch.no_grad()
    def _validated(self) -> tuple[list[float], list[float]]:
        """Each run's accuracy on validation rows, as they are and under PGD on the margin."""
        self.models.eval()
        network, streams = abreast(list(self.models)), [run.stream("validation") for run in self.runs]
        eps, norm = self.threat.eps, self.threat.norm
        if not stackable(self.models[0]):  # one that fills a processor, and gains from rows that stop
            (one,), (draw,), found = self.problems, streams, []
            for rows in one.val.split(ATTACKED):
                x, target = one.features[rows], one.labels[rows]
                attacked = pgd_margin(network, x, target, eps=eps, norm=norm, generator=draw, steps=TRIED, step=TRY)
                found.append(torch.stack([right(network(x), target), right(network(attacked), target)]))
            return tuple([float(part.double().mean())] for part in torch.cat(found, 1))  # type: ignore[return-value]
        count = len(self.problems[0].val)
        filled = [torch.cat([one.val, one.val[:1].expand(-count % ALIGNED)]) for one in self.problems]
        each = list(zip(self.problems, filled, strict=True))
        x, target = (torch.cat([getattr(one, name)[rows] for one, rows in each]) for name in ("features", "labels"))
        search = Searches.of([Search(eps, TRY * eps, TRIED, own, norm) for own in streams])
        reached = search.ascend(network, x, target, margin, search.anywhere(x))
        clean = right(network(x), target)
        robust = clean & (reached.right_steps == TRIED) & right(network(reached.x), target)
        shares = [torch.stack([own[:count] for own in self._apart(rows)]).double().mean(1) for rows in (clean, robust)]
        return shares[0].tolist(), shares[1].tolist()

    def _kept(self, r: int) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.models[r].state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Everything that changes, for ``torch.save``."""
        return {
            "models": self.models.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": [{name: one.get_state() for name, one in own.items()} for own in self.streams],
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
        self.models.load_state_dict(state["models"])
        self.optimizer.load_state_dict(state["optimizer"])
        for own, known in zip(self.streams, state["streams"], strict=True):
            for name, one in own.items():
                one.set_state(known[name])
        self.carried, self.best = list(state["carried"]), list(state["best"])
        self.done, self.seconds, self.passed = state["done"], state["seconds"], list(state["passed"])
        self.val, self.robust_val = list(state["val"]), list(state["robust_val"])

    def outcomes(self) -> list[Defended]:
        """What the epochs so far gave, of each run. The networks become those of the best of them."""
        return [self._outcome(r) for r in range(len(self.runs))]

    def _outcome(self, r: int) -> Defended:
        model, weights = self.models[r], self.weights[r]
        finite = all(bool(p.isfinite().all()) for p in weights)
        model.load_state_dict(self.best[r])
        val, robust = (tuple(epoch[r] for epoch in curves) for curves in (self.val, self.robust_val))
        best = max(range(self.done), key=lambda epoch: (robust[epoch], epoch))
        seconds, passes = self.seconds / len(self.runs), self.passed[r] / len(self.problems[r].train)
        status = "ok" if finite else "diverged"
        return Defended(model.eval(), status, best, val, robust, fingerprint(weights), seconds, passes)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _joint(found: Sequence[Found]) -> Found:
    return Found(*map(_joined, zip(*found, strict=True)))


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

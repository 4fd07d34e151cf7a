"""Training that compressors continue: AdamW on the rows and the loss that the network was trained with."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

# The loss of a batch: (outputs (N, ..., C), inputs, target (N, ...), share of the training that is done) -> a scalar
Objective = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Weights = dict[str, Tensor]
Constrain = Callable[[Weights, float], Weights]  # parameters and the share that is done -> those to compute with
Schedule = Callable[[float], float]  # the share that is done -> factor of the learning rate, or the radius of SAM


def cosine(done: float) -> float:
    """From 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * done))


def held(until: float) -> Schedule:
    """1 until this share of the training is done, and from there the :func:`cosine`."""
    return lambda done: 1.0 if done < until else cosine((done - until) / (1 - until))


@dataclass(frozen=True)
class Training:
    """Rows with their targets, a loss for each, and how long a network is trained.

    ``loss(outputs (M, C), target (M,))`` returns values (M,): a text has M = N T rows of outputs. The learning rate
    ``lr`` rises over the first 20 steps (a fifth, if there are fewer than 100).
    """

    inputs: Tensor
    target: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    steps: int
    batch: int
    lr: float
    generator: torch.Generator
    decay: float = 0.0

    def again(self) -> "Training":
        """The same with a generator of its own, which draws the same batches."""
        return replace(self, generator=self.generator.clone_state())

    def of(self, share: float) -> "Training":
        """A share of the steps."""
        return replace(self, steps=round(share * self.steps))

    def batches(self) -> Iterable[Tensor]:
        """Rows of each step: all rows in a random order, then in another."""
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(self.steps):
            if len(order) < self.batch:
                order = torch.cat([order, torch.randperm(len(self.target), generator=self.generator)])
            chosen, order = order[: self.batch], order[self.batch :]
            yield chosen

    def mean_loss(self, outputs: Tensor, _: Tensor, target: Tensor, __: float) -> Tensor:
        """The loss that the network was trained with: an :data:`Objective`."""
        return self.loss(outputs.flatten(0, -2), target.flatten()).mean()


def parameters(network: nn.Module) -> Weights:
    """All parameters by name, copies that have gradients."""
    return {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}


def descend(
    network: nn.Module,
    training: Training,
    weights: Weights,
    *,
    objective: Objective | None = None,
    constrain: Constrain = lambda weights, _: weights,
    schedule: Schedule = cosine,
    sharpness: Schedule = lambda _: 0.0,
) -> Weights:
    """Train these parameters in place with AdamW, and return them; the network lends its form alone.

    ``constrain`` makes of the parameters those that the network computes with: quantised or masked ones; gradients go
    through it, and parameters that the network does not have reach it alone. ``sharpness`` is SAM's radius, 0 for
    a step as usual.
    """
    trained = list(weights.values())
    optimizer = torch.optim.AdamW(trained, lr=training.lr, weight_decay=training.decay, fused=True)
    objective = objective or training.mean_loss
    warm = max(1, min(20, training.steps // 5))
    known = {name for name, _ in network.named_parameters()}

    def slope(chosen: Tensor, done: float) -> None:
        used = constrain(weights, done)
        inputs, target = training.inputs[chosen], training.target[chosen]
        outputs = functional_call(network, {name: used[name] for name in known}, (inputs,))
        optimizer.zero_grad()
        objective(outputs, inputs, target, done).backward()

    for step, chosen in enumerate(training.batches()):
        done = step / training.steps
        optimizer.param_groups[0]["lr"] = training.lr * schedule(done) * min(1.0, (step + 1) / warm)
        slope(chosen, done)
        if radius := sharpness(done):
            _climbed(trained, radius, lambda chosen=chosen, done=done: slope(chosen, done))  # type: ignore[misc]
        optimizer.step()
    return weights


def _climbed(weights: list[Tensor], radius: float, slope: Callable[[], None]) -> None:
    """Take the gradient again where the loss is about the largest within ``radius`` (Foret et al., ICLR 2021)."""
    with torch.no_grad():
        kept = [weight.clone() for weight in weights]
        slopes = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        norm = torch.stack([each.norm() for each in slopes]).norm().clamp(min=1e-12)
        for weight, each in zip(weights, slopes, strict=True):
            weight.add_(each, alpha=float(radius / norm))
    slope()
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)


def loaded(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network with these parameters."""
    model = copy.deepcopy(network)
    model.load_state_dict({**model.state_dict(), **{name: w.detach() for name, w in weights.items()}})
    return model

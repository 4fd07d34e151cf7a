"""Fleets: many small networks trained at once, their step compiled or eager."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from .base import Measured, Timed, may_be_absent
from .inputs import labels, normal
from .memory import beyond

RUNS, EPOCHS, BATCH, WIDTH, CLASSES = 32, 2, 64, 16, 10
FEATURES = 64
ROWS = (1_024, 256, 256)  # training, validation, test


class _Fleet:
    """Two epochs of 32 networks with generalized cross-entropy: 32 steps, and two evaluations."""

    version = "1"
    params = (["eager", "compiled"],)
    param_names = ("step",)
    timeout = 300  # seconds; compiling takes some tens

    def setup(self, step: str) -> None:
        with may_be_absent():
            from lossboard import compiler
            from lossboard.fleet import fleet
            from reference.methods import catalogue
        if "compiles" not in inspect.signature(fleet).parameters:
            raise NotImplementedError("fleets of this commit are not told whether to compile")
        if step == "compiled" and not compiler.available():
            raise NotImplementedError("there is no working C++ compiler here")
        method, (runs, recipe) = catalogue("loss")["gce"], task()
        self.train = functools.partial(fleet, method, runs, [WIDTH] * 2, recipe, compiles=step == "compiled")
        self.train()


@functools.cache
def task() -> tuple[list[Any], Any]:
    """Runs that differ in their seed, on random rows of the digits' sizes, and the recipe."""
    import torch

    from lossboard.problem import Problem, Run
    from lossboard.protocol import Recipe

    total = sum(ROWS)
    features, targets = normal(total, FEATURES), labels(total, CLASSES)
    train, val, test = torch.arange(total).split(ROWS)
    data = Problem(features, targets, train, val, test, CLASSES, targets, torch.eye(CLASSES))
    runs = [Run(data, {"lr": 0.1, "q": 0.7}, ("benchmark", seed)) for seed in range(RUNS)]
    return runs, Recipe(epochs=EPOCHS, batch=BATCH, lr=0.1, schedule="constant")


class Fleet(Timed, _Fleet):
    def time_train(self, step: str) -> None:
        self.train()


class FleetMemory(Measured, _Fleet):
    def track_train_peak(self, step: str) -> int:
        return beyond(self.train)

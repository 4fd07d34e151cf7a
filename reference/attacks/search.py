"""The search for the input that a defence trains on: how far, in what steps, from where."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import Found, Objective, ascend
from reference.attacks.ball import anywhere

NEAR = 0.001  # standard deviation of the start of TRADES and MART


@dataclass(frozen=True)
class Search:
    """How a defence looks for the inputs it trains on: ``steps`` of the size ``step`` within ``eps`` in the norm."""

    eps: float
    step: float
    steps: int
    generator: torch.Generator
    norm: str = "linf"

    def anywhere(self, x: Tensor) -> Tensor:
        """A random point of the ball around each x (N, ...)."""
        return anywhere(x, self.eps, self.norm, self.generator)

    def near(self, x: Tensor) -> Tensor:
        """A point next to x, not cut to the box, as TRADES begins."""
        drawn = torch.empty(x.shape, dtype=x.dtype).normal_(0, NEAR, generator=self.generator)
        return x + drawn.to(x.device)

    def ascend(
        self, model: Any, x: Tensor, target: Tensor, objective: Objective, start: Tensor, patience: int | None = None
    ) -> Found:
        """What :func:`reference.attacks.ascent.ascend` finds for this search."""
        return ascend(
            model,
            x,
            target,
            objective,
            start,
            eps=self.eps,
            norm=self.norm,
            step=self.step,
            steps=self.steps,
            patience=patience,
        )

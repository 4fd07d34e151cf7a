"""Predictions whose calibration error is known, on which the estimators' own bias can be measured.

A prediction's confidence c is drawn from a fixed distribution and it is right with probability accuracy(c): the true
error is the mean of |c - accuracy(c)|, an integral.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CELLS = 100_000  # of the midpoint rule over the quantiles of the confidence


@dataclass(frozen=True)
class Simulation:
    """Confidences in (1/C, 1] and how often they are right.

    Args:
        classes: C >= 2.
        skew: confidences are 1 - (1 - 1/C) u^skew for u uniform: 1 spreads them evenly, more puts them near 1.
        slope: above chance, the accuracy is this share of the confidence: 1 calibrated, less too sure.
        wave: amplitude of a sine of three periods over the confidences that is added to the accuracy, which bins can
            hide and which has no error of the mean.
    """

    classes: int = 10
    skew: float = 1.0
    slope: float = 1.0
    wave: float = 0.0

    def confidence(self, u: Tensor) -> Tensor:
        """The confidence at quantile 1 - u for u in [0, 1], same shape."""
        return 1 - (1 - 1 / self.classes) * u.clamp(max=1 - 1e-6) ** self.skew

    def accuracy(self, confidence: Tensor) -> Tensor:
        """The probability that a prediction of this confidence is right, same shape."""
        chance = 1 / self.classes
        above = (confidence - chance) / (1 - chance)
        wave = self.wave * torch.sin(6 * math.pi * above)
        return (chance + self.slope * (confidence - chance) + wave).clamp(0, 1)

    def error(self, power: float = 1.0) -> float:
        """The true calibration error of the predicted class, the L_power norm of c - accuracy(c)."""
        u = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
        c = self.confidence(u)
        return float(((c - self.accuracy(c)).abs() ** power).mean() ** (1 / power))

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Log-probabilities (rows, C), float64, and targets (rows,); the other classes share what is left evenly."""
        c = self.confidence(1 - torch.rand(rows, generator=generator, dtype=torch.float64))
        predicted = torch.randint(self.classes, (rows,), generator=generator)
        right = torch.rand(rows, generator=generator, dtype=torch.float64) < self.accuracy(c)
        other = torch.randint(1, self.classes, (rows,), generator=generator)
        target = torch.where(right, predicted, (predicted + other) % self.classes)
        rest = torch.log1p(-c.clamp(max=1 - 1e-12)) - math.log(self.classes - 1)
        log_p = rest[:, None].repeat(1, self.classes)
        return log_p.scatter(1, predicted[:, None], c.log()[:, None]), target


@dataclass(frozen=True)
class Bias:
    """How far an estimator's mean lies from the truth, and how well that is known."""

    bias: float
    standard_error: float
    spread: float  # standard deviation of one estimate


def bias(
    estimator: Callable[[Tensor, Tensor], float],
    simulation: Simulation,
    truth: float,
    *,
    rows: int,
    draws: int,
    generator: torch.Generator,
) -> Bias:
    """The bias of an estimator(log_p, target) against the truth, over this many draws of so many rows."""
    found = np.array([estimator(*simulation.draw(rows, generator)) for _ in range(draws)])
    spread = float(found.std(ddof=1))
    return Bias(float(found.mean()) - truth, spread / math.sqrt(draws), spread)

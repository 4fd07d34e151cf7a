"""What an attack may change, for tasks to declare and defences to train against."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossboard.errors import UsageError


@dataclass(frozen=True)
class Threat:
    """What an attack may do, and how a defence looks for it while it trains.

    ``norm`` is "linf" or "l2"; ``step`` is a share of eps. Over the share ``ramp`` of the training eps grows in a line
    from 0, for defences that do not say themselves at what radius they train: at a large eps a network may otherwise
    never begin to learn. ``precision`` "bfloat16" has the search for training inputs, and nothing else, run the network
    in mixed precision.

    Raises:
        UsageError: a value that is none of these.
    """

    eps: float
    norm: str = "linf"
    steps: int = 10
    step: float = 0.25
    ramp: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2") or self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"norm = '{self.norm}', precision = '{self.precision}': linf or l2, float32 or bfloat16")
        if not (0 < self.eps < math.inf and 0 < self.step < math.inf and self.steps >= 1 and 0 <= self.ramp <= 1):
            raise UsageError(f"{self}: eps and step finite and above 0, steps at least 1, ramp a share")

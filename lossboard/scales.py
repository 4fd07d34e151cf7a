"""How scores are averaged, compared and shown: shares in percent, ratios by their geometric mean.

Boards work on *averaged* values, in which differences mean something and the larger is better: a share itself, the
logarithm of a ratio, an error less its sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scale:
    """``inward`` maps a metric to what is averaged, ``outward`` back; ``plain`` is the number that is shown."""

    name: str
    unit: str  # behind a number
    words: str  # in captions: "in percent"
    apart: str  # what differences are in: "points"
    inward: Callable[[float], float]
    outward: Callable[[float], float]
    shown: float  # what an outward value is multiplied by
    digits: int
    worst: float = 0.0  # the metric of a failure

    @property
    def smaller(self) -> bool:
        """Whether the smaller value of the metric is better."""
        return self.inward(1.0) < self.inward(0.5)

    def plain(self, averaged: float) -> float:
        """The number that is shown for an averaged value."""
        return self.shown * self.outward(averaged)

    def text(self, mean: float) -> str:
        return f"{self.plain(mean):.{self.digits}f}"

    def width(self, mean: float, half: float) -> float:
        """Half the width of an interval of averaged values, in values of the metric."""
        return abs(self.outward(mean + half) - self.outward(mean - half)) / 2

    def half(self, mean: float, half: float) -> str:
        """Half the width of an interval, as it is shown behind its mean; '' where it is not known."""
        return f"±{self.shown * self.width(mean, half):.{self.digits}f}" if math.isfinite(half) else ""

    def interval(self, mean: float, half: float) -> str:
        """'87.3±0.4', '1.63±0.02'; '' where there is no mean."""
        return self.text(mean) + self.half(mean, half) if math.isfinite(mean) else ""

    def difference(self, mean: float) -> str:
        """A difference of two averaged values, positive where the first is better: in points, or as a factor."""
        if self.name == "ratio":
            return self.text(mean)
        size = round(self.shown * mean, self.digits)
        return f"{'+' if size > 0 else MINUS if size < 0 else ''}{abs(self.shown * mean):.{self.digits}f}"

    def place(self, difference: float) -> float:
        """Where a difference lies on an axis: points, or the logarithm of a factor."""
        return self.shown * difference

    def tick(self, place: float) -> str:
        """What an axis of differences says at a place."""
        return f"{self.outward(place):.3g}" if self.name == "ratio" else f"{place:.4g}".replace("-", MINUS)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _negative(value: float) -> float:
    return -value


def _same(value: float) -> float:
    return value


SCALES = {
    "percent": Scale("percent", " %", "in percent", "points", _same, _same, 100.0, 1),
    "error": Scale(
        "error",
        " %",
        "in percent, the smaller the better",
        "points, to the right where it is smaller",
        _negative,
        _negative,
        100.0,
        2,
        1.0,
    ),
    "ratio": Scale("ratio", "×", "as a multiple", "factors", _log, math.exp, 1.0, 2),
}

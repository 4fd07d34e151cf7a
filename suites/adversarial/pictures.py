"""Small pictures in records: digits of a few grey levels or classes, packed into numbers of six digits.

A page is made of published records alone, so what it shows of a network is measured with it, for one seed: the classes
that it predicts over the plane, and what an attack makes of a few test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SIX = 6  # digits of a number: as many as records keep
GRID = 30  # points a side at which the plane is looked at
SHOWN = 4  # attacked test images of a record
SIDE = 14  # pixels a side of a picture at most
LEVELS = 9  # of grey, from 0


def packed(name: str, digits: Sequence[int]) -> dict[str, float]:
    """Digits from 0 to 9 as metrics ``name_00``, ``name_01``, ...

    >>> packed("a", [1, 2, 3, 4, 5, 6, 7, 8])
    {'a_00': 123456.0, 'a_01': 780000.0}
    """
    parts = [digits[i : i + SIX] for i in range(0, len(digits), SIX)]
    texts = ["".join(map(str, part)).ljust(SIX, "0") for part in parts]
    return {f"{name}_{i:02}": float(text) for i, text in enumerate(texts)}


def unpacked(name: str, metrics: Mapping[str, float], count: int) -> list[int]:
    """So many digits of a record; [] where it does not have them.

    >>> unpacked("a", packed("a", [1, 2, 3, 4, 5, 6, 7]), 7)
    [1, 2, 3, 4, 5, 6, 7]
    """
    keys = [f"{name}_{i:02}" for i in range(-(-count // SIX))]
    if not all(key in metrics and 0 <= metrics[key] < 10**SIX for key in keys):
        return []
    return [int(digit) for key in keys for digit in f"{round(metrics[key]):0{SIX}}"][:count]

"""Sections of the compression suite's pins: how small, which loss trained the network, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lossboard.errors import UsageError

if TYPE_CHECKING:
    from reference.compressors.grid import Grid
    from reference.compressors.pattern import Pattern


@dataclass(frozen=True)
class Setting:
    """How small a network has to become: ``bits`` a weight on a grid, or the share ``sparsity`` cut, or n of m kept.

    ``group``: so many columns share a scale; 0: a row, an output channel; -1: the whole matrix. ``inputs``: what
    layers are given has so many bits; 0: as it is.
    """

    bits: int = 0
    group: int = 0
    symmetric: bool = False
    sparsity: float = 0.0
    n: int = 0
    m: int = 0
    inputs: int = 0

    def __post_init__(self) -> None:
        if sum((self.bits > 0, self.sparsity > 0, self.m > 0)) != 1:
            raise UsageError(f"{self}: one of bits, sparsity, and n of m")
        if not (self.bits == 0 or 2 <= self.bits <= 8) or not 0 <= self.sparsity < 1 or self.group < -1:
            raise UsageError(f"{self}: 2 to 8 bits, a sparsity in (0, 1), a group of columns (0: a row, -1: all)")
        if self.inputs and not (self.bits and 2 <= self.inputs <= 8):
            raise UsageError(f"{self}: inputs of 2 to 8 bits, beside weights in few bits")
        if self.m and not 0 < self.n < self.m:
            raise UsageError(f"n = {self.n}, m = {self.m}: 0 < n < m")

    @property
    def activations(self) -> int:
        """Bits of what layers are given; 0: as it is."""
        return self.inputs

    @property
    def share(self) -> float:
        """Of the weights: what is cut."""
        return 1 - self.n / self.m if self.m else self.sparsity

    def given(self) -> dict[str, Grid | Pattern]:
        """What a compressor is passed."""
        from reference.compressors.grid import Grid
        from reference.compressors.pattern import Pattern

        if self.bits:
            return {"grid": Grid(self.bits, self.group, self.symmetric)}
        return {"pattern": Pattern(self.sparsity, self.n, self.m)}


@dataclass(frozen=True)
class Loss:
    """The loss that the network was trained with, and is trained further with, at its author's defaults."""

    method: str
    kind: str = "loss"  # of the catalogue

    def __post_init__(self) -> None:
        if self.kind not in ("loss", "calibration"):
            raise UsageError(f"kind = '{self.kind}': loss or calibration")


@dataclass(frozen=True)
class Training:
    """How the network is trained, by AdamW with a cosine; and for how many ``further`` steps compressors may train it.
    A network that comes trained has no ``steps``.

    ``context`` is how many tokens a row of a text has; ``calibration`` how many training rows compressors see.
    ``further_batch`` is the batch of the further steps, 0: as before. With ``twice`` the network is trained
    once more, from the same weights with other batches, compressors that train compress it too, and it is recorded how
    the two results lie to each other.
    """

    steps: int
    batch: int
    lr: float
    further: int
    further_lr: float
    decay: float = 0.0
    context: int = 0
    calibration: int = 128
    further_batch: int = 0
    twice: bool = False

    def __post_init__(self) -> None:
        positive = min(self.batch, self.lr, self.further, self.further_lr, self.calibration) > 0
        if self.steps < 0 or not positive:
            raise UsageError(f"{self}: batch, rates, further steps and calibration rows are positive; steps at least 0")

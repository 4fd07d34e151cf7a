"""What a task of the kernel suite is: the shape, and the kind of methods that enter it."""

from __future__ import annotations

from dataclasses import dataclass

from lossboard.errors import UsageError

PRECISIONS = ("highest", "medium")  # of float32 products: torch takes another library for the second
COARSER = {"eps8": 2.0**-8, "eps16": 2.0**-16}  # thresholds beside an approximation's own, for error against time


@dataclass(frozen=True)
class Shape:
    """Rows and their length, or hidden states, their width, classes and labels; and how they are filled and shared."""

    sizes: tuple[int, ...]
    inputs: str = "normal"  # "normal", "zipf" or "model", see suites/kernels/inputs.py
    threads: int = 1
    precision: str = "highest"  # of float32 matrix products

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if len(self.sizes) not in (2, 3, 4) or min(self.sizes) < 1 or self.threads < 1:
            raise UsageError(f"sizes = {list(self.sizes)}, threads = {self.threads}: two to four sizes, all positive")
        if self.precision not in PRECISIONS or self.inputs not in ("normal", "zipf", "model"):
            raise UsageError(
                f"inputs = '{self.inputs}', precision = '{self.precision}': normal, zipf or model; {PRECISIONS}"
            )


@dataclass(frozen=True)
class Kind:
    """An operation on a device in a precision: 'softmax', 'linear_cross_entropy-gpu-bf16'."""

    op: str
    device: str
    dtype: str

    @classmethod
    def of(cls, name: str) -> Kind:
        op, *how = name.split("-")
        return cls(op, "cuda" if "gpu" in how else "cpu", "bfloat16" if "bf16" in how else "float32")

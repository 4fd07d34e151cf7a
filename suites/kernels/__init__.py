"""Kernels: implementations of large operations side by side on the machine at hand, each behind the gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from lossboard.errors import LossboardError, UsageError
from lossboard.protocol import Cell, Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from reference.methods import Method

PRECISIONS = ("highest", "high")
COARSER = {"eps8": 2.0**-8, "eps16": 2.0**-16}  # thresholds beside an approximation's own, for error against time


@dataclass(frozen=True)
class Shape:
    """Rows and their length, or hidden states, their width and classes; and how they are filled and shared out."""

    sizes: tuple[int, ...]
    inputs: str = "normal"  # "normal", "zipf" or "model", see suites/kernels/inputs.py
    threads: int = 1
    precision: str = "highest"  # of float32 matrix products

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if len(self.sizes) not in (2, 3) or min(self.sizes) < 1 or self.threads < 1:
            raise UsageError(f"sizes = {list(self.sizes)}, threads = {self.threads}: two or three sizes, all positive")
        if self.precision not in PRECISIONS or self.inputs not in ("normal", "zipf", "model"):
            raise UsageError(
                f"inputs = '{self.inputs}', precision = '{self.precision}': normal, zipf or model; {PRECISIONS}"
            )


SECTIONS = {"shape": Shape}


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


def methods() -> Mapping[str, Method]:
    """Every implementation that this machine can import, once for each kind that it can do: 'softmax.two_pass'."""
    from kernels.registry import catalogue
    from lossboard.protocol import load

    found: dict[str, Method] = {}
    for name in load("kernels").kinds:
        kind = Kind.of(name)
        for kernel in catalogue(kind.op).values():
            if kernel.device in ("any", kind.device) and (not kernel.dtypes or kind.dtype in kernel.dtypes):
                tags = [word for word in ("approximate", "gradient_in_forward") if getattr(kernel, word)]
                defaults = {"eps": _threshold(kernel.function)} if "eps" in kernel.options else {}
                made = Method(
                    id=f"{name}.{kernel.id}",
                    kind=name,
                    function=kernel.function,
                    module=kernel.module,
                    defaults=MappingProxyType(defaults),
                    search=MappingProxyType({}),
                    tags=tuple(word.replace("_", " ") for word in tags),
                )
                for each in (made, *_variants(made)):
                    found[each.id] = each
    return found


def _threshold(function: object) -> float:
    import inspect

    return float(inspect.signature(function).parameters["eps"].default)  # type: ignore[arg-type]


def _variants(method: Method) -> Iterator[Method]:
    from dataclasses import replace

    for suffix, eps in COARSER.items() if "eps" in method.defaults else ():
        yield replace(method, id=f"{method.id}_{suffix}", defaults=MappingProxyType({"eps": eps}))


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """All implementations of a kind on all its shapes, for one seed: they are timed in turn, in one process."""

    def together(cell: Cell) -> tuple[str, int]:
        return cell.task.kind, cell.seed

    for _, found in groupby(sorted(cells, key=together), key=together):
        part = tuple(found)
        yield Unit(part, cost=sum(map(_seconds, part)))


def _seconds(cell: Cell) -> float:
    """About what a cell takes here: the gate, and its samples; a start of torch is spread over the cells."""
    shape: Shape = cell.task.parts["shape"]
    work = math.prod(shape.sizes)
    each = 2e-9 * work if len(shape.sizes) == 2 else 1.5e-10 * work
    return 0.3 + max(10 * each, 0.2)


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Gate, time and weigh the unit's cells."""
    import torch

    from suites.kernels import measuring

    kind = Kind.of(unit.cells[0].task.kind)
    if kind.device == "cuda" and not torch.cuda.is_available():
        raise LossboardError("this track needs a CUDA device, and torch sees none; leave it out or run it elsewhere")
    gated = {id: measuring.gated(kind, method) for id, method in measuring.entrants(unit, context, kind).items()}
    tasks: dict[str, tuple[Task, list[Cell]]] = {}
    for cell in unit.cells:
        tasks.setdefault(cell.task.id, (cell.task, []))[1].append(cell)
    for task, cells in tasks.values():
        yield from measuring.records(kind, task, cells, gated, context)

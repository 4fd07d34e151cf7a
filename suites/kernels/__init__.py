"""Kernels: implementations of large operations side by side on the machine at hand, each behind the gate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from lossboard.errors import LossboardError
from lossboard.protocol import Cell, Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from reference.methods import Method
from suites.kernels.shapes import Kind, Shape

SECTIONS = {"shape": Shape}
LITTLE_S = 60.0


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
                found[f"{name}.{kernel.id}"] = Method(
                    id=f"{name}.{kernel.id}",
                    kind=name,
                    function=kernel.function,
                    module=kernel.module,
                    defaults=MappingProxyType(defaults),
                    search=MappingProxyType({}),
                    tags=tuple(word.replace("_", " ") for word in tags),
                )
    return found


def datasets(cells: Iterable[Cell]) -> set[str]:
    """What their inputs are made from, beside what is drawn."""
    from suites.kernels.inputs import MODEL

    return {MODEL.dataset for cell in cells if cell.task.parts["shape"].inputs == "model"}


def _threshold(function: object) -> float:
    return float(inspect.signature(function).parameters["eps"].default)  # type: ignore[arg-type]


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """All implementations of a kind on all its shapes, for one seed: they are timed in turn, in one process.

    Kinds that take little share a process, of which a start costs seconds.
    """

    def together(cell: Cell) -> tuple[int, str]:
        return cell.seed, cell.task.kind

    pending: list[Cell] = []
    for (seed, _), found in groupby(sorted(cells, key=together), key=together):
        own = list(found)
        if pending and (pending[0].seed != seed or _cost([*pending, *own]) > LITTLE_S):
            yield Unit(tuple(pending), _cost(pending))
            pending = []
        pending += own
    if pending:
        yield Unit(tuple(pending), _cost(pending))


def _cost(cells: Iterable[Cell]) -> float:
    return sum(map(_seconds, cells))


def _seconds(cell: Cell) -> float:
    """About what a cell takes here: the gate, and its samples; a start of torch is spread over the cells."""
    shape: Shape = cell.task.parts["shape"]
    work = math.prod(shape.sizes[:3])
    each = 2e-9 * work if len(shape.sizes) == 2 else 1.5e-10 * work
    return 0.5 + 10 * each


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Gate, time and weigh the unit's cells."""
    import torch

    from suites.kernels import measuring

    measuring.keep_freed_memory()
    kinds: dict[str, dict[Task, list[Cell]]] = {}
    for cell in unit.cells:
        kinds.setdefault(cell.task.kind, {}).setdefault(cell.task, []).append(cell)
    for name, tasks in kinds.items():
        kind = Kind.of(name)
        if kind.device == "cuda" and not torch.cuda.is_available():
            raise LossboardError("this track needs a CUDA device, and torch sees none; run it where there is one")
        asked = {cell.method: context.methods[cell.method] for cells in tasks.values() for cell in cells}
        entered = measuring.entrants(name, asked)
        faults = {id: measuring.gated(kind, method) for id, method in entered.items()}
        for task, cells in tasks.items():
            yield from measuring.records(kind, task, cells, entered, faults)

"""Kernels: implementations of large operations side by side on the machine at hand, each behind the gate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType

from lossboard.errors import LossboardError
from lossboard.protocol import Cell, Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from reference.methods import Method
from suites.kernels.shapes import COARSER, Kind, Shape

SECTIONS = {"shape": Shape}


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
    return float(inspect.signature(function).parameters["eps"].default)  # type: ignore[arg-type]


def _variants(method: Method) -> Iterator[Method]:
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
    entered = measuring.entrants(unit, context.methods)
    faults = {id: measuring.gated(kind, method) for id, method in entered.items()}
    tasks: dict[str, tuple[Task, list[Cell]]] = {}
    for cell in unit.cells:
        tasks.setdefault(cell.task.id, (cell.task, []))[1].append(cell)
    for task, cells in tasks.values():
        yield from measuring.records(kind, task, cells, entered, faults)

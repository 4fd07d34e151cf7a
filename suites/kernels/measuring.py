"""One operation in one process: the gate, then times in turn, memory in processes of their own, errors and shares."""

from __future__ import annotations

import ctypes
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
import torch._dynamo
from torch import Tensor

from kernels.registry import implementation
from lossboard.measure import gate
from lossboard.measure.gate import SLACK, Truth
from lossboard.measure.memory import Peak, peak
from lossboard.measure.roofline import Roofline
from lossboard.measure.timing import Times, interleaved
from lossboard.protocol import Cell, Task
from lossboard.records import Record
from lossboard.run import recorded
from reference.methods import Method
from reference.ops.cases import CASES, placed
from reference.ops.costs import COSTS
from suites.kernels.inputs import trained
from suites.kernels.operations import OPERATIONS, Inputs, forward, made, prepared, whole
from suites.kernels.rates import gigabytes, rates
from suites.kernels.shapes import COARSER, Kind, Shape

BUDGET_S = 0.3  # of the wall, for the rounds of one task in one process
VARIED = ("cut", "triton_cut")  # whose thresholds are varied
ROUNDS = 3  # at least: the intervals of boards are over processes, not over a process's rounds
PRELOAD = ("suites.kernels.warm",)
GAIN = 64.0  # a threshold times this is allowed of a gradient's largest magnitude: up to 35 is seen where V is 2000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT_BYTES = 2**31 - 1  # of a block, and in all before any goes back
NORMAL = 1e-37  # smaller softmax values are left out of the error: float32 holds fewer digits of them


def entrants(kind: str, asked: Mapping[str, Method]) -> dict[str, Method]:
    """The methods asked for, all of a kind, and their control, which is always timed beside them."""
    from suites.kernels import methods

    control = f"{kind}.eager"
    return {control: asked.get(control) or methods()[control], **asked}


def gated(kind: Kind, method: Method) -> str:
    """What the gate has against an implementation; '' where it passes."""
    operation, found = OPERATIONS[kind.op], implementation(kind.op, _impl(method))
    awkward = CASES[kind.op](one_shape=found.id == "compiled")
    verdict = gate(
        operation.call(found.id, method.defaults),
        operation.definition,
        placed(awkward, dtype=getattr(torch, kind.dtype), device=kind.device),
        allowed=GAIN * method.defaults.get("eps", 0.0),
        overwrites=found.overwrites,
        truths=_truths(kind),
    )
    return "; ".join(verdict.faults[:3])


@functools.cache
def _truths(kind: Kind) -> dict[str, Truth]:
    """What the definition gives for the awkward cases of a kind; filled in by the first implementation."""
    return {}


def keep_freed_memory() -> None:
    """Have glibc keep what a call frees: else each call that allocates zeroes new pages, and times are of that."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(setting, KEPT_BYTES)


def _impl(method: Method) -> str:
    """The implementation's id: 'cut' of 'linear_cross_entropy.cut'."""
    return method.id.split(".", 1)[1]


def records(
    kind: Kind,
    task: Task,
    cells: Sequence[Cell],
    methods: Mapping[str, Method],
    faults: Mapping[str, str],
) -> Iterator[Record]:
    """The records of a task's cells, all of one seed."""
    shape: Shape = task.parts["shape"]
    seed, start = cells[0].seed, time.process_time()
    torch._dynamo.reset()  # it compiles a function for eight shapes at most, and then runs it as it is
    torch.set_num_threads(shape.threads)
    torch.set_float32_matmul_precision(shape.precision)
    inputs = made(kind.op, shape.sizes, shape.inputs, kind.dtype, kind.device, seed)
    passed = {id: method for id, method in methods.items() if not faults[id]}
    work = _Work(kind, inputs, passed | _coarser(passed))
    exact, machine, control = _exact(kind, inputs), rates(kind, shape), f"{task.kind}.eager"
    errors, harmful = work.tried(exact)
    drift = OPERATIONS[kind.op].drift(inputs, exact)
    faults = {**faults, **_off(errors, passed, control, kind, drift), **harmful}
    forwards, wholes = work.times(seed, [id for id in errors if not faults.get(id)])
    each = (time.process_time() - start) / len(cells)
    for cell in cells:
        id = cell.method
        fault, beside = (f"gate: {faults[each]}" if faults[each] else wholes[each].failure for each in (id, control))
        if not fault and beside:
            fault = f"{control}, the control, failed: {beside}"
        found: dict[str, float] = {}
        note = fault
        if not fault:
            took = wholes[id]
            found = {"speed": wholes[control].median_s / took.median_s, "both_s": took.median_s}
            found |= {"low_s": took.low_s, "high_s": took.high_s, "largest_error": errors[id]}
            for name in (other for other in COARSER if f"{id} {other}" in wholes):
                found |= {
                    f"{name}_s": wholes[f"{id} {name}"].median_s,
                    f"{name}_error": errors[f"{id} {name}"],
                }
            found |= {"forward_s": forwards[id].median_s} if id in forwards else {}
            found |= {"roofline_share": _share(machine, kind, shape, took.median_s), **gigabytes(machine)}
            if seed == 0:
                room = _memory(kind, shape, methods[id], seed)
                found["extra_bytes"] = max(room.beyond_bytes, 0.0)
                note = "" if room.status == "ok" else f"memory was not measured, {room.status}: {room.message}"
        known = {key: value for key, value in found.items() if not math.isnan(value)}
        status = "error" if fault else "ok"
        yield recorded(cell, status, known, seconds=each, bits=_weights(shape), error=note)


def _off(
    errors: Mapping[str, float], methods: Mapping[str, Method], control: str, kind: Kind, drift: float
) -> dict[str, str]:
    """Those whose error on the inputs that are timed is beyond what the gate allows: its cases are small."""
    least = max(errors.get(control, 0.0), torch.finfo(getattr(torch, kind.dtype)).eps)
    limits = {id: SLACK * least + drift * method.defaults.get("eps", 0.0) for id, method in methods.items()}
    return {
        id: f"off by {errors[id]:.1e} at this shape; the control by {errors.get(control, math.nan):.1e}"
        for id in methods.keys() & errors.keys()
        if not errors[id] <= limits[id]
    }


def _coarser(methods: Mapping[str, Method]) -> dict[str, Method]:
    """The approximations at other thresholds, under names that are no methods: for error against time."""
    return {
        f"{id} {name}": replace(method, defaults=MappingProxyType({"eps": eps}))
        for id, method in methods.items()
        for name, eps in COARSER.items()
        if _impl(method) in VARIED
    }


class _Work:
    """The calls of every implementation that passed, on inputs of their own where one overwrites them."""

    def __init__(self, kind: Kind, inputs: Inputs, methods: Mapping[str, Method]) -> None:
        operation = OPERATIONS[kind.op]
        self.device, self.differentiable, self.restored = kind.device, bool(operation.differentiable), set[str]()
        self.out, self.elementwise = inputs.get("out"), operation.elementwise
        self.shared = {name: (x, x.detach().clone()) for name, x in inputs.items() if name != "out"}
        self.forwards: dict[str, Callable[[], object]] = {}
        self.wholes: dict[str, Callable[[], object]] = {}
        for id, method in methods.items():
            found = implementation(kind.op, _impl(method))
            own = {name: x.clone() for name, x in inputs.items()} if found.overwrites else inputs
            call = operation.call(found.id, method.defaults)
            calls: list[Callable[[], object]] = [forward(operation, call, own), whole(operation, call, own)]
            if found.overwrites:
                self.restored.add(id)
                calls = [_restoring(each, own, inputs) for each in calls]
            self.forwards[id], self.wholes[id] = calls
        self.restore = _restoring(lambda: None, {k: x.clone() for k, x in inputs.items()}, inputs)

    def tried(self, exact: Sequence[Tensor]) -> tuple[dict[str, float], dict[str, str]]:
        """Each called once, before any is timed: its error, and what is wrong with it beside, if anything is."""
        errors, faults = {}, {}
        for id in self.wholes:
            try:
                errors[id] = self.error(id, exact)
            except Exception as error:  # whatever it raises is its result, and no other's
                faults[id] = f"raised {type(error).__name__}: {error}"
            for name, (shared, kept) in self.shared.items():
                if not torch.equal(shared, kept):  # inputs hold no NaN
                    faults[id] = f"the input {name} is overwritten at this shape"
                    shared.detach().copy_(kept)
        return errors, faults

    def times(self, seed: int, ids: Sequence[str]) -> tuple[dict[str, Times], dict[str, Times]]:
        """Of forward passes (of one seed, where there is a backward pass), and of whole ones."""
        wholes = self._net(self.wholes, seed, ids)
        if not self.differentiable:
            return wholes, wholes
        return (self._net(self.forwards, seed + 1, ids) if seed == 0 else {}), wholes

    def _net(self, calls: Mapping[str, Callable[[], object]], seed: int, ids: Sequence[str]) -> dict[str, Times]:
        extra = {"restore": self.restore} if self.restored else {}
        timed = {id: calls[id] for id in ids} | extra
        found = interleaved(timed, device=self.device, budget_s=BUDGET_S, least_rounds=ROUNDS, seed=seed)
        for id in self.restored & set(ids):
            spent, took = found["restore"].median_s, found[id]
            found[id] = replace(
                took, median_s=took.median_s - spent, low_s=took.low_s - spent, high_s=took.high_s - spent
            )
        return found

    def error(self, id: str, exact: Sequence[Tensor]) -> float:
        """The largest error of what a call returns: of values that float32 holds in full, or over the largest."""
        if self.out is not None:
            self.out.fill_(math.nan)  # else what is left out has the last one's values
        result = self.wholes[id]()
        found = result if isinstance(result, tuple) else (result,)
        errors = [self._error(ours, truth) for ours, truth in zip(found, exact, strict=True)]
        return math.nan if any(map(math.isnan, errors)) else max(errors)

    def _error(self, ours: Tensor, exact: Tensor) -> float:
        off = (ours.double() - exact).abs_()
        if self.elementwise:
            return (off / exact)[exact > NORMAL].max().item()
        return (off.max() / exact.abs().max()).item()


def _weights(shape: Shape) -> str:
    """12 hex digits over the weights that the inputs were made with, or ''."""
    return trained().sha256[:12] if shape.inputs == "model" else ""


def _restoring(call: Callable[[], object], own: Inputs, source: Inputs) -> Callable[[], object]:
    changed = [(own[name], source[name]) for name in own if own[name].is_floating_point()]

    def restored() -> object:
        for ours, original in changed:
            ours.detach().copy_(original)
        return call()

    return restored


def _exact(kind: Kind, inputs: Inputs) -> list[Tensor]:
    """What the definition gives in float64: the value, and the gradients."""
    operation = OPERATIONS[kind.op]
    wide = {name: x.detach().double() if x.is_floating_point() else x for name, x in inputs.items()}
    result = whole(operation, operation.definition, wide)()
    return list(result) if isinstance(result, tuple) else [result]  # type: ignore[list-item]


def _memory(kind: Kind, shape: Shape, method: Method, seed: int) -> Peak:
    """The peak of a whole call, after one of the same size: what a first call loads and compiles does not count."""
    given = shape.sizes, shape.inputs, kind.dtype, kind.device, seed, shape.precision
    how = (kind.op, _impl(method), dict(method.defaults), *given)
    return peak(prepared, how, warm=how, device=kind.device, preload=PRELOAD)


def _share(machine: Roofline, kind: Kind, shape: Shape, seconds: float) -> float:
    element = torch.finfo(getattr(torch, kind.dtype)).bits // 8
    least = COSTS[kind.op](shape.sizes, element, bool(OPERATIONS[kind.op].differentiable))
    flops = least.flops if kind.op.startswith("linear_") else 0  # of the others no rate is measured
    rate = kind.dtype + ("-medium" if shape.precision == "medium" and kind.dtype == "float32" else "")
    return machine.share(least.bytes_read, least.bytes_written, flops, rate, seconds)

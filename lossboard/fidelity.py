"""``lossboard check``: the fidelity card of a loss, what it computes in numbers that its paper or code can be held to.

Values at pinned logits, its gradient against finite differences, sums over labels, bounds, extreme inputs, which other
losses of the catalogue it is the same as, and its time and memory beside cross-entropy. All at the author's defaults
and in float64, but for time and memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lossboard.measure import interleaved, peak
from lossboard.measure.timing import Call
from reference.methods import PLAIN, Method, catalogue

LOGITS = ((2.0, 1.0, -1.0), (0.0, 0.0, 0.0), (-3.0, 5.0, 1.0), (10.0, -10.0, 0.0))
CLASSES, DRAWS = 3, 64
STEP = 1e-6  # of finite differences
SAME = 1e-9  # largest difference of losses that are the same, relative to their size
EXTREME = 1e4
SAMPLES, WIDE = 4096, 100  # rows and classes whose time and memory are taken


@dataclass(frozen=True)
class Card:
    """What was found of one loss. Times are of a forward and backward pass over 4,096 samples of 100 classes."""

    id: str
    values: Mapping[tuple[float, ...], tuple[float, ...]]  # logits -> value for each label; none for batchwise losses
    gradient: float  # largest difference from finite differences, relative to the largest slope
    sums: tuple[float, float]  # least and largest sum over labels
    range: tuple[float, float]  # least and largest value, at extreme logits too
    finite: bool  # values and gradients at extreme logits
    same: tuple[str, ...]  # losses of equal value, or of proportional gradient
    time_s: float
    plain_s: float  # of cross-entropy, in turn
    memory_bytes: float
    plain_bytes: float


def card(method: Method) -> Card:
    """Measure a loss of the catalogue."""
    generator = torch.Generator().manual_seed(0)
    outputs = method.outputs(CLASSES) if method.outputs else CLASSES
    rows = 3 * torch.randn(DRAWS, outputs, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (DRAWS,), generator=generator)
    ends = EXTREME * torch.tensor(
        [[1.0] + [-1.0] * (outputs - 1), [-1.0] * (outputs - 1) + [1.0], [1.0] * outputs], dtype=torch.float64
    )
    far, labels = ends.repeat_interleave(CLASSES, 0), torch.arange(CLASSES).repeat(len(ends))
    per_sample = not method.batchwise
    table = _against_all(method, rows) if per_sample else torch.full((1, CLASSES), torch.nan)
    extreme, slope = _with_gradient(method, far, labels)
    seen = torch.cat([table.flatten(), extreme.flatten()]) if per_sample else extreme.flatten()
    pinned = torch.tensor(LOGITS, dtype=torch.float64)
    shown = _against_all(method, pinned) if per_sample and outputs == CLASSES else torch.empty(0, CLASSES)
    times = interleaved({method.id: prepared(method.id), PLAIN: prepared(PLAIN)}, budget_s=2.0)
    room = {id: peak(prepared, (id,), warm=(id,), preload=["reference.methods"]) for id in (method.id, PLAIN)}
    return Card(
        id=method.id,
        values={tuple(z): tuple(values) for z, values in zip(pinned.tolist(), shown.tolist(), strict=False)},
        gradient=_off(method, rows[:8], target[:8]),
        sums=(float(table.sum(1).min()), float(table.sum(1).max())),
        range=(float(seen.min()), float(seen.max())),
        finite=bool(extreme.isfinite().all() and slope.isfinite().all()),
        same=tuple(_same(method, rows, target)),
        time_s=times[method.id].median_s,
        plain_s=times[PLAIN].median_s,
        memory_bytes=room[method.id].beyond_bytes,
        plain_bytes=room[PLAIN].beyond_bytes,
    )


def supplied(method: Method, logits: Tensor) -> dict[str, Tensor]:
    """What training would give the loss beside logits and targets, drawn once and for all."""
    generator, n = torch.Generator().manual_seed(1), len(logits)
    classes = next(c for c in range(2, 10_000) if (method.outputs(c) if method.outputs else c) == logits.shape[1])
    given = {
        "progress": torch.tensor(0.5),
        "draws": torch.rand(n, method.draws, generator=generator),
        "head": torch.randn(classes, 8, generator=generator),
        "transition": 0.7 * torch.eye(classes) + 0.3 / classes,
    }
    if method.memory:
        given["state"] = torch.full((n, classes) if method.memory.per_class else (n,), method.memory.initial)
    if method.learned:
        given["learned"] = method.learned(classes, generator)
    return {key: given[key].to(logits) for key in method.supplied}


def values(method: Method, logits: Tensor, target: Tensor) -> Tensor:
    """The loss at its defaults: (N,), or a scalar where it is batchwise."""
    found = method.function(logits, target, **{**method.defaults, **supplied(method, logits)})
    result: Tensor = found[0] if method.memory else found
    return result


def _against_all(method: Method, rows: Tensor) -> Tensor:
    """The values (N, C) of these rows with every label."""
    target = torch.arange(CLASSES).repeat(len(rows))
    return values(method, rows.repeat_interleave(CLASSES, 0), target).reshape(len(rows), CLASSES)


def _with_gradient(method: Method, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    found = values(method, logits, target)
    if not found.requires_grad:  # a loss may be flat
        return found.detach(), torch.zeros_like(logits)
    return found.detach(), torch.autograd.grad(found.sum(), logits)[0]


def _off(method: Method, logits: Tensor, target: Tensor) -> float:
    """How far the gradient is from central differences, relative to the largest slope."""
    _, slope = _with_gradient(method, logits, target)
    found = torch.empty_like(slope)
    for place in range(logits.numel()):
        step = torch.zeros(logits.numel(), dtype=torch.float64)
        step[place] = STEP
        step = step.view_as(logits)
        ahead, behind = (values(method, logits + sign * step, target).sum() for sign in (1, -1))
        found.view(-1)[place] = (ahead - behind) / (2 * STEP)
    return float((slope - found).abs().max() / slope.abs().max().clamp(min=1e-12))


def _same(method: Method, logits: Tensor, target: Tensor) -> Iterator[str]:
    """Other losses of the same value at these logits, or whose gradient is a multiple of this one's."""
    ours, slope = _with_gradient(method, logits, target)
    for id, other in catalogue("loss").items():
        if (
            id == method.id
            or other.batchwise != method.batchwise
            or (other.correction and other.correction.at != "loss")
        ):
            continue
        if (other.outputs(CLASSES) if other.outputs else CLASSES) != logits.shape[1]:
            continue
        theirs, gradient = _with_gradient(other, logits, target)
        if (ours - theirs).abs().max() <= SAME * (1 + ours.abs().max()):
            yield id
            continue
        scale = (slope * gradient).sum() / (gradient * gradient).sum().clamp(min=1e-300)
        if scale > 0 and (slope - scale * gradient).abs().max() <= 1e-7 * slope.abs().max():
            yield f"{float(scale):.6g} times {id}, up to a constant"


def prepared(id: str) -> Call:
    """A forward and backward pass of a loss, on inputs of its own."""
    method = catalogue("loss")[id]
    generator = torch.Generator().manual_seed(2)
    outputs = method.outputs(WIDE) if method.outputs else WIDE
    logits = torch.randn(SAMPLES, outputs, generator=generator).requires_grad_()
    target, given = torch.randint(WIDE, (SAMPLES,), generator=generator), supplied(method, logits.detach())
    return functools.partial(
        _pass, method.function, logits, target, {**method.defaults, **given}, method.memory is not None
    )


def _pass(
    function: Callable[..., Tensor], logits: Tensor, target: Tensor, given: Mapping[str, object], remembers: bool
) -> Tensor:
    found = function(logits, target, **given)
    return torch.autograd.grad((found[0] if remembers else found).sum(), logits)[0]

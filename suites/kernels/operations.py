"""What the suite calls: each operation's inputs, a forward pass, a forward and backward pass, and its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import kernels
from lossboard.problem import stream
from reference.ops.cross_entropy import cross_entropy
from reference.ops.linear_cross_entropy import linear_cross_entropy
from reference.ops.linear_decoupled_softmax import linear_decoupled_softmax
from reference.ops.logsumexp import logsumexp
from reference.ops.softmax import softmax
from suites.kernels.inputs import decoupled_softmax_inputs, linear_cross_entropy_inputs, softmax_logits

Inputs = dict[str, Tensor]
Call = Callable[..., Any]  # takes the inputs by name, returns a tensor


@dataclass(frozen=True)
class Operation:
    """One operation: ``call(impl, settings)`` is what a user calls, ``definition`` what it must give.

    ``differentiable`` names the inputs that get gradients; none where a forward pass is all that is timed. Errors are
    of each element where ``elementwise``, else over a tensor's largest magnitude. ``drift(inputs, exact)`` bounds the
    error of a gradient, so measured, for each unit of the threshold below which an approximation leaves terms out.
    """

    inputs: Callable[..., Inputs]  # (kind of inputs, sizes, dtype, generator)
    definition: Call
    call: Callable[[str, Mapping[str, float]], Call]
    differentiable: tuple[str, ...] = ()
    elementwise: bool = False
    drift: Callable[[Inputs, Sequence[Tensor]], float] = lambda inputs, exact: 0.0


def _rows(kind: str, sizes: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    return {"x": softmax_logits(kind, sizes, dtype, generator)}


def _rows_and_out(kind: str, sizes: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """With the output that every implementation writes to: how fast memory is depends on its pages."""
    x = softmax_logits(kind, sizes, dtype, generator)
    return {"x": x, "out": torch.empty_like(x).fill_(0)}  # its pages are there before they are counted


def _labelled(kind: str, sizes: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    target = torch.randint(sizes[1], (sizes[0],), generator=generator)
    return {"logits": softmax_logits(kind, sizes, dtype, generator), "target": target}


def _hidden(kind: str, sizes: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    n, d, v = sizes
    hidden, weight, target = linear_cross_entropy_inputs(kind, n, d, v, dtype, generator)
    return {"hidden": hidden, "weight": weight, "target": target}


def _present(kind: str, sizes: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    n, d, classes, most = sizes
    hidden, weight, positives = decoupled_softmax_inputs(kind, n, d, classes, most, dtype, generator)
    return {"hidden": hidden, "weight": weight, "positives": positives}


def _named(function: Callable[..., Any]) -> Callable[[str, Mapping[str, float]], Call]:
    """A public call with an implementation chosen, and settings of its own."""

    def chosen(impl: str, settings: Mapping[str, float]) -> Call:
        return lambda **inputs: function(**inputs, impl=impl, **settings)

    return chosen


def _softmax(x: Tensor, out: Tensor | None = None) -> Tensor:
    """The definition, with an argument that only kernels use."""
    return softmax(x)


def _left_out(inputs: Inputs, exact: Sequence[Tensor]) -> float:
    """Each logit's gradient may be off by a threshold of a row's weight, 1 / N: the other factor's sum times that."""
    (_, d_hidden, d_weight), rows = exact, len(inputs["hidden"])
    factors = (inputs["weight"], d_hidden), (inputs["hidden"], d_weight)
    return max((other.detach().double().abs().sum(0).max() / rows / g.abs().max()).item() for other, g in factors)


OPERATIONS = {
    "softmax": Operation(_rows_and_out, _softmax, _named(kernels.softmax), elementwise=True),
    "logsumexp": Operation(_rows, logsumexp, _named(kernels.logsumexp)),
    "cross_entropy": Operation(_labelled, cross_entropy, _named(kernels.cross_entropy), ("logits",)),
    "linear_cross_entropy": Operation(
        _hidden, linear_cross_entropy, _named(kernels.linear_cross_entropy), ("hidden", "weight"), drift=_left_out
    ),
    "linear_decoupled_softmax": Operation(
        _present,
        linear_decoupled_softmax,
        _named(kernels.linear_decoupled_softmax),
        ("hidden", "weight"),
        drift=_left_out,
    ),
}


def made(op: str, sizes: tuple[int, ...], kind: str, dtype: str, device: str, seed: int) -> Inputs:
    """The inputs of a task for one seed, the same for every implementation."""
    generator = stream("kernels", op, sizes, kind, seed)
    return {k: v.to(device) for k, v in OPERATIONS[op].inputs(kind, sizes, getattr(torch, dtype), generator).items()}


def forward(operation: Operation, call: Call, inputs: Inputs) -> Callable[[], Tensor]:
    """A forward pass, as in training where the operation has gradients."""
    leaves = _leaves(operation, inputs)
    return lambda: call(**leaves)


def both(operation: Operation, call: Call, inputs: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """A forward and a backward pass; returns the value and the gradients."""
    leaves = _leaves(operation, inputs)
    wanted = [leaves[name] for name in operation.differentiable]

    def step() -> tuple[Tensor, ...]:
        value = call(**leaves)
        return value.detach(), *torch.autograd.grad(value, wanted)

    return step


def whole(operation: Operation, call: Call, inputs: Inputs) -> Callable[[], object]:
    """What ranks: forward and backward where there are gradients, else forward."""
    return both(operation, call, inputs) if operation.differentiable else forward(operation, call, inputs)


def _leaves(operation: Operation, inputs: Inputs) -> Inputs:
    return {name: x.requires_grad_() if name in operation.differentiable else x for name, x in inputs.items()}


def prepared(
    op: str,
    impl: str,
    settings: Mapping[str, float],
    sizes: tuple[int, ...],
    kind: str,
    dtype: str,
    device: str,
    seed: int,
    precision: str,
) -> Callable[[], object]:
    """The whole call of an implementation on inputs of its own, for a process that measures its memory."""
    torch.set_float32_matmul_precision(precision)
    operation = OPERATIONS[op]
    return whole(operation, operation.call(impl, settings), made(op, sizes, kind, dtype, device, seed))

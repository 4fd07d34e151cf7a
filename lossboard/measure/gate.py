"""The gate before a time: whether an implementation computes what its operation is defined to.

Every case is computed three times: by the implementation, by the definition in the same dtype (the *baseline*), and by
the definition in float64. An error is the largest difference from float64 over the largest magnitude there; the
implementation's may be ``slack`` times the baseline's, or ``slack`` units of rounding where the baseline has less. What
the definition makes NaN or infinite, it must too, and nothing else. It must leave its inputs and the upstream gradient
as they were, and give the same gradient twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SLACK = 8.0  # rounding differs with the order of sums, and gradients cancel
Inputs = Mapping[str, Tensor]
Operation = Callable[..., Tensor]  # takes the inputs by name


@dataclass(frozen=True)
class Error:
    """How far a tensor is from float64: relative to the largest magnitude there, beside the baseline's distance."""

    case: str
    of: str  # "value", or the input whose gradient it is
    found: float
    baseline: float


@dataclass(frozen=True)
class Verdict:
    """What the gate found: every error measured, and in words what is wrong. It is passed where nothing is."""

    errors: tuple[Error, ...]
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class _Outcome:
    value: Tensor
    gradients: dict[str, Tensor]


def gate(
    implementation: Operation,
    definition: Operation,
    cases: Mapping[str, Inputs],
    *,
    slack: float = SLACK,
    allowed: float = 0.0,
    gradients: bool = True,
) -> Verdict:
    """Hold an implementation to its operation's definition over named cases of inputs.

    Args:
        implementation, definition: called with a case's inputs by name; the inputs of a float dtype get gradients.
        slack: how many times the baseline's error is allowed.
        allowed: error allowed beside, of gradients only: for approximate implementations, which state theirs.
        gradients: whether the operation has any; else values alone are compared.
    """
    errors: list[Error] = []
    faults: list[str] = []
    for case, inputs in cases.items():
        try:
            found = _observed(implementation, inputs, gradients, faults, case)
        except Exception as error:  # whatever it raises is the implementation's fault, and is said
            faults.append(f"{case}: raised {type(error).__name__}: {error}")
            continue
        unobserved: list[str] = []
        baseline = _observed(definition, inputs, gradients, unobserved, case)
        exact = _observed(definition, {k: _wide(v) for k, v in inputs.items()}, gradients, unobserved, case)
        tensors = {"value": (found.value, baseline.value, exact.value)}
        for name in exact.gradients:
            tensors[name] = (found.gradients[name], baseline.gradients[name], exact.gradients[name])
        for of, (ours, theirs, truth) in tensors.items():
            fault = _malformed(ours, theirs)
            if fault:
                faults.append(f"{case}: {of} {fault}")
                continue
            measured = Error(case, of, _distance(ours, truth), _distance(theirs, truth))
            limit = slack * max(measured.baseline, torch.finfo(theirs.dtype).eps) + (allowed if of != "value" else 0.0)
            if not measured.found <= limit:
                faults.append(f"{case}: {of} is off by {measured.found:.1e}; the baseline by {measured.baseline:.1e}")
            errors.append(measured)
    return Verdict(tuple(errors), tuple(faults))


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _upstream(value: Tensor) -> Tensor:
    """A gradient to arrive from above, the same for every dtype: 1 for a scalar, else numbers in [0.5, 1.5)."""
    if value.ndim == 0:
        return torch.ones_like(value)
    draw = torch.Generator().manual_seed(0)
    return (0.5 + torch.rand(value.shape, generator=draw)).to(value)


def _observed(operation: Operation, inputs: Inputs, gradients: bool, faults: list[str], case: str) -> _Outcome:
    """Run an operation forwards and twice backwards, and note what it must not do."""
    leaves = {
        name: value.detach().requires_grad_(gradients and value.is_floating_point()) for name, value in inputs.items()
    }
    before = {name: value.detach().clone() for name, value in inputs.items()}
    value = operation(**leaves)
    differentiated = [name for name, leaf in leaves.items() if leaf.requires_grad]
    kept = value.detach().clone()
    result = _Outcome(kept, {})
    if gradients:
        upstream = _upstream(value)
        given = upstream.clone()
        wanted = [leaves[name] for name in differentiated]
        first = [g.clone() for g in torch.autograd.grad(value, wanted, upstream, retain_graph=True)]
        second = torch.autograd.grad(value, wanted, upstream)
        if not _same(upstream, given):
            faults.append(f"{case}: the upstream gradient is overwritten")
        for name, a, b in zip(differentiated, first, second, strict=True):
            if not torch.allclose(a, b, rtol=1e-5, atol=1e-30, equal_nan=True):
                faults.append(f"{case}: the gradient of {name} differs the second time")
        if not _same(value.detach(), kept):
            faults.append(f"{case}: the value changes in the backward pass")
        result = _Outcome(kept, dict(zip(differentiated, first, strict=True)))
    faults += [f"{case}: the input {name} is overwritten" for name in inputs if not _same(inputs[name], before[name])]
    return result


def _same(a: Tensor, b: Tensor) -> bool:
    return (
        torch.equal(a.nan_to_num(nan=1.5e30), b.nan_to_num(nan=1.5e30)) if a.is_floating_point() else torch.equal(a, b)
    )


def _malformed(ours: Tensor, theirs: Tensor) -> str:
    """How a tensor differs from the baseline's in form: shape, dtype, or where it is not finite; "" if nowhere."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"is {ours.dtype} {tuple(ours.shape)}, not {theirs.dtype} {tuple(theirs.shape)}"
    for kind, where in (("NaN", torch.isnan), ("infinite", torch.isinf)):
        wrong = int((where(ours) != where(theirs)).sum())
        if wrong:
            return f"is {kind} in {int(where(ours).sum())} places, the baseline in {int(where(theirs).sum())}"
    return ""


def _distance(value: Tensor, exact: Tensor) -> float:
    """The largest difference where both are finite, over the largest finite magnitude of the exact one."""
    finite = exact.isfinite() & value.isfinite()
    if not finite.any():
        return 0.0
    exact = exact[finite]
    scale = exact.abs().max().item()
    off = (value[finite].double() - exact).abs().max().item()
    return off / scale if scale else off

"""The gate before a time: whether an implementation computes what its operation is defined to.

Every case is computed three times: by the implementation, by the definition in the same dtype (the *baseline*), and by
the definition in float64. An error is the largest difference from float64 over the largest magnitude there; the
implementation's may be ``slack`` times the baseline's, or ``slack`` units of rounding where the baseline has less. What
the definition makes NaN or infinite, it must too, and nothing else. It must leave its inputs and the upstream gradient
as they were, and give the same gradient twice. The upstream gradient is not contiguous: those of real networks need not
be. Where gradients are to have gradients of their own, an implementation gives the right ones or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SLACK = 8.0  # rounding differs with the order of sums, and gradients cancel
SECOND = "the second derivative by "
SMALL = 50_000  # elements of inputs, where second derivatives are looked at: they are of the definition's size
CANCELLED = 1e-2  # what is allowed of second derivatives, whose terms cancel: wrong ones are off by about 1
AGAIN = (
    1e-5  # two gradients of one value may differ so much, relative to the largest: atomic additions come in any order
)
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
    faults: tuple[str, ...]  # what it did that it must not
    second: dict[str, Tensor]  # what the gradients' sum, weighted, has as gradients; none where it raises


Truth = tuple[_Outcome, _Outcome]  # the baseline's, and that in float64


def gate(
    implementation: Operation,
    definition: Operation,
    cases: Mapping[str, Inputs],
    *,
    slack: float = SLACK,
    allowed: float = 0.0,
    gradients: bool = True,
    overwrites: Collection[str] = (),
    truths: dict[str, Truth] | None = None,
) -> Verdict:
    """Hold an implementation to its operation's definition over named cases of inputs.

    Args:
        implementation, definition: called with a case's inputs by name; the inputs of a float dtype get gradients.
        cases: ``reference.ops.cases`` has awkward ones for every operation.
        slack: how many times the baseline's error is allowed.
        allowed: error allowed beside, of gradients only: for approximate implementations, which state theirs. Such a
            one may show NaN in some of the places only where the definition has it.
        gradients: whether the operation has any; else values alone are compared.
        overwrites: inputs that the implementation says its backward pass overwrites: that pass runs once, on copies.
        truths: what the definition gave for these cases, by name, where several implementations are held to them; what
            is not in it yet is put there.
    """
    truths = {} if truths is None else truths
    errors: list[Error] = []
    faults: list[str] = []
    for case, inputs in cases.items():
        try:
            found = _observed(implementation, inputs, gradients, overwrites)
        except Exception as error:  # whatever it raises is the implementation's fault, and is said
            faults.append(f"{case}: raised {type(error).__name__}: {error}")
            continue
        if case not in truths:
            wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
            truths[case] = _observed(definition, inputs, gradients), _observed(definition, wide, gradients)
        baseline, exact = truths[case]
        faults += [f"{case}: {fault}" for fault in found.faults]
        for of, ours, theirs, truth in _triples(found, baseline, exact):
            extra = allowed if of != "value" else 0.0
            fault = _malformed(ours, theirs, some=extra > 0)
            if fault:
                faults.append(f"{case}: {of} {fault}")
                continue
            measured = Error(case, of, _distance(ours, truth), _distance(theirs, truth))
            limit = slack * max(measured.baseline, torch.finfo(theirs.dtype).eps) + extra
            limit = max(limit, CANCELLED) if of.startswith(SECOND) else limit
            if not measured.found <= limit:
                faults.append(f"{case}: {of} is off by {measured.found:.1e}; the baseline by {measured.baseline:.1e}")
            errors.append(measured)
    return Verdict(tuple(errors), tuple(faults))


def _triples(found: _Outcome, baseline: _Outcome, exact: _Outcome) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """The value, each gradient, and second derivatives where those of the definition are finite, of all three."""
    yield "value", found.value, baseline.value, exact.value
    for name in exact.gradients:
        yield name, found.gradients[name], baseline.gradients[name], exact.gradients[name]
    if all(bool(each.isfinite().all()) for each in (*baseline.second.values(), *exact.second.values())):
        for name in exact.second.keys() & found.second.keys() & baseline.second.keys():
            yield SECOND + name, found.second[name], baseline.second[name], exact.second[name]


def _upstream(value: Tensor) -> Tensor:
    """A gradient to arrive from above, the same for every dtype: numbers in [1, 2), not contiguous."""
    draw = torch.Generator().manual_seed(0)
    return (1 + torch.rand(*value.shape, 2, generator=draw)).to(value)[..., 0]


def _observed(operation: Operation, inputs: Inputs, gradients: bool, overwrites: Collection[str] = ()) -> _Outcome:
    """Run an operation forwards and twice backwards, and note what it must not do."""
    before = {name: value.detach().clone() for name, value in inputs.items()}
    leaves = {
        name: (before[name].clone() if name in overwrites else value.detach()).requires_grad_(
            gradients and value.is_floating_point()
        )
        for name, value in inputs.items()
    }
    value = operation(**leaves)
    kept = value.detach().clone()
    found: dict[str, Tensor] = {}
    faults: list[str] = []
    if gradients:
        wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        found, faults = _differentiated(value, wanted, once=bool(overwrites))
        if not _same(value.detach(), kept):
            faults.append("the value changes in the backward pass")
    faults += [f"the input {name} is overwritten" for name in inputs if not _same(inputs[name], before[name])]
    small = sum(value.numel() for value in inputs.values()) < SMALL
    second = _second(operation, before) if gradients and small and not overwrites else {}
    return _Outcome(kept, found, tuple(faults), second)


def _second(operation: Operation, inputs: Inputs) -> dict[str, Tensor]:
    """The gradients by the inputs of their own gradients, times numbers in [1, 2) and added up; {} where it raises."""
    leaves = {
        name: value.clone().requires_grad_() if value.is_floating_point() else value for name, value in inputs.items()
    }
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    try:
        value = operation(**leaves)
        first = torch.autograd.grad(value, list(wanted.values()), _upstream(value), create_graph=True)
        total = torch.stack([(each.double() * _upstream(each)).sum() for each in first]).sum()
        return dict(zip(wanted, torch.autograd.grad(total, list(wanted.values())), strict=True))
    except Exception:  # that it has none is no fault, and whatever it raises says so
        return {}


def _differentiated(value: Tensor, wanted: Mapping[str, Tensor], once: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The gradients, taken twice unless ``once``, and what is wrong with how they are taken."""
    upstream, leaves, faults = _upstream(value), list(wanted.values()), []
    given = upstream.clone()
    first = [g.clone() for g in torch.autograd.grad(value, leaves, upstream, retain_graph=not once)]
    second = first if once else torch.autograd.grad(value, leaves, upstream)
    if not _same(upstream, given):
        faults.append("the upstream gradient is overwritten")
    for name, a, b in zip(wanted, first, second, strict=True):
        if not torch.equal(a.isnan(), b.isnan()) or _distance(b, a.double()) > max(AGAIN, 2 * torch.finfo(a.dtype).eps):
            faults.append(f"the gradient of {name} differs the second time")
    return dict(zip(wanted, first, strict=True)), faults


def _same(a: Tensor, b: Tensor) -> bool:
    return (
        torch.equal(a.nan_to_num(nan=1.5e30), b.nan_to_num(nan=1.5e30)) if a.is_floating_point() else torch.equal(a, b)
    )


def _malformed(ours: Tensor, theirs: Tensor, some: bool) -> str:
    """How a tensor differs from the baseline's in form: shape, dtype, or where it is not finite; "" if nowhere.

    With ``some`` it is enough that NaN is where the baseline has it, in one place or more.
    """
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"is {ours.dtype} {tuple(ours.shape)}, not {theirs.dtype} {tuple(theirs.shape)}"
    for kind, where in (("NaN", torch.isnan), ("infinite", torch.isinf)):
        a, b = where(ours), where(theirs)
        if torch.equal(a, b) or (some and kind == "NaN" and a.any() and not (a & ~b).any()):
            continue
        return f"is {kind} in {int(a.sum())} places, the baseline in {int(b.sum())}"
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

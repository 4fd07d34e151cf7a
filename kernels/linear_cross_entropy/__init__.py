"""Cross-entropy after a linear layer without the (N, V) logits.

Every implementation is ``f(hidden, weight, target, bias, terms)`` of one row or more: hidden (N, D), weight (V, D),
target (N,) in [0, V), bias (V,) or None; settings of its own are keyword-only. It returns the rows' values and
log-sum-exps, both (N,) and differentiable; one that computes its gradient in forward takes the same upstream gradient
for every value, and none for the log-sum-exps.

Who names ``return_lse`` is told whether log-sum-exps are asked for, and who names ``each`` the upstream gradient of a
value if the loss is what is differentiated: 1 for a sum, one over the rows that count for a mean, None where values
may differ in theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import Unsupported, checked, checked_target, implementation
from reference.ops.cross_entropy import reduced
from reference.ops.linear_cross_entropy import shifted

TOLD = ("return_lse", "each")  # what an implementation may ask to be told


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    impl: str = "auto",
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    return_lse: bool = False,
    shift: bool = False,
    reduction: str = "mean",
    **settings: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Cross-entropy of the logits ``hidden @ weight.T`` with a token each, as ``reference.ops.linear_cross_entropy``.

    Shapes: hidden (N, D) or (..., T, D); weight (V, D); target (N,) or (..., T); bias (V,). ``settings`` are an
    implementation's own, such as ``eps`` of those that drop small gradients. Under autocast the matrices are cast as
    for ``linear``; what follows them is float32. Second derivatives are those of ``eager``, with its memory.

    Raises:
        Unsupported: the implementation cannot do this; the message says what.
        ValueError: the shapes do not fit.
        IndexError: a target is neither in [0, V) nor ``ignore_index``.
        UnknownMethod: there is no such implementation.

    >>> hidden, weight = torch.eye(2), torch.zeros(8, 2)
    >>> linear_cross_entropy(hidden, weight, torch.tensor([3, 5])).item() == torch.tensor(8.0).log().item()
    True
    """
    found = implementation("linear_cross_entropy", impl)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden, weight, bias = cast(hidden), cast(weight), None if bias is None else cast(bias)
    checked(found, hidden)
    fitting(hidden, weight, bias)
    if found.gradient_in_forward and reduction == "none":
        raise Unsupported(
            f"'{impl}' computes its gradient in the forward pass: reduction is 'mean' or 'sum', not 'none'"
        )
    own = [option for option in found.options if option not in TOLD]
    if unknown := set(settings) - set(own):
        known = ", ".join(own) or "none"
        raise Unsupported(f"'{impl}' has no option {', '.join(sorted(unknown))}; it has: {known}")
    if shift:
        hidden, target = shifted(hidden, target)
    checked_target(target, hidden.shape[:-1], "hidden")
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    if return_lse and found.gradient_in_forward and learns:
        raise Unsupported(f"'{impl}' has no gradients of log-sum-exps: use 'auto', or ask for them under no_grad")
    kept = target != ignore_index
    if kept.all():
        rows, wanted = hidden.reshape(-1, hidden.shape[-1]), target.reshape(-1)
    else:
        rows, wanted = hidden[kept], target[kept]
    if wanted.numel() and not 0 <= wanted.min() <= wanted.max() < len(weight):
        raise IndexError(f"target has values outside [0, {len(weight)}) that are not ignore_index = {ignore_index}")
    wanted = wanted.long()
    told = {"return_lse": return_lse, "each": upstream(reduction, len(rows))}
    settings |= {name: told[name] for name in TOLD if name in found.options}
    with torch.autocast(device, enabled=False):
        if len(rows):
            terms = Terms(softcap, label_smoothing, z_loss)
            values, lse = found.function(rows, weight, wanted, bias, terms, **settings)
        else:  # no values, of which the gradients are 0
            values = lse = torch.nn.functional.linear(rows, weight, bias)[:, 0]
            values = lse = values if values.dtype is torch.float64 else values.float()
    loss = reduced(values, kept, reduction)
    return (loss, reduced(lse, kept, "none")) if return_lse else loss


def cast(x: Tensor) -> Tensor:
    """A matrix as ``linear`` has it under autocast: float64 stays."""
    return x if x.dtype is torch.float64 else x.to(torch.get_autocast_dtype(x.device.type))


def fitting(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Refuse shapes that have no product: libraries of matrices do not look.

    Raises:
        ValueError: hidden is not (..., D) where weight is (V, D), or bias not (V,).
    """
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"hidden is (..., D) and weight (V, D): found {tuple(hidden.shape)} and {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias is ({len(weight)},), a number for each row of weight: found {tuple(bias.shape)}")


def upstream(reduction: str, rows: int) -> float | None:
    """The gradient of a reduced loss by the value of a row; None without reduction."""
    return {"sum": 1.0, "mean": 1.0 / max(rows, 1)}.get(reduction)

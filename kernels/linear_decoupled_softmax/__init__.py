"""Decoupled softmax after a linear layer without the (N, L) logits.

Every implementation is ``f(hidden, weight, present)`` of one row or more: hidden (N, D), weight (L, D), and the
:class:`Present` labels; settings of its own are keyword-only. It returns the rows' values (N,), differentiable; one
that computes its gradient in forward takes the same upstream gradient for every value, and may name ``each`` to be told
it, as for linear cross-entropy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.linear_cross_entropy import fitting, upstream
from kernels.linear_decoupled_softmax.present import Present
from kernels.registry import Unsupported, checked, implementation
from reference.ops.cross_entropy import reduced


def linear_decoupled_softmax(
    hidden: Tensor,
    weight: Tensor,
    positives: Tensor,
    *,
    impl: str = "auto",
    reduction: str = "mean",
    **settings: Any,
) -> Tensor:
    """Each present label against the absent ones alone, as ``reference.ops.linear_decoupled_softmax``.

    Shapes: hidden (N, D), N at least 1; weight (L, D); positives (N, P), the present labels of a row, each once, and
    -1. ``settings`` are an implementation's own, such as ``eps`` of those that drop small gradients.

    Raises:
        Unsupported: the implementation cannot do this; the message says what.
        ValueError: the shapes do not fit.
        IndexError: a present label is not below L.
        UnknownMethod: there is no such implementation.

    >>> hidden, weight = torch.eye(2), torch.zeros(8, 2)
    >>> loss = linear_decoupled_softmax(hidden, weight, torch.tensor([[3, -1], [5, -1]]))
    >>> loss.item() == torch.tensor(8.0).log().item()
    True
    """
    found = implementation("linear_decoupled_softmax", impl)
    checked(found, hidden)
    fitting(hidden, weight)
    if hidden.ndim != 2 or positives.ndim != 2 or len(positives) != len(hidden):
        raise ValueError(
            f"hidden is (N, D) and positives (N, P): found {tuple(hidden.shape)} and {tuple(positives.shape)}"
        )
    if found.gradient_in_forward and reduction == "none":
        raise Unsupported(
            f"'{impl}' computes its gradient in the forward pass: reduction is 'mean' or 'sum', not 'none'"
        )
    own = [option for option in found.options if option != "each"]
    if unknown := set(settings) - set(own):
        known = ", ".join(own) or "none"
        raise Unsupported(f"'{impl}' has no option {', '.join(sorted(unknown))}; it has: {known}")
    if positives.numel() and positives.max() >= len(weight):
        raise IndexError(f"positives has labels outside [0, {len(weight)}) that are not -1")
    if "each" in found.options:
        settings["each"] = upstream(reduction, len(hidden))
    values = found.function(hidden, weight, Present.of(positives), **settings)
    return reduced(values, torch.ones(len(values), dtype=torch.bool, device=values.device), reduction)

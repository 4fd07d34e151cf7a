"""Cross-entropy of logits that exist. Every implementation is ``f(logits, target, *, label_smoothing, z_loss)`` of one
row or more, contiguous (N, V) and (N,), and returns the values (N,), differentiable.
"""

from __future__ import annotations

from torch import Tensor

from kernels.registry import checked, checked_target, implementation
from reference.ops.cross_entropy import reduced


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    impl: str = "auto",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of logits (..., V) with integer target (...), as ``reference.ops.cross_entropy``.

    The implementation ``in_place`` overwrites the logits, and has no second derivatives.

    Raises:
        Unsupported: the implementation takes no such dtype or device.
        ValueError: there is no target for each row.
        IndexError: a target is neither in [0, V) nor ``ignore_index``.
        UnknownMethod: there is no such implementation.

    >>> import torch
    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([1, -100])).item() == torch.tensor(4.0).log().item()
    True
    """
    found = implementation("cross_entropy", impl)
    checked(found, logits)
    checked_target(target, logits.shape[:-1], "logits")
    kept = target != ignore_index
    rows, wanted = logits.resolve_neg().reshape(-1, logits.shape[-1]), target.reshape(-1).long()
    if not kept.all():
        rows, wanted = rows[kept.view(-1)], wanted[kept.view(-1)]
    if wanted.numel() and not 0 <= wanted.min() <= wanted.max() < logits.shape[-1]:
        raise IndexError(f"target has values outside [0, {logits.shape[-1]}) that are not {ignore_index = }")
    if len(rows):
        values = found.function(rows.contiguous(), wanted, label_smoothing=label_smoothing, z_loss=z_loss)
    else:
        values = rows.sum(-1)
    return reduced(values, kept, reduction)

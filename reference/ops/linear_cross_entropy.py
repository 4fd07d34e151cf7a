"""Cross-entropy after a linear layer: the loss of a language model's vocabulary."""

import torch
from torch import Tensor

from reference.ops.cross_entropy import reduced, values
from reference.ops.logsumexp import logsumexp


def logits_of(hidden: Tensor, weight: Tensor, bias: Tensor | None = None, softcap: float | None = None) -> Tensor:
    """hidden (N, D) times weight (V, D), plus bias (V,), within +-softcap by c tanh(a / c) (Gemma 2, 2024): (N, V)."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def shifted(hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each position with the next one's token: hidden (..., T, D) and target (..., T) become T - 1 long."""
    return hidden[..., :-1, :], target[..., 1:]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    return_lse: bool = False,
    shift: bool = False,
    reduction: str = "mean",
) -> Tensor | tuple[Tensor, Tensor]:
    """Cross-entropy of the logits ``hidden @ weight.T`` with a token each.

    Shapes: hidden (N, D) or (..., T, D); weight (V, D); target (N,) or (..., T), integers in [0, V) or
    ``ignore_index``; bias (V,). Returns a scalar for reduction "mean" (over the rows that are not ignored) or "sum" and
    a value for each row for "none". With ``return_lse`` also the log-sum-exp of each row's logits, 0 where ignored;
    both are differentiable. ``shift`` scores each position against the next one's token, so T becomes T - 1.

    The loss of a row is that of :func:`reference.ops.cross_entropy.values`, of logits that :func:`logits_of` gives. It
    keeps (N, V) logits and more; Wijmans et al. (ICLR 2025, arXiv:2411.09009) say how not to.

    >>> import torch
    >>> hidden, weight = torch.eye(2), torch.zeros(8, 2)
    >>> linear_cross_entropy(hidden, weight, torch.tensor([3, 5])).item() == torch.tensor(8.0).log().item()
    True
    """
    if shift:
        hidden, target = shifted(hidden, target)
    kept = target != ignore_index
    logits = logits_of(hidden[kept], weight, bias, softcap)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    found = values(logits, target[kept], label_smoothing=label_smoothing, z_loss=z_loss)
    loss = reduced(found, kept, reduction)
    return (loss, reduced(logsumexp(logits), kept, "none")) if return_lse else loss

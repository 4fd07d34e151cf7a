"""Cross-entropy of rows of logits, with what language models add to it."""

import torch
from torch import Tensor

from reference.ops.logsumexp import logsumexp


def values(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    r"""The loss of each row of logits (N, V) with class target (N,); returns (N,).

    $$ L - (1 - \epsilon) a_y - \frac{\epsilon}{V} \sum_j a_j + \zeta L^2, \quad L = \log \sum_j \exp a_j $$

    epsilon is the label smoothing of Szegedy et al. (CVPR 2016, arXiv:1512.00567), zeta the z-loss of PaLM (Chowdhery
    et al. 2022, arXiv:2204.02311), which keeps L near 0.
    """
    lse = logsumexp(logits)
    own = logits.gather(-1, target[:, None]).squeeze(-1)
    # The terms appear only where they are asked for: 0 * inf is NaN.
    found = lse - own
    if label_smoothing:
        found = found + label_smoothing * (own - logits.mean(-1))
    return found + z_loss * lse**2 if z_loss else found


def reduced(values: Tensor, kept: Tensor, reduction: str) -> Tensor:
    """The values (n,) of the rows where ``kept`` (...) is true, reduced: their mean or sum, or (...) with 0 elsewhere.

    Raises:
        ValueError: the reduction is not mean, sum or none.
    """
    if reduction == "mean":
        return values.sum() / kept.sum()  # NaN where no row is kept, as torch has it
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return torch.zeros(kept.shape, dtype=values.dtype, device=values.device).masked_scatter(kept, values)
    raise ValueError(f"reduction = {reduction!r}; there are 'mean', 'sum' and 'none'")


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of logits (..., V) with integer target (...): a scalar, or (...) for reduction "none".

    Rows whose target is ``ignore_index`` count as absent: value 0, gradient 0, not in the mean. The formula is
    :func:`values`'.

    >>> import torch
    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([1, -100])).item() == torch.tensor(4.0).log().item()
    True
    """
    kept = target != ignore_index
    return reduced(values(logits[kept], target[kept], label_smoothing=label_smoothing, z_loss=z_loss), kept, reduction)

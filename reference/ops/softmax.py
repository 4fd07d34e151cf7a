"""Softmax of rows."""

from torch import Tensor


def softmax(x: Tensor) -> Tensor:
    r"""Softmax over the last dimension of x (..., n); returns (..., n).

    $$ y_j = \frac{\exp(x_j - \max_k x_k)}{\sum_k \exp(x_k - \max_k x_k)} $$

    A row with NaN or +inf, and a row of -inf alone, gives NaN; beside finite values -inf gives 0.

    >>> import torch
    >>> softmax(torch.tensor([1e4, 1e4, -1e4])).tolist()
    [0.5, 0.5, 0.0]
    """
    weights = (x - x.detach().amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)

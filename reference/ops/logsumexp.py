"""The logarithm of the sum of exponentials of rows."""

from torch import Tensor


def logsumexp(x: Tensor) -> Tensor:
    r"""log sum_j exp(x_j) over the last dimension of x (..., n); returns (...).

    $$ m + \log \sum_j \exp(x_j - m), \quad m = \max_j x_j $$

    As ``torch.logsumexp``: NaN gives NaN, a row with +inf gives +inf, a row of -inf alone gives -inf.

    >>> import torch
    >>> logsumexp(torch.tensor([1e4, -1e4])).item()
    10000.0
    """
    top = x.detach().amax(-1, keepdim=True)
    top = top.masked_fill(top.isinf(), 0)
    return (x - top).exp().sum(-1).log() + top.squeeze(-1)

"""Log-Taylor softmax (de Brébisson & Vincent, ICLR 2016, arXiv:1511.05042)."""

from torch import Tensor

from reference.methods import loss
from reference.softmax import log_softmax, pick


def taylor_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities (N, C) in proportion to 1 + z + z^2 / 2; here to 1, 1, 2.5 and 0.5.

    >>> import torch
    >>> taylor_softmax(torch.tensor([[0.0, -2.0, 1.0, -1.0]])).exp().mul(10).round(decimals=4).tolist()
    [[2.0, 2.0, 5.0, 1.0]]
    """
    return log_softmax(((logits + 1) ** 2 + 1).log())


@loss(link=taylor_softmax)
def log_taylor_softmax(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy of probabilities from the second-order expansion of exp, for logits (N, C) and target (N,);
    returns (N,).

    $$ -\log \frac{1 + z_y + z_y^2 / 2}{\sum_k \left( 1 + z_k + z_k^2 / 2 \right)} $$

    z are the logits. The probabilities are not their softmax and least at z = -1, so that a very negative logit is also
    a confident prediction. Unbounded, but it grows like the logarithm of the logits only.
    """
    return -pick(taylor_softmax(logits), target)

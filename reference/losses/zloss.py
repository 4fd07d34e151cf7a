"""Z-loss (de Brébisson & Vincent, preprint 2016, arXiv:1604.08859)."""

from torch import Tensor
from torch.nn.functional import softplus

from reference.methods import Range, loss
from reference.softmax import pick


@loss(search={"a": Range(0.1, 10, log=True), "b": (0.0, 5.0)}, bounded=True)
def zloss(logits: Tensor, target: Tensor, *, a: float = 1.0, b: float = 0.0) -> Tensor:
    r"""Softplus of the target's standard score among the logits, for logits (N, C) and target (N,); returns (N,).

    $$ \frac{1}{a} \log \left( 1 + e^{a (b - s)} \right), \quad
    s = \frac{z_y - \mu}{\sigma}, \quad
    \mu = \frac{1}{C} \sum_k z_k, \quad \sigma^2 = \frac{1}{C} \sum_k (z_k - \mu)^2 $$

    z are the logits. Shifting and scaling them changes nothing, so they are no log-probabilities, only a ranking; and
    |s| is at most the root of C - 1, which bounds the loss. Its gradient is inverse to their spread sigma, to which
    1e-5 is added in quadrature. The defaults are those of the authors' example; they tune a and b for the metric at
    hand, and the ranges are ours. Not the auxiliary loss of language models with the same name.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    score = pick(centred, target) / ((centred**2).mean(-1) + 1e-10).sqrt()
    return softplus(a * (b - score)) / a

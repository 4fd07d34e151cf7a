"""NeuralNDCG (Pobrotyn & Bialobrzeski, SIGIR eCom 2021, arXiv:2102.07831), on NeuralSort (Grover et al., ICLR 2019)."""

import torch
from torch import Tensor

from reference.methods import Range, multilabel_loss
from reference.softmax import softmax

SCALINGS = 20  # of columns and rows; the authors' code ends after 50, or once sums are within 1e-6 of 1
LEAST = 1e-10  # below which a sum counts as this, as in the authors' code


def soft_sort(scores: Tensor, temperature: float) -> Tensor:
    """The relaxed permutation that sorts scores (N, L) from the largest down: (N, L, L), a row for each rank."""
    size = scores.shape[-1]
    distance = (scores[..., :, None] - scores[..., None, :]).abs().sum(-1)
    rank = torch.arange(size - 1, -size, -2, dtype=scores.dtype, device=scores.device)  # L + 1 - 2 i for i = 1..L
    return softmax((rank[:, None] * scores[..., None, :] - distance[..., None, :]) / temperature)


def doubly_stochastic(matrix: Tensor) -> Tensor:
    """Columns and rows (..., L, L) divided by their sums in turn, so that both come near 1 (Sinkhorn)."""
    rows = torch.ones_like(matrix[..., :1])  # what each row and each column was multiplied by
    columns = torch.ones_like(matrix[..., :1, :])
    for _ in range(SCALINGS):
        columns = 1 / (matrix * rows).sum(-2, keepdim=True).clamp(min=LEAST)
        rows = 1 / (matrix * columns).sum(-1, keepdim=True).clamp(min=LEAST)
    return rows * matrix * columns


@multilabel_loss(search={"temperature": Range(0.1, 10.0, log=True)}, tags=("label-pairs",))
def neural_ndcg(logits: Tensor, target: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""One minus the nDCG of a relaxed sorting of the labels, for logits (N, L) and target (N, L); returns (N,).

    $$ 1 - \frac{\sum_r (\hat P y)_r / \log_2(r + 1)}{\sum_{r \leq |y|} 1 / \log_2(r + 1)}, \quad
    \hat P_{rl} \propto \exp \frac{(L + 1 - 2 r) z_l - \sum_k |z_l - z_k|}{\tau} $$

    P is scaled until its columns sum to 1 too. tau is the temperature: near zero it is the nDCG of the sorted labels,
    all of them. A sample without labels has neither loss nor gradient. Takes N L L numbers for each of 20 scalings. The
    default is that of the authors' code.
    """
    matrix = doubly_stochastic(soft_sort(logits, temperature))
    ranks = torch.arange(2, logits.shape[-1] + 2, dtype=logits.dtype, device=logits.device)
    discount = 1 / ranks.log2()
    gain = ((matrix @ target[..., None])[..., 0] * discount).sum(-1)
    present = target.sum(-1, keepdim=True)
    ideal = (discount * (ranks - 2 < present)).sum(-1)
    return torch.where(present[..., 0] > 0, 1 - gain / ideal.clamp(min=LEAST), 0.0)

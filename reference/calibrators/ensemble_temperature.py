"""Ensemble temperature scaling (Zhang et al., ICML 2020, arXiv:2003.07329)."""

import itertools

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.temperature import best_temperature
from reference.methods import calibrator

UNIFORM = 1 - 1e-9  # the largest weight of the uniform distribution: some of the order of classes remains


def simplex_least_squares(gram: Tensor, product: Tensor) -> Tensor:
    """Weights (K,) >= 0 that sum to 1 and minimise w' G w - 2 w' v, for gram (K, K) and product (K,), float64.

    Exact: the best over all sets of weights that may be positive. Of equal ones, the first with the fewest.
    """
    size = len(product)
    best, least = torch.zeros(size).double(), float("inf")
    for members in itertools.chain.from_iterable(itertools.combinations(range(size), k) for k in range(1, size + 1)):
        rows = list(members)
        border = torch.ones(len(rows) + 1, len(rows) + 1, dtype=torch.float64)
        border[:-1, :-1], border[-1, -1] = gram[rows][:, rows], 0
        right = torch.cat([product[rows], product.new_ones(1)])
        found = (torch.linalg.pinv(border, hermitian=True) @ right)[:-1]
        weights = torch.zeros(size).double().index_put((torch.tensor(rows),), found)
        value = float(weights @ gram @ weights - 2 * weights @ product)
        if found.min() >= 0 and abs(float(found.sum()) - 1) < 1e-9 and value < least - 1e-12:
            best, least = weights, value
    return best


@calibrator(accuracy_preserving=True)
def ensemble_temperature(logits: Tensor, target: Tensor) -> Calibrated:
    r"""A mixture of tempered, plain and uniform probabilities, for logits (N, C) and target (N,); returns a map of
    logits (M, C) to log-probabilities.

    $$ w_1 \, \mathrm{softmax}(z / T) + w_2 \, \mathrm{softmax}(z) + w_3 / C, \quad w \ge 0, \; w_1 + w_2 + w_3 = 1 $$

    T has least NLL; then the weights have least Brier score, found exactly.
    """
    inverse = 1 / best_temperature(logits, target)
    p = members(logits, inverse).exp()
    rows = torch.arange(len(target))
    gram = torch.einsum("anc,bnc->ab", p, p) / len(target)
    weights = simplex_least_squares(gram, p[:, rows, target].mean(1))
    if weights[2] > UNIFORM:
        weights = torch.tensor([1 - UNIFORM, 0.0, UNIFORM], dtype=torch.float64)
    shares = weights.log()[:, None, None]
    return lambda z: (members(z, inverse) + shares).logsumexp(0)


def members(logits: Tensor, inverse: float) -> Tensor:
    """Log-probabilities (3, N, C) of what is mixed."""
    z = logits.double()
    plain = torch.log_softmax(z, 1)
    return torch.stack([torch.log_softmax(inverse * z, 1), plain, torch.full_like(plain, 1 / z.shape[1]).log()])

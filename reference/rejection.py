"""Rejecting the predictions of a fixed predictor (Mohri et al., ICLR 2024, arXiv:2301.09044).

A rejector is a score of the input: the prediction is accepted where it is above 0. It is fitted on held-out samples of
which it is known whether the prediction is right; its coverage and risk on others are those of
:mod:`reference.metrics.selective`, beside the plain scores there (confidence, margin, entropy).
"""

import math
from collections.abc import Callable

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

Rejector = Callable[[Tensor], Tensor]  # features (M, F) -> scores (M,), accepted where above 0

HIDDEN = 16  # units
STEPS = 200  # of L-BFGS at most
LARGEST = 30.0  # of an exponent, beyond which it is continued by its tangent


def surrogate(score: Tensor, wrong: Tensor, *, cost: float, alpha: float = 2.0) -> Tensor:
    r"""The loss of scores (N,) of predictions that are wrong (N,), 1 or right, 0; returns (N,).

    $$ 1[\text{wrong}] \, e^{\alpha r / 2} + c \, e^{-\alpha r / 2} $$

    For the loss of accepting a wrong prediction, 1, and of rejecting any, c. Of the paper's family, whose exact form is
    recalled, the member whose minimum tells both apart rightly: see :func:`best_score`.
    """
    return wrong * _exp(alpha / 2 * score) + cost * _exp(-alpha / 2 * score)


def _exp(x: Tensor) -> Tensor:
    """The exponential, continued by its tangent beyond LARGEST."""
    return x.clamp(max=LARGEST).exp() + math.exp(LARGEST) * (x - LARGEST).clamp(min=0)


def best_score(wrong_probability: Tensor, *, cost: float, alpha: float = 2.0) -> Tensor:
    """The scores (N,) of least mean surrogate where predictions are wrong with this probability (N,).

    log(cost / probability) / alpha: above 0 just where the probability is below the cost.
    """
    return (cost / wrong_probability).log() / alpha


def target_loss(score: Tensor, wrong: Tensor, *, cost: float) -> float:
    """The mean loss of scores (N,): 1 for an accepted wrong prediction, the cost for a rejected one."""
    accepted = score > 0
    return float(torch.where(accepted, wrong.double(), cost).mean())


def learned_rejector(
    features: Tensor,
    wrong: Tensor,
    generator: torch.Generator,
    *,
    cost: float,
    alpha: float = 2.0,
    decay: float = 1e-3,
) -> Rejector:
    """A network with 16 hidden units, fitted to features (N, F) by the surrogate with decay times its squared weights.

    Features are centred and scaled by their mean and deviation. Deterministic given the generator.
    """
    x = features.double()
    centre, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x, y = (x - centre) / scale, wrong.double()
    weights = [
        torch.randn(x.shape[1], HIDDEN, generator=generator, dtype=torch.float64) / x.shape[1] ** 0.5,
        torch.zeros(HIDDEN, dtype=torch.float64),
        torch.zeros(HIDDEN, 1, dtype=torch.float64),
        best_score(y.mean().clamp(1e-3, 1), cost=cost, alpha=alpha)[None],  # of all samples alike
    ]
    _minimise(lambda: surrogate(_network(x, weights), y, cost=cost, alpha=alpha).mean(), weights, decay)
    fitted = [part.detach() for part in weights]
    return lambda new: _network((new.double() - centre) / scale, fitted)


def _network(x: Tensor, weights: list[Tensor]) -> Tensor:
    first, shift, second, last = weights
    return (torch.tanh(x @ first + shift) @ second)[:, 0] + last


def _minimise(objective: Callable[[], Tensor], weights: list[Tensor], decay: float) -> None:
    """L-BFGS with a line search on the objective plus decay times the squared entries of the matrices."""
    for part in weights:
        part.requires_grad_()
    solver = torch.optim.LBFGS(weights, max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        total = objective() + decay * (weights[0].square().sum() + weights[2].square().sum())
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(closure)


def two_stage_rejector(features: Tensor, wrong: Tensor, *, cost: float) -> Rejector:
    """The baseline: a logistic regression of being wrong on features (N, F); accepts where that is below the cost.

    A held-out set that is all right or all wrong gives the constant.
    """
    y = wrong.long().numpy()
    if y.min() == y.max():
        return lambda new: new.new_full((len(new),), cost - float(y[0]), dtype=torch.float64)
    x = features.double()
    centre, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    fitted = LogisticRegression(max_iter=1000).fit(((x - centre) / scale).numpy(), y)

    def score(new: Tensor) -> Tensor:
        return cost - torch.from_numpy(fitted.predict_proba(((new.double() - centre) / scale).numpy())[:, 1])

    return score

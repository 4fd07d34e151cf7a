"""Rejectors of a fixed predictor: the surrogate's minimum, and what is learned where the truth is known."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from reference.metrics.selective import risk_curve
from reference.rejection import best_score, learned_rejector, surrogate, target_loss, two_stage_rejector


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def corners(rows, seed):
    """Features (N, 2) and the probability of being wrong: high where both have one sign, as no line can tell."""
    x = torch.randn(rows, 2, generator=generator(seed), dtype=torch.float64)
    probability = 0.02 + 0.6 * torch.sigmoid(6 * x[:, 0] * x[:, 1])
    wrong = (torch.rand(rows, generator=generator(seed + 1), dtype=torch.float64) < probability).double()
    return x, probability, wrong


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.7])
@pytest.mark.parametrize(("cost", "alpha"), [(0.05, 2.0), (0.3, 1.0)])
def test_the_minimum_of_the_surrogate(probability, cost, alpha):
    def mean(r):
        score = torch.tensor([r, r], dtype=torch.float64)
        wrong, right = surrogate(score, torch.tensor([1.0, 0.0]), cost=cost, alpha=alpha)
        return float(probability * wrong + (1 - probability) * right)

    expected = minimize_scalar(mean, bounds=(-20, 20), method="bounded", options={"xatol": 1e-10}).x
    found = float(best_score(torch.tensor(probability), cost=cost, alpha=alpha))
    assert found == pytest.approx(expected, abs=1e-5)
    assert (found > 0) == (probability < cost)


def test_the_surrogate_bounds_the_loss():
    score = torch.linspace(-5, 5, 101, dtype=torch.float64)
    for wrong in (0.0, 1.0):
        exact = torch.where(score > 0, wrong, 0.2)
        assert (surrogate(score, torch.full_like(score, wrong), cost=0.2) >= exact - 1e-6).all()
    assert surrogate(torch.tensor([1e6]), torch.ones(1), cost=0.2).isfinite().all()


def test_target_loss():
    assert target_loss(torch.tensor([1.0, -1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0]), cost=0.25) == pytest.approx(
        1.25 / 3
    )


def test_the_learned_rejector_nears_the_best_there_is():
    (x, _, wrong), (new, probability, hits) = corners(4000, 0), corners(4000, 10)
    cost = 0.2
    best = target_loss(best_score(probability, cost=cost), hits, cost=cost)
    learned = target_loss(learned_rejector(x, wrong, generator(), cost=cost)(new), hits, cost=cost)
    line = target_loss(two_stage_rejector(x, wrong, cost=cost)(new), hits, cost=cost)
    assert abs(learned - best) < 0.02
    assert line > learned + 0.02


def test_it_orders_samples_too():
    """The area under its risk-coverage curve is near that of the true probability."""
    (x, _, wrong), (new, probability, hits) = corners(4000, 0), corners(4000, 10)
    learned = risk_curve(learned_rejector(x, wrong, generator(), cost=0.2)(new), hits).aurc
    assert learned < risk_curve(-probability, hits).aurc + 0.02
    assert learned < float(hits.mean()) - 0.1


def test_two_stages_suffice_where_a_line_tells():
    x = torch.randn(3000, 1, generator=generator(), dtype=torch.float64)
    probability = torch.sigmoid(2 * x[:, 0])
    wrong = (torch.rand(3000, generator=generator(1), dtype=torch.float64) < probability).double()
    score = two_stage_rejector(x, wrong, cost=0.3)(torch.tensor([[-1.0], [0.0]]))
    assert score[0] == pytest.approx(0.3 - float(torch.sigmoid(torch.tensor(-2.0))), abs=0.03)
    assert score[1] == pytest.approx(0.3 - 0.5, abs=0.03)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_held_out_sets_of_one_kind(value):
    x, wrong = torch.randn(50, 3, generator=generator()), torch.full((50,), value)
    for fitted in (learned_rejector(x, wrong, generator(), cost=0.1), two_stage_rejector(x, wrong, cost=0.1)):
        score = fitted(x)
        assert score.isfinite().all()
        assert ((score > 0) == (value == 0)).all()


def test_is_deterministic():
    x, _, wrong = corners(300, 0)
    first, second = (learned_rejector(x, wrong, generator(3), cost=0.1)(x) for _ in range(2))
    assert torch.equal(first, second)
    assert math.isfinite(float(first.sum()))

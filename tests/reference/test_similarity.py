"""How networks lie to each other, against other forms of the same."""

import math

import pytest
import torch

from reference.metrics.similarity import cka, connectivity


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def by_gram_matrices(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the centred kernels K = X X^T, L = Y Y^T (N, N)."""
    middle = torch.eye(len(x), dtype=x.dtype) - 1 / len(x)
    own, other = (middle @ (z @ z.T) @ middle for z in (x, y))
    return float((own * other).sum() / (own.norm() * other.norm()))


def test_cka_is_that_of_gram_matrices():
    x = draw(50, 7)
    for y in (draw(50, 3, seed=1), x[:, :2] + draw(50, 2, seed=2), x.exp()):
        assert cka(x, y) == pytest.approx(by_gram_matrices(x, y))
        assert cka(y, x) == pytest.approx(cka(x, y))


def test_cka_does_not_see_rotations_factors_and_shifts():
    x, y = draw(50, 7), draw(50, 4, seed=1)
    turned = torch.linalg.qr(draw(7, 7, seed=2)).Q
    assert cka(x @ turned * 3 + 5, y) == pytest.approx(cka(x, y))
    assert cka(x, x @ turned) == pytest.approx(1)
    assert cka(x, x @ torch.diag(torch.arange(7.0).double())) < 0.99, "but columns of other sizes"
    a, b = (torch.eye(8, dtype=torch.float64)[:, i : i + 4] for i in (0, 4))
    assert cka(a - a.mean(0), b - b.mean(0)) < 0.2
    assert math.isnan(cka(x, torch.ones(50, 2)))


@pytest.mark.parametrize(
    ("errors", "wanted"), [([0.2, 0.2], 0.0), ([0.1, 0.9, 0.1], -0.8), ([0.1, 0.0, 0.3], -0.1), ([0.3, 0.2, 0.1], -0.1)]
)
def test_connectivity_is_the_mean_of_the_ends_less_the_worst(errors, wanted):
    assert connectivity(errors) == pytest.approx(wanted)

"""The shape of a loss against closed forms: cross-entropy, GCE and the mean absolute error along a margin."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from reference.curves import CLASSES, Curves, curves
from reference.methods import catalogue


def shape(method: str) -> Curves:
    found = curves(catalogue("loss")[method])
    assert isinstance(found, Curves)
    return found


def test_probabilities_are_those_of_the_margin() -> None:
    found = shape("ce")
    assert found.margins[0] == -found.margins[-1] == -10
    for m, p in zip(found.margins, found.probabilities, strict=True):
        assert p == pytest.approx(math.exp(m) / (math.exp(m) + CLASSES - 1), rel=1e-4)


def test_values_are_the_losses() -> None:
    p = shape("ce").probabilities
    assert shape("ce").values == pytest.approx([-math.log(q) for q in p], rel=1e-3, abs=1e-5)
    assert shape("gce").values == pytest.approx([(1 - q**0.7) / 0.7 for q in p], rel=1e-3, abs=1e-4)
    assert shape("mae").values == pytest.approx([2 * (1 - q) for q in p], rel=1e-3, abs=1e-4)


def test_weights_are_the_norms_of_the_gradient() -> None:
    """dl/dz = l'(p) p (e_y - softmax); at equal other logits the norm of e_y - softmax is (1 - p) sqrt(C / (C - 1))."""
    p = shape("ce").probabilities
    side = math.sqrt(CLASSES / (CLASSES - 1))
    assert shape("ce").weights == pytest.approx([(1 - q) * side for q in p], rel=1e-3, abs=1e-5)
    assert shape("gce").weights == pytest.approx([q**0.7 * (1 - q) * side for q in p], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("dmi", "batches"),
        ("elr", "remembers"),
        ("nlnl", "random draws"),
        ("mixup", "acts on the inputs"),
        ("emo", "weights"),
    ],
)
def test_a_loss_without_a_shape_says_why(method: str, reason: str) -> None:
    found = curves(catalogue("loss")[method])
    assert isinstance(found, str)
    assert reason in found


def test_what_is_not_finite_is_not_drawn() -> None:
    def broken(logits, target):  # type: ignore[no-untyped-def]
        return logits.sum(-1) / (target * 0.0)

    assert "not finite" in str(curves(replace(catalogue("loss")["ce"], function=broken)))

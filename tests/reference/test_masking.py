"""The arithmetic of checks for masked gradients; networks masked on purpose are in tests/suites/test_masked.py."""

import pytest
import torch
from attacked import seeded

from reference import masking


def bits(*runs):
    """How many right, how many wrong, and so on."""
    return torch.cat([torch.full((n,), value) for n, value in runs])


def test_accuracy_that_a_stronger_attack_raises():
    weak = bits((400, True), (600, False))
    assert not masking.more_steps(weak, weak).suspect
    assert not masking.more_steps(weak, bits((100, True), (900, False))).suspect
    raised = masking.more_steps(weak, bits((450, True), (550, False)))
    assert raised.suspect
    assert raised.value == pytest.approx(0.05)
    assert "5.0 points" in raised.reason
    assert masking.black_box(weak, bits((450, True), (550, False))).suspect
    assert masking.more_restarts(weak, bits((450, True), (550, False))).suspect


def test_a_rise_within_two_standard_errors_is_none():
    """50 samples change to wrong and 65 to right: 1.5 points, but 2 sqrt(115) / 1000 is 2.1."""
    one = bits((400, True), (600, False))
    other = bits((350, True), (50, False), (65, True), (535, False))
    check = masking.more_steps(one, other)
    assert check.value == pytest.approx(0.015)
    assert check.limit == pytest.approx(2 * 115**0.5 / 1000)
    assert not check.suspect


def test_accuracy_vanishes_as_eps_grows():
    assert not masking.vanishes({0.0: 0.95, 0.1: 0.5, 1.0: 0.0}).suspect
    assert "still right at eps = 1" in masking.vanishes({0.0: 0.95, 0.1: 0.5, 1.0: 0.3}).reason
    assert "rises by 20.0 points" in masking.vanishes({1.0: 0.0, 0.2: 0.6, 0.0: 0.95, 0.1: 0.4}).reason


def test_the_loss_along_the_gradient_of_a_linear_network():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x, target = torch.rand(20, 2, generator=seeded()) * 0.8 + 0.1, torch.arange(20) % 2
    assert masking.along_gradient(lambda x: x @ weight, x, target, eps=0.1).value == 1
    flat = masking.along_gradient(lambda x: x @ weight * 0, x, target, eps=0.1)
    assert flat.value == 0
    assert "0 for 20 of 20" in flat.reason

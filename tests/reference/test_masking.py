"""Checks for masked gradients: what was masked on purpose is flagged, each for its reason; what is honest is not."""

import pytest
import torch
from attacked import EPS, Lambda, held_out, seeded, trained

from reference import masking


def quantised(model, x):
    """Six grey levels: the gradient is 0 nearly everywhere."""
    return model((5 * x).round() / 5)


def tiny(model, x):
    """Logits that cross-entropy in float32 cannot tell apart, and which predict the same."""
    return 1e-10 * model(x)


def huge(model, x):
    """Logits so far apart that the loss is 0 wherever the prediction is right."""
    return 1e5 * model(x)


def noisy(model, x):
    return model(x + 0.3 * torch.randn_like(x))


def found(model):
    x, target = held_out(150)
    return {c.name: c for c in masking.examine(model, x, target, eps=EPS["linf"], generator=seeded())}


@pytest.mark.parametrize("robust", [False, True])
def test_honest_networks_pass_every_check(robust):
    for check in found(trained(robust)).values():
        assert not check.suspect, check


@pytest.mark.parametrize(
    ("mask", "fails"),
    [
        (quantised, {"along the gradient", "black box", "large eps"}),
        (tiny, {"along the gradient"}),
        (huge, {"along the gradient", "black box"}),
        (noisy, {"repeatable"}),
    ],
)
def test_masked_networks_are_flagged(mask, fails):
    torch.manual_seed(0)
    checks = found(Lambda(mask, trained()))
    assert fails <= {name for name, check in checks.items() if check.suspect}, checks
    for check in checks.values():
        assert (check.reason != "") is check.suspect


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

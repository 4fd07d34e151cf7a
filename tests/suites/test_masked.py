"""Networks masked on purpose are flagged, each for its reason; honest ones are not."""

import pytest
import torch
from attacked import EPS, Lambda, held_out, seeded, trained

from lossboard.threat import Threat
from reference import masking
from reference.attacks.square import square
from suites.adversarial import Judging, judging

HOW = Judging()


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
    """The checks of a record by name, on rows that a task would take."""
    some = judging.Target(model, *held_out(150), Threat(EPS["linf"]), stream=lambda name: seeded(), together=150)
    checks = judging.checked(some, HOW, some.under(square, "square", queries=HOW.queries))
    return {check.name: check for check in (*checks, masking.repeatable(model, some.x))}


@pytest.mark.parametrize("robust", [False, True])
def test_honest_networks_pass_every_check(robust):
    for check in found(trained(robust)).values():
        assert not check.suspect, check


@pytest.mark.parametrize(
    ("mask", "fails"),
    [
        (quantised, {"along the gradient", "black box"}),
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

"""The contract of an attack, over every registered one: a file in ``reference/attacks`` needs no edit here."""

import re

import pytest
import torch
from attacked import EPS, accuracy, digits, distance, held_out, seeded, trained
from latex2mathml.converter import convert

from reference.attacks.objectives import right
from reference.methods import catalogue

ATTACKS = catalogue("attack")
FEWER = {"queries": 50, "steps": 10, "targets": 3}  # in place of more, so that tests are quick
EVERY = [pytest.param(m, norm, id=f"{m.id}-{norm}") for m in ATTACKS.values() for norm in m.norms]
every_attack = pytest.mark.parametrize("method", ATTACKS.values(), ids=list(ATTACKS))
every_norm = pytest.mark.parametrize(("method", "norm"), EVERY)


def attack(method, model, x, target, *, norm, seed=1, eps=None, **hyperparameters):
    sizes = {key: FEWER[key] for key in method.defaults if key in FEWER}
    given = {"norm": norm} if "norm" in method.supplied else {}
    if eps is None:
        eps = EPS[norm]
    return method.function(model, x, target, eps=eps, generator=seeded(seed), **given, **sizes, **hyperparameters)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """AutoAttack has no sizes of its own: its parts get smaller ones."""
    from reference.attacks import autoattack

    def smaller(one):
        return lambda model, x, target, **given: attack(
            ATTACKS[one], model, x, target, norm=given["norm"], eps=given["eps"]
        )

    monkeypatch.setattr(autoattack, "STANDARD", {one: smaller(one) for one in autoattack.STANDARD})


@every_norm
def test_stays_in_the_ball_and_in_the_box(method, norm):
    x, target = held_out(40)
    x[0], x[1] = 0, 1  # corners of the box
    for eps in (0.0, 1e-3, EPS[norm], 3.0):
        x_adv = attack(method, trained(), x, target, norm=norm, eps=eps)
        assert x_adv.shape == x.shape
        assert x_adv.dtype == x.dtype
        assert not x_adv.requires_grad
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        assert (distance(x_adv, x, norm) <= eps * (1 + 1e-5) + 1e-6).all()


@every_norm
def test_fools_the_network_and_less_a_robust_one(method, norm):
    x, target = held_out()
    found = {}
    for robust in (False, True):
        model = trained(robust)
        found[robust] = accuracy(model, attack(method, model, x, target, norm=norm), target)
    assert found[False] < accuracy(trained(), x, target) - 0.05
    assert found[False] < found[True] - 0.02


@every_norm
def test_is_deterministic_and_leaves_everything_as_it_was(method, norm):
    model, (x, target) = trained(), held_out(40)
    before = x.clone(), target.clone(), torch.get_rng_state(), [p.clone() for p in model.parameters()]
    one, two = (attack(method, model, x, target, norm=norm) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(x, before[0])
    assert torch.equal(target, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not model.training
    for p, old in zip(model.parameters(), before[3], strict=True):
        assert p.requires_grad
        assert p.grad is None
        assert torch.equal(p, old)


@every_norm
def test_what_is_misclassified_stays_as_it_is(method, norm):
    x, _ = held_out(40)
    wrong = (trained()(x).argmax(1) + 1) % 10
    assert torch.equal(attack(method, trained(), x, wrong, norm=norm), x)


@every_norm
def test_one_sample_and_none_that_is_right(method, norm):
    images, labels = digits()
    x, target = images[1201:1202], labels[1201:1202]
    assert right(trained()(x), target).all()
    assert attack(method, trained(), x, target, norm=norm).shape == x.shape


@every_norm
def test_works_inside_no_grad(method, norm):
    x, target = held_out(40)
    with torch.no_grad():
        inside = attack(method, trained(), x, target, norm=norm)
    assert torch.equal(inside, attack(method, trained(), x, target, norm=norm))


@pytest.mark.parametrize("method", [m for m in ATTACKS.values() if m.black_box], ids=lambda m: m.id)
def test_a_black_box_attack_asks_for_no_gradient(method):
    def model(x):
        assert not x.requires_grad
        with torch.no_grad():
            return trained()(x)

    x, target = held_out(40)
    assert accuracy(model, attack(method, model, x, target, norm="linf"), target) < accuracy(model, x, target)


@every_attack
def test_with_the_fewest_classes(method):
    """Of the ten, and on inputs of one pixel with two channels."""
    weight = torch.eye(4)[: method.classes] - 0.25

    def model(x):
        scores = torch.stack([x[:, 0, 0, 0], x[:, 1, 0, 0], 1 - x[:, 0, 0, 0], 1 - x[:, 1, 0, 0]], 1)
        return 3 * scores @ weight.T

    x = torch.rand(60, 2, 1, 1, generator=seeded())
    target = model(x).argmax(1)
    x_adv = attack(method, model, x, target, norm="linf", eps=0.3)
    assert accuracy(model, x_adv, target) < 0.8


@every_attack
def test_documentation(method):
    cited = re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert cited, f"the module's docstring begins 'Name (Authors, Venue Year)', found {method.citation!r}"
    assert re.search(r"for inputs \(N, \.\.\.\) and target \(N,\); returns inputs \(N, \.\.\.\)", method.summary)
    assert len(method.formula) > 3, "the docstring has a paragraph $$ LaTeX $$"
    assert convert(method.formula).startswith("<math")
    for name in method.defaults:
        assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say what '{name}' is"

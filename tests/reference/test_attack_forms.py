"""Attacks against what is known in closed form, and against the authors' and other programs on the same networks."""

import math

import numpy as np
import pytest
import torch
from attacked import EPS, accuracy, digits, distance, held_out, seeded, trained
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from reference.attacks import objectives
from reference.attacks.apgd import apgd_ce, apgd_t, gaps
from reference.attacks.ascent import ascend, attacked, frozen, slope
from reference.attacks.autoattack import STANDARD, autoattack
from reference.attacks.ball import anywhere, project, steepest, surface
from reference.attacks.fgsm import fgsm
from reference.attacks.objectives import right
from reference.attacks.pgd import pgd, pgd_dlr, pgd_margin
from reference.methods import MethodError, attack

NORMS = ("linf", "l2")
HALF_A_POINT = 0.005


# -- balls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_identity_inside_and_lands_in_ball_and_box(norm):
    g = seeded()
    centre = torch.rand(50, 3, 4, 4, generator=g)
    x = centre + torch.randn(50, 3, 4, 4, generator=g)
    found = project(x, centre, 0.5, norm)
    assert (distance(found, centre, norm) <= 0.5 + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(project(found, centre, 0.5, norm), found)


def test_projection_for_linf_is_the_nearest_point():
    """Against a bounded least-squares problem, which separates into features."""
    g = seeded()
    centre, x = torch.rand(20, 5, generator=g), 3 * torch.rand(20, 5, generator=g) - 1
    low, high = np.maximum(centre.numpy() - 0.2, 0), np.minimum(centre.numpy() + 0.2, 1)
    np.testing.assert_allclose(project(x, centre, 0.2, "linf").numpy(), np.clip(x.numpy(), low, high), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_step_has_size_1_and_no_other_rises_more(norm):
    g = seeded()
    gradient = torch.randn(1, 6, generator=g, dtype=torch.float64)
    best = steepest(gradient, norm)
    dual = gradient.abs().sum() if norm == "linf" else gradient.norm()
    assert (gradient * best).sum() == pytest.approx(float(dual))
    for _ in range(100):
        other = torch.randn(1, 6, generator=g, dtype=torch.float64)
        other = other / (other.abs().max() if norm == "linf" else other.norm())
        assert (gradient * other).sum() <= (gradient * best).sum() + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_step_does_not_depend_on_the_size_of_the_gradient(norm):
    gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    for size in (1e-30, 1.0, 1e30):
        torch.testing.assert_close(steepest(size * gradient, norm), steepest(gradient, norm))
    assert not steepest(gradient, norm)[1].any()


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball(norm):
    centre = torch.full((4000, 1, 1, 2), 0.5)
    inside, edge = anywhere(centre, 0.2, norm, seeded()), surface(centre, 0.2, norm, seeded())
    torch.testing.assert_close(distance(edge, centre, norm), torch.full((4000,), 0.2))
    r = distance(inside, centre, norm) / 0.2  # of a uniform point of a square r^2 is uniform
    assert r.max() <= 1 + 1e-6
    assert (r.square() if norm == "linf" else r).mean() == pytest.approx(0.5, abs=0.02)
    assert (inside - centre).mean().abs() < 0.01


# -- objectives -------------------------------------------------------------------------------------------------------


def test_objectives_of_one_sample_by_hand():
    z, y, t = torch.tensor([[1.0, 5.0, 2.0, 4.5]], dtype=torch.float64), torch.tensor([3]), torch.tensor([2])
    assert objectives.margin(z, y).item() == 0.5
    assert objectives.dlr(z, y).item() == pytest.approx(0.5 / (5 - 2))
    assert objectives.targeted_dlr(z, y, t).item() == pytest.approx((2 - 4.5) / (5 - (2 + 1) / 2))
    assert objectives.ce(z, y).item() == pytest.approx(math.log(sum(math.exp(v) for v in (1, 5, 2, 4.5))) - 4.5)


def test_ratios_change_with_neither_shift_nor_scale():
    g = seeded()
    z, y = torch.randn(30, 5, generator=g, dtype=torch.float64), torch.randint(5, (30,), generator=g)
    t = (y + 1) % 5
    for loss in (objectives.dlr, lambda z, y: objectives.targeted_dlr(z, y, t)):
        torch.testing.assert_close(loss(3e4 * z + 7, y), loss(z, y))


def test_the_margin_is_positive_exactly_where_the_label_is_not_ahead():
    g = seeded()
    z, y = torch.randn(200, 4, generator=g), torch.randint(4, (200,), generator=g)
    assert torch.equal(objectives.margin(z, y) < 0, right(z, y))
    assert not right(torch.zeros(1, 4), torch.tensor([2]))
    assert not right(torch.tensor([[0.0, torch.nan]]), torch.tensor([0]))


# -- a linear network: the best attack is known -----------------------------------------------------------------------


def linear(classes=2):
    weight = torch.randn(12, classes, generator=seeded(3))
    return lambda x: (x.flatten(1) - 0.5) @ weight, weight


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", [fgsm, pgd, pgd_margin, apgd_ce])
def test_of_two_classes_every_attack_fools_exactly_those_that_can_be(method, norm):
    """Away from the faces of the box: those whose margin is at most eps times the dual norm of w_1 - w_0."""
    model, weight = linear()
    x = 0.25 + 0.5 * torch.rand(400, 3, 2, 2, generator=seeded())
    target, eps = model(x).argmax(1), 0.04 if norm == "linf" else 0.12
    apart = weight[:, 1] - weight[:, 0]
    reach = eps * (apart.abs().sum() if norm == "linf" else apart.norm())
    margin = (model(x)[:, 1] - model(x)[:, 0]).abs()
    clear = (margin - reach).abs() > 1e-3 * reach
    x_adv = method(model, x, target, eps=eps, norm=norm, generator=seeded())
    assert 0.2 < (margin < reach).float().mean() < 0.95
    assert torch.equal(right(model(x_adv), target)[clear], (margin > reach)[clear])


def test_one_step_is_the_sign_of_the_gradient():
    model, weight = linear()
    x, eps = 0.2 + 0.6 * torch.rand(1, 3, 2, 2, generator=seeded()), 1e-4
    target = model(x).argmax(1)
    step = eps * (weight[:, 1 - target] - weight[:, target]).sign().view(1, 3, 2, 2)
    torch.testing.assert_close(fgsm(model, x, target, eps=eps, norm="linf", generator=seeded()), x + step)


# -- ascent -----------------------------------------------------------------------------------------------------------


def test_the_slope_is_the_gradient():
    model, (x, target) = trained(), held_out(5)
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(leaf), target, reduction="sum").backward()
    found = slope(model, x, target, objectives.ce)
    torch.testing.assert_close(found.gradient, leaf.grad)
    torch.testing.assert_close(found.values, objectives.ce(model(x), target))
    model.zero_grad()


def test_draws_are_averaged():
    def random(x):
        return x.flatten(1)[:, :3] * (1 + torch.rand(1, 3))

    x, target = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    torch.manual_seed(0)
    one = torch.stack([slope(random, x, target, objectives.margin).gradient for _ in range(6)]).mean(0)
    torch.manual_seed(0)
    torch.testing.assert_close(slope(random, x, target, objectives.margin, draws=6).gradient, one)


def test_frozen_parameters_have_gradients_again_after_an_error():
    model = trained()
    with frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(RuntimeError, match="shapes"), frozen(model):
        model(torch.zeros(2, 1, 3))
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("patience", [0, 2])
def test_stopping_changes_no_sample_but_those_that_are_done(patience):
    """Each is the iterate of the unstopped search, so many steps after its first misclassified one."""
    model, (x, target) = trained(), held_out(80)
    how = {"eps": 0.1, "norm": "linf", "step": 0.02}
    iterates = [ascend(model, x, target, objectives.ce, x, **how, steps=n).x for n in range(9)]
    found, right_steps = ascend(model, x, target, objectives.ce, x, **how, steps=8, patience=patience)
    with torch.no_grad():
        wrong = torch.stack([~right(model(iterate), target) for iterate in iterates])
    assert (wrong[:-1].int().diff(dim=0) >= 0).all(), "once misclassified, here, they stay so"
    first = torch.where(wrong.any(0), wrong.int().argmax(0), 8)
    for i in range(len(x)):
        torch.testing.assert_close(found[i], iterates[min(int(first[i]) + patience, 8)][i])
    assert torch.equal(right_steps, (~wrong[:8]).sum(0))


def test_attempts_begin_at_the_inputs_and_take_what_is_left():
    seen = []

    def once(x, target, attempt, rows):
        seen.append((attempt, rows.tolist(), x.flatten().tolist()))
        return torch.where(x > 0.25 + 0.25 * attempt, x - x, x / 2)  # fools the larger ones

    def model(x):
        return torch.stack([torch.full_like(x[:, 0], 0.01), x[:, 0]], 1)

    x = torch.tensor([[0.1], [0.3], [0.6], [0.0]])
    found = attacked(model, x, torch.ones(4, dtype=torch.long), once, 3)
    assert [(a, rows) for a, rows, _ in seen] == [(0, [0, 1, 2]), (1, [0]), (2, [0])]
    assert all(values[0] == pytest.approx(0.1) for _, _, values in seen)
    assert found.flatten().tolist() == pytest.approx([0.05, 0.0, 0.0, 0.0])


def test_gaps_between_checkpoints():
    """Of 100 steps at 22, 41, 57, 70, 80, 87, 93 and 99, as the paper's fractions and the code's rounding give."""
    assert np.cumsum(gaps(100)).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sum(gaps(10)) <= 10
    assert gaps(1) == [1]


# -- stronger and weaker ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("robust", [False, True])
def test_attacks_in_their_order(norm, robust):
    model, (x, target), eps = trained(robust), held_out(), EPS[norm]

    def after(method, **size):
        return accuracy(model, method(model, x, target, eps=eps, norm=norm, generator=seeded(), **size), target)

    ce = after(pgd)
    assert ce <= after(fgsm) + HALF_A_POINT
    assert after(pgd, restarts=3) <= ce
    assert after(pgd, steps=100, step=0.05) <= after(pgd, steps=5) + HALF_A_POINT
    assert after(apgd_ce) <= ce + HALF_A_POINT
    assert after(apgd_t) <= min(after(pgd_margin), after(pgd_dlr)) + HALF_A_POINT


def test_accuracy_falls_with_eps_to_nothing():
    x, target = held_out()
    found = [
        accuracy(trained(), pgd(trained(), x, target, eps=eps, norm="linf", generator=seeded()), target)
        for eps in (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0


def test_autoattack_is_its_parts_in_turn_each_on_what_is_left(monkeypatch):
    model, (x, target) = trained(True), held_out(100)
    calls = []

    def part(id):
        def one(model, x, target, **given):
            calls.append((id, x.clone(), given["eps"]))
            return STANDARD_WAS[id](model, x, target, **given) if id == "apgd_ce" else x

        return one

    STANDARD_WAS = dict(STANDARD)
    for id in STANDARD:
        monkeypatch.setitem(STANDARD, id, part(id))
    found = autoattack(model, x, target, eps=0.1, norm="linf", generator=seeded())
    assert [id for id, _, _ in calls] == ["apgd_ce", "apgd_t", "fab_t", "square"]
    left = right(model(found), target)
    assert torch.equal(calls[0][1], x[right(model(x), target)])
    assert all(torch.equal(given, x[left]) for _, given, _ in calls[1:])  # the inputs as they were


# -- other programs on the same networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_auto_pgd_finds_as_much_as_its_authors_program(norm):
    model, eps, (x, target) = trained(True), EPS[norm], held_out(400)
    how = {"n_restarts": 1, "n_iter": 100, "eps": eps, "norm": norm.capitalize(), "seed": 0, "device": "cpu"}
    for ours, theirs in ((apgd_ce, APGDAttack(model, **how)), (apgd_t, APGDAttack_targeted(model, **how))):
        own = accuracy(model, ours(model, x, target, eps=eps, norm=norm, generator=seeded()), target)
        with torch.random.fork_rng():
            left = accuracy(model, theirs.perturb(x, target), target)
        assert own <= left + HALF_A_POINT
        assert own >= left - 2 * HALF_A_POINT


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("robust", [False, True])
def test_pgd_and_auto_pgd_find_as_much_as_torchattacks(norm, robust):
    """Means over three starts. It pins an old requests, so it can only be installed by hand."""
    other = pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks")
    model, eps = trained(robust), EPS[norm]
    x, target = (part[1200:] for part in digits())
    if norm == "linf":
        theirs = other.PGD(model, eps=eps, alpha=eps / 10, steps=40, random_start=True)
    else:
        theirs = other.PGDL2(model, eps=eps, alpha=eps / 10, steps=40, random_start=True)
    name = norm.capitalize()
    pairs = (
        (pgd, theirs),
        (apgd_ce, other.APGD(model, norm=name, eps=eps, steps=100, n_restarts=1, loss="ce")),
        (apgd_t, other.APGDT(model, norm=name, eps=eps, steps=100, n_restarts=1, n_classes=10)),
    )
    for ours, program in pairs:
        own, left = [], []
        for seed in range(3):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                program.seed = seed
                left.append(accuracy(model, program(x, target), target))
            own.append(accuracy(model, ours(model, x, target, eps=eps, norm=norm, generator=seeded(seed)), target))
        print(f"{program.attack} {norm} robust={robust}: ours {np.mean(own):.4f}, theirs {np.mean(left):.4f}")
        assert np.mean(own) <= np.mean(left) + HALF_A_POINT


# -- declarations -----------------------------------------------------------------------------------------------------


def test_what_a_declaration_refuses(monkeypatch):
    monkeypatch.setattr("reference.methods._registered", {})

    def one(model, x, target, *, eps, generator): ...

    def two(model, x, target, *, eps, norm, generator): ...

    def three(x, target, *, eps): ...

    for function, given, message in (
        (one, {"norms": ("linf", "l2")}, "names 'norm' where they are several"),
        (two, {}, "names 'norm' where they are several"),
        (one, {"norms": ("l1",)}, "norms are of"),
        (three, {}, "the first parameters are 'model, x, target'"),
    ):
        with pytest.raises(MethodError, match=message):
            attack(**given)(function)
    assert attack(norms=("linf", "l2"))(two) is two

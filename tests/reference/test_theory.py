"""What is measured of losses, against closed forms and what is known of them; the comp-sum bound on finite sets."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from reference import theory
from reference.methods import catalogue, find
from reference.softmax import log_softmax

LOSSES = catalogue("loss")
CLASSES = 10
P = theory.distributions(36, CLASSES)
MEASURED = [id for id, method in LOSSES.items() if not theory.left_out(method)]
TAUS = (0.0, 0.5, 1.0, 1.5, 2.0)
MARGINS = torch.linspace(0, 1, 101, dtype=torch.float64)


@functools.cache
def minima(id):
    """Without noise, and at 40 and 60 %."""
    return theory.calibration(find(LOSSES, id), P)


def losses(id, classes=CLASSES):
    return theory.against_all(find(LOSSES, id), theory.clean(classes))


def risks(id, z, p=P):
    return (p * losses(id, p.shape[-1])(z)).sum(-1)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


# -- what is known of single losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["ce", "mse", "bitemp", "smce", "log_taylor_softmax", "fwd"])
def test_proper_losses(id):
    clean = minima(id)[0]
    assert (clean.right, clean.tied, clean.ordered) == (1, 0, 1)
    assert clean.off < 1e-3


@pytest.mark.parametrize("id", ["mae", "gce", "focal", "ls", "sce", "poly1"])
def test_calibrated_losses_that_are_not_proper(id):
    clean = minima(id)[0]
    assert clean.right == 1
    assert clean.off > 0.05


@pytest.mark.parametrize("id", ["mae", "rce", "rll", "nce_mae", "nce_rce", "anl"])
def test_minimisers_that_uniform_noise_leaves_where_they_are(id):
    for noisy in minima(id)[1:]:
        assert noisy.right == 1
        assert noisy.moved < 1e-3


@pytest.mark.parametrize("id", ["ce", "mse", "gce", "focal"])
def test_minimisers_that_uniform_noise_moves(id):
    for noisy in minima(id)[1:]:
        assert noisy.right == 1
        assert noisy.moved > 0.05


@pytest.mark.parametrize("id", ["fwd", "bwd"])
def test_a_correction_that_is_told_the_noise_undoes_it(id):
    assert all(noisy.off < 1e-3 for noisy in minima(id))
    assert theory.measure(LOSSES[id]).told


def test_mae_predicts_the_first_class_with_certainty_and_nothing_of_the_others():
    clean = minima("mae")[0]
    assert (clean.ordered, clean.edge) == (0, 1)
    z = theory.minimisers(losses("mae"), P)
    assert torch.equal(z, torch.where(P.amax(-1, keepdim=True) == P, theory.BOX, -theory.BOX))


def test_gce_against_its_closed_form():
    """The minimiser of sum_k p_k (1 - q_k^r) / r is q in proportion to p^(1 / (1 - r))."""
    q = log_softmax(theory.minimisers(losses("gce"), P)).exp()
    powers = P ** (1 / 0.3)
    close(q, powers / powers.sum(-1, keepdim=True), 1e-5)


def test_the_square_loss_has_p_itself_for_logits():
    close(theory.minimisers(losses("rsq"), P), P, 1e-6)


def test_crammer_singer_needs_a_majority():
    """Without one the best logits are all alike, so that the share that is right is that of the majorities."""
    majority = (P.amax(-1) > 0.5).double().mean().item()
    assert 0 < majority < 1
    assert minima("cs")[0].right == majority
    assert minima("cs")[0].tied == pytest.approx(1 - majority)


def test_weston_watkins_against_linear_programming():
    found = risks("ww", theory.minimisers(losses("ww"), P))
    for p, risk in zip(P, found.tolist(), strict=True):
        pairs = [(y, k) for y in range(CLASSES) for k in range(CLASSES) if k != y]
        costs = np.concatenate([np.zeros(CLASSES), [float(p[y]) for y, _ in pairs]])
        rows = np.zeros((len(pairs), len(costs)))
        for i, (y, k) in enumerate(pairs):  # 1 + z_k - z_y <= slack
            rows[i, [k, y, CLASSES + i]] = 1, -1, -1
        limits = [(-theory.BOX, theory.BOX)] * CLASSES + [(0, None)] * len(pairs)
        assert risk == pytest.approx(linprog(costs, rows, -np.ones(len(pairs)), bounds=limits).fun, abs=1e-9)
    assert minima("ww")[0].right < 1


def test_a_loss_for_the_wrong_class_is_found_out():
    ce = LOSSES["ce"]
    shifted = dataclasses.replace(ce, function=lambda z, y: ce.function(z, (y + 1) % z.shape[-1]))
    found = theory.calibration(shifted, P)
    assert found[0].right == found[0].ordered == 0
    assert found[0].off > 0.1


@pytest.mark.parametrize("id", ["nce", "ldr", "zloss", "nce_aul", "gce_rce", "tce"])
def test_no_random_start_leads_further_down(id):
    p = P[:12]
    found = risks(id, theory.minimisers(losses(id), p), p)
    generator = torch.Generator().manual_seed(3)
    starts = torch.randn(12 * 10, CLASSES, generator=generator, dtype=torch.float64) * 6
    weights = p.repeat_interleave(10, 0)
    ends = theory.descend(lambda z, rows: (weights[rows] * losses(id)(z)).sum(-1), starts, 200)
    least = risks(id, ends, weights).reshape(12, 10).amin(-1)
    assert (found <= least + 1e-4).all()


# -- all that are measured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", MEASURED)
def test_declarations_agree_with_the_measurement(id):
    for classes in (4, 5):
        sums = losses(id, classes)(theory.spread(classes)).sum(-1)
        assert (sums.amax() - sums.amin() <= 1e-9 * sums.abs().amax()) == LOSSES[id].symmetric
        assert theory.bounded(losses(id, classes), classes) == LOSSES[id].bounded


@pytest.mark.parametrize(
    ("id", "constant"),
    [("mae", lambda c: 2 * (c - 1)), ("nce", lambda c: 1), ("rll", lambda c: c * math.log(11)), ("ce", None)],
)
def test_sums_over_labels(id, constant, monkeypatch):
    monkeypatch.setattr(theory, "DRAWS", 3)
    for sums in theory.measure(LOSSES[id]).sums:
        assert sums.constant == (constant is not None)
        assert constant is None or sums.low == pytest.approx(constant(sums.classes), rel=1e-5)


def test_a_measurement_repeated_is_the_same(monkeypatch):
    monkeypatch.setattr(theory, "DRAWS", 9)
    for id in ("gce", "nce", "ww", "fwd"):
        assert theory.measure(LOSSES[id]) == theory.measure(LOSSES[id])


def test_what_is_left_out_and_why():
    words = {
        "dmi": "batches",
        "ens": "batches",
        "aldr": "remembers",
        "elr": "remembers",
        "nlnl": "random",
        "lt": "learned",
        "emo": "last layer",
        "fwd_est": "estimated",
        "mixup": "inputs",
        "sam": "weights",
        "perp": "gradients",
    }
    for id, word in words.items():
        assert word in theory.measure(LOSSES[id])
    for id, method in LOSSES.items():
        needs = set(method.supplied) - {"transition"} or method.batchwise or method.outputs
        assert not needs or theory.left_out(method), id


def test_distributions_are_what_they_are_said_to_be():
    p = theory.distributions(90, CLASSES)
    close(p.sum(-1), torch.ones(90))
    ranked = p.sort(-1, descending=True).values
    gaps = (ranked[:, :-1] / ranked[:, 1:]).log()
    assert (gaps > 0.02 - 1e-9).all()
    assert ((gaps[:, 0] - 0.02).abs() < 1e-9).sum() == 30  # near ties
    assert (gaps[:, 0] > 3).sum() == 30  # clear leaders
    assert len(set(p.argmax(-1).tolist())) == CLASSES


def test_uniform_noise_is_that_of_the_noise_model():
    from reference.noise import uniform_ldr

    close(theory.uniform(7, 0.3), uniform_ldr.transition(7, 0.3, ""))


def test_descent_at_kinks_and_at_the_edge():
    """|z_1 - 1| + 2 |z_2 + z_1| has its least value at a kink in both; -z_3 pushes to the edge of the box."""

    def value(z, rows):
        return (z[:, 0] - 1).abs() + 2 * (z[:, 1] + z[:, 0]).abs() - z[:, 2] / 10

    starts = 3 * torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    close(theory.descend(value, starts, 300), torch.tensor([1.0, -1.0, theory.BOX]).expand(20, 3), 1e-3)


# -- the comp-sum family -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "tau", "scale"),
    [("ce", 1, 1), ("comp", 1, 1), ("gce", 1.7, 1), ("mae", 2, 2), ("rce", 2, 4 * math.log(10)), ("nmae", 2, 1 / 9)],
)
def test_members_of_the_family(id, tau, scale):
    assert theory.comp_sum(losses(id), CLASSES) == pytest.approx((tau, scale), rel=1e-6)


@pytest.mark.parametrize("tau", TAUS)
def test_the_family_is_that_of_comp(tau):
    comp = dataclasses.replace(LOSSES["comp"], function=functools.partial(LOSSES["comp"].function, tau=tau))
    found = theory.comp_sum(theory.against_all(comp, theory.clean(CLASSES)), CLASSES)
    assert found == pytest.approx((tau, 1), abs=1e-6)


@pytest.mark.parametrize(
    "id", ["mse", "focal", "js", "tce", "poly1", "sce", "nce", "agce", "aul", "cs", "bitemp", "ls"]
)
def test_others_are_not_members(id):
    assert theory.comp_sum(losses(id), CLASSES) is None


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("tau", [*TAUS, 0.9, 1.1, 1.9])
def test_the_transformation_is_convex_and_increasing_from_zero(tau, classes):
    values = theory.transformation(MARGINS, tau, classes)
    assert values[0] == 0
    assert (values.diff() > 0).all()
    assert (values.diff().diff() > -1e-12).all()
    close(theory.excess_error(values, tau, classes), MARGINS, 1e-6)
    assert theory.excess_error(2 * values[-1:], tau, classes) == 1
    factor = theory.simple_factor(tau, classes)
    simple = factor * values if tau >= 2 else (factor * values).sqrt()
    assert (simple - MARGINS > -1e-9).all()
    if tau < 2:  # no smaller power bounds it: near zero it grows like the square
        assert values[1] / values[2] == pytest.approx(1 / 4, rel=1e-2)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_the_transformation_is_continuous(tau):
    for near in (tau - 1e-7, tau + 1e-7):
        close(theory.transformation(MARGINS, near, 5), theory.transformation(MARGINS, tau, 5), 1e-5)


def best_scores(p, tau):
    """The scores with the least conditional risk at each distribution (X, C): (X, C)."""
    if tau == 2:
        return torch.where(p == p.amax(-1, keepdim=True), theory.BOX, -theory.BOX)
    return (p.log() / (2 - tau)).clamp(min=-200.0)


def a_set(p, tau):
    """Score vectors (G, C): a grid, and the best at every distribution, with all their permutations."""
    classes = p.shape[-1]
    grid = torch.cartesian_prod(*[torch.tensor([-30.0, -2.0, 0.0, 0.5, 2.0, 30.0], dtype=torch.float64)] * classes)
    orders = torch.tensor(list(itertools.permutations(range(classes))))
    return torch.cat([grid, best_scores(p, tau)[:, orders].flatten(0, 1)])


POINTS = torch.tensor([[0.5, 0.3, 0.2], [0.05, 0.05, 0.9], [0.3, 0.36, 0.34]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("tau", TAUS)
def test_the_bound_holds_for_every_hypothesis_where_gaps_are_zero(tau):
    """Every function from the points to a set of score vectors: each point can have its best one."""
    vectors = a_set(POINTS, tau)
    chosen = torch.randint(len(vectors), (4000, 3), generator=torch.Generator().manual_seed(2))
    scores = torch.cat([vectors[chosen], best_scores(POINTS, tau)[None]])
    left, right = theory.bound(scores, POINTS, WEIGHTS, tau)
    assert (left <= right + 1e-9).all()
    assert left.max() > 0.3
    for risk in (theory.zero_one(scores, POINTS), (POINTS * theory.phi(log_softmax(scores), tau)).sum(-1)):
        assert theory.risk_of(risk, WEIGHTS).gap.abs() < 1e-12


@pytest.mark.parametrize("tau", TAUS)
def test_the_bound_holds_for_every_hypothesis_where_gaps_are_not_zero(tau):
    """Constant functions: symmetric and complete, but no constant is best everywhere."""
    vectors = a_set(POINTS, tau)
    scores = vectors[:, None].expand(-1, 3, -1)
    left, right = theory.bound(scores, POINTS, WEIGHTS, tau)
    assert (left <= right + 1e-9).all()
    for risk in (theory.zero_one(scores, POINTS), (POINTS * theory.phi(log_softmax(scores), tau)).sum(-1)):
        found = theory.risk_of(risk, WEIGHTS)
        assert found.gap > 1e-3
        assert found.excess.min() >= found.gap - 1e-12


def tie_of_two(margin, tau, classes):
    """The excess loss, and its T, where two classes have all the probability and the wrong one wins a tie with it."""
    p = torch.zeros(1, classes, dtype=torch.float64)
    p[0, 0], p[0, 1] = (1 + margin) / 2, (1 - margin) / 2
    tie = torch.full((1, classes), -200.0, dtype=torch.float64)
    tie[0, :2] = 0
    scores = torch.stack([tie, best_scores(p, tau)])
    one = torch.ones(1, dtype=torch.float64)
    error = theory.risk_of(theory.zero_one(scores, p), one).excess
    loss = theory.risk_of((p * theory.phi(log_softmax(scores), tau)).sum(-1), one).excess
    assert error[0] == pytest.approx(margin)
    return loss[0].item(), theory.transformation(error[0], tau, classes).item(), theory.bound(scores, p, one, tau)


@pytest.mark.parametrize("margin", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(("tau", "classes"), [*itertools.product((0.0, 0.5, 1.0), (2, 3, 10)), (1.5, 2), (2.0, 2)])
def test_the_bound_is_attained_by_two_classes(tau, classes, margin):
    loss, least, (left, right) = tie_of_two(margin, tau, classes)
    assert loss == pytest.approx(least, rel=1e-9)
    close(left, right, 1e-7)


@pytest.mark.parametrize("margin", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(("tau", "classes"), [*itertools.product((1.5, 1.8, 2.0), (3, 10))])
def test_further_classes_cost_the_bound_a_factor_above_one(tau, classes, margin):
    loss, least, _ = tie_of_two(margin, tau, classes)
    assert loss / least == pytest.approx((classes / 2) ** (tau - 1), rel=1e-9)


def test_the_absolute_error_attains_the_bound_where_all_but_the_predicted_class_are_alike():
    p = torch.tensor([[0.3, 0.3, 0.3, 0.1]], dtype=torch.float64)
    scores = torch.stack([torch.zeros_like(p), torch.tensor([[theory.BOX, *[-theory.BOX] * 3]], dtype=torch.float64)])
    left, right = theory.bound(scores, p, torch.ones(1, dtype=torch.float64), 2.0)
    close(left[0], 0.2)
    close(right[0], 0.2, 1e-7)


@pytest.mark.parametrize("tau", TAUS)
def test_the_bound_holds_at_random_distributions_of_many_classes(tau):
    """Conditional excesses of random scores, beside the closed form of the least conditional risk."""
    generator = torch.Generator().manual_seed(4)
    z = 2 * torch.randn(500, len(P), CLASSES, generator=generator, dtype=torch.float64)
    best = best_scores(P, tau)
    least = (P * theory.phi(log_softmax(best), tau)).sum(-1)
    excess = (P * theory.phi(log_softmax(z), tau)).sum(-1) - least
    error = theory.zero_one(z, P) - (1 - P.amax(-1))
    assert (theory.transformation(error, tau, CLASSES) <= excess + 1e-9).all()
    if tau < 2:
        close(risks_of_family(tau), least, 1e-8)


def risks_of_family(tau):
    """The least conditional risks as the search finds them."""

    def family(z):
        return theory.phi(log_softmax(z), tau)

    return (P * family(theory.minimisers(family, P))).sum(-1)

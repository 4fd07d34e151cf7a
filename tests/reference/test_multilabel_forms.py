"""Multi-label losses against independent closed forms, their limits and their identities, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, fbeta_score, ndcg_score

from reference.methods import catalogue
from reference.multilabel.db import rebalanced
from reference.multilabel.neural_ndcg import SCALINGS, doubly_stochastic, soft_sort
from reference.multilabel.stk import log_soft_top

LOSSES = {key: method.function for key, method in catalogue("multilabel").items()}
LABELS = 6
COUNTS = torch.tensor([70.0, 40.0, 10.0, 3.0, 1.0, 0.0], dtype=torch.float64)
ROWS = torch.tensor(100.0, dtype=torch.float64)


def batch(n=8, labels=LABELS, seed=0):
    """Logits and targets; the first row has no label, the second all."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, labels, generator=generator, dtype=torch.float64)
    target = (torch.rand(n, labels, generator=generator) < 0.4).double()
    target[0], target[1] = 0, 1
    return logits, target


def close(found, expected, tolerance=1e-9):
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


def entropy_form(z, y):
    """The logistic loss of every label, from the definition."""
    return -(y * np.log(expit(z)) + (1 - y) * np.log(expit(-z)))


# -- cross-entropies ---------------------------------------------------------------------------------------------------


def test_bce_is_torchs():
    logits, target = batch()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)
    close(LOSSES["bce"](logits, target), expected)


def test_weights_give_both_sides_of_a_label_the_same_total():
    counts = torch.tensor([3.0, 1.0, 5.0, 2.0], dtype=torch.float64)
    target = torch.stack([torch.arange(8) < n for n in counts], 1).double()
    logits = torch.zeros(8, 4, dtype=torch.float64)  # where every entry's loss is log 2
    slope = gradient(lambda z: LOSSES["wbce"](z, target, counts=counts, rows=torch.tensor(8.0)), logits)
    close((slope * target).sum(0), -(slope * (1 - target)).sum(0))
    close((slope * target).sum(0), [-8 / 4 * 0.5 * 0.5] * 4)
    tilted = gradient(lambda z: LOSSES["wbce"](z, target, share=0.9, counts=counts, rows=torch.tensor(8.0)), logits)
    close((tilted * target).sum(0), -9 * (tilted * (1 - target)).sum(0))


def test_wbce_of_even_labels_is_bce():
    logits, target = batch()
    found = LOSSES["wbce"](logits, target, counts=0 * COUNTS + 50, rows=ROWS)
    close(found, LOSSES["bce"](logits, target))


@pytest.mark.parametrize("gamma", [0.0, 0.7, 2.0])
def test_focal_form(gamma):
    logits, target = batch()
    q = expit(np.where(target == 1, logits, -logits))
    close(LOSSES["mlfocal"](logits, target, gamma=gamma), (-((1 - q) ** gamma) * np.log(q)).mean(-1))
    if gamma == 0:
        close(LOSSES["mlfocal"](logits, target, gamma=gamma), LOSSES["bce"](logits, target))


# -- asymmetric loss ---------------------------------------------------------------------------------------------------


def asymmetric_form(z, y, gamma_neg, gamma_pos, margin):
    p = expit(z)
    shifted = np.maximum(p - margin, 0)
    return -(y * (1 - p) ** gamma_pos * np.log(p) + (1 - y) * shifted**gamma_neg * np.log(1 - shifted))


@pytest.mark.parametrize("given", [(4.0, 0.0, 0.05), (4.0, 1.0, 0.05), (2.0, 0.5, 0.2), (0.0, 0.0, 0.1)])
def test_asl_form(given):
    logits, target = batch()
    names = dict(zip(("gamma_neg", "gamma_pos", "margin"), given, strict=True))
    expected = asymmetric_form(logits.numpy(), target.numpy(), *given)
    close(LOSSES["asl"](logits, target, **names), expected.mean(-1))
    close(LOSSES["asl_script"](logits, target, **names), expected.sum())


def test_asl_special_cases():
    logits, target = batch()
    plain = LOSSES["asl"](logits, target, gamma_neg=0.0, gamma_pos=0.0, margin=0.0)
    close(plain, LOSSES["bce"](logits, target))
    even = LOSSES["asl"](logits, target, gamma_neg=2.0, gamma_pos=2.0, margin=0.0)
    close(even, LOSSES["mlfocal"](logits, target, gamma=2.0))


def test_asl_gradient_of_absent_labels():
    """p (1 - p) p_m^g [1 / (1 - p_m) - g / p_m log(1 - p_m)] above the margin, and exactly none below it."""
    logits = torch.linspace(-6, 6, 41, dtype=torch.float64)[:, None]
    p = logits.sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    inside = 1 / (1 - shifted) - 4 / shifted * torch.log(1 - shifted)
    expected = torch.where(shifted > 0, p * (1 - p) * shifted**4 * inside, 0.0)
    found = gradient(lambda z: LOSSES["asl"](z, torch.zeros_like(z)), logits)
    close(found, expected)
    below = p[:, 0] < 0.05
    assert below.sum() > 5
    assert (found[below] == 0).all()
    assert (LOSSES["asl"](logits, torch.zeros_like(logits))[below] == 0).all()


def test_asl_script_holds_its_weights():
    logits, target = batch()
    p = logits.sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    weight = torch.where(target == 1, (1 - p), shifted**4)
    slope = torch.where(target == 1, p - 1, p * (1 - p) / (1 - shifted) * (shifted > 0))
    found = gradient(lambda z: LOSSES["asl_script"](z, target, gamma_pos=1.0), logits)
    close(found, weight * slope)


def test_asl_adaptive_steps_towards_the_gap():
    logits, target = batch()
    p = logits.sigmoid()
    found_gap = p[target == 1].mean() - (1 - p)[target == 0].mean()
    state = torch.linspace(-1, 1, 8, dtype=torch.float64)
    for wanted in (-0.9, 0.9):
        _, moved = LOSSES["asl_adaptive"](logits, target, gap=wanted, rate=0.5, state=state)
        close(moved, state + 0.5 * (wanted - found_gap))
        assert ((moved > state) == (wanted > 0)).all()
    _, moved = LOSSES["asl_adaptive"](logits, target, gap=-0.9, rate=100.0, state=state)
    close(moved + 4, [0.0] * 8)  # gamma does not fall below 0
    _, moved = LOSSES["asl_adaptive"](logits, 0 * target, state=state)
    close(moved, state)


def test_asl_adaptive_uses_each_samples_gamma():
    logits, target = batch()
    state = torch.arange(8, dtype=torch.float64) - 3
    found, _ = LOSSES["asl_adaptive"](logits, target, state=state)
    for i in range(8):
        close(found[i], LOSSES["asl"](logits[i : i + 1], target[i : i + 1], gamma_neg=1.0 + i)[0])


def test_a_greater_gamma_raises_the_probabilities_where_the_loss_is_least():
    """What the direction of the adaptive step rests on: one label, present in 3 of 10 rows that look the same."""

    def best(gamma):
        logits = torch.linspace(-5, 5, 2001, dtype=torch.float64)[:, None]
        present = LOSSES["asl"](logits, torch.ones_like(logits), gamma_neg=gamma)
        absent = LOSSES["asl"](logits, torch.zeros_like(logits), gamma_neg=gamma)
        return logits[(0.3 * present + 0.7 * absent).argmin()].sigmoid().item()

    assert best(0.0) < best(1.0) < best(2.0) < best(4.0)


# -- distribution-balanced loss ----------------------------------------------------------------------------------------


def test_db_weights():
    _, target = batch(50)
    weights = rebalanced(target, COUNTS, 0.1, 10.0, 0.2)
    assert (weights > 0.1).all()
    assert (weights <= 1.1).all()
    inverse = 1 / np.maximum(COUNTS.numpy(), 1)
    ratio = inverse / (target[2:].numpy() * inverse).sum(-1, keepdims=True).clip(1e-12)
    close(weights[2:], 0.1 + expit(10 * (ratio - 0.2)))
    close(weights[0], [1.1] * LABELS)  # a row without labels


def test_db_form():
    logits, target = batch()
    z, y, n = logits.numpy(), target.numpy(), COUNTS.numpy().clip(1)
    shift = -0.05 * np.log(np.maximum(100 - COUNTS.numpy(), 1) / n) / 2
    moved = (z + shift) * np.where(y == 1, 1, 2)
    q = expit(np.where(y == 1, moved, -moved))
    weights = rebalanced(target, COUNTS, 0.1, 10.0, 0.2).numpy() / np.where(y == 1, 1, 2)
    expected = (2 * weights * (1 - q) ** 2 * -np.log(q)).mean(-1)
    close(LOSSES["db"](logits, target, counts=COUNTS, rows=ROWS), expected)


def test_db_without_its_parts_is_bce():
    """No focus, no shift, no scale, and weights (0.5 by beta = 0) that the factor of 2 makes 1."""
    logits, target = batch()
    off = {"alpha": 0.0, "beta": 0.0, "kappa": 0.0, "scale": 1.0, "gamma": 0.0}
    close(LOSSES["db"](logits, target, **off, counts=COUNTS, rows=ROWS), LOSSES["bce"](logits, target))


# -- dice --------------------------------------------------------------------------------------------------------------


def saturated(target):
    """Logits that predict the target for certain."""
    return 100 * (2 * target - 1)


def test_dice_bounds():
    _, target = batch(20)
    for name in ("dice", "dsc_script", "tversky"):
        assert LOSSES[name](saturated(target), target).item() == pytest.approx(0, abs=0.6 if "script" in name else 1e-9)
        worst = LOSSES[name](-saturated(target), target, smooth=1e-6)
        assert worst.item() == pytest.approx(1, abs=1e-6)
        for scale in (0.1, 1.0, 10.0):
            logits = scale * batch(20, seed=1)[0]
            assert 0 < LOSSES[name](logits, target) < 1


def test_dice_forms():
    logits, target = batch()
    p, y = expit(logits.numpy()), target.numpy()
    close(LOSSES["dice"](logits, target, smooth=0.5), 1 - (2 * (p * y).sum() + 0.5) / ((p**2).sum() + y.sum() + 0.5))
    faded = (1 - p) ** 0.3 * p
    expected = 1 - (2 * (faded * y).sum() + 0.5) / ((faded**2).sum() + y.sum() + 0.5)
    close(LOSSES["dsc_script"](logits, target, alpha=0.3, smooth=0.5), expected)
    close(LOSSES["dsc_script"](logits, target, alpha=0.0), LOSSES["dice"](logits, target))
    each = 1 - (2 * faded * y + 0.5) / (faded + y + 0.5)
    close(LOSSES["dsc"](logits, target, alpha=0.3, smooth=0.5), each.mean(-1))


def test_dsc_pulls_a_present_label_to_the_peak_of_its_factor():
    logits = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    for alpha in (0.5, 1.0, 2.0):
        least = LOSSES["dsc"](logits, torch.ones_like(logits), alpha=alpha).argmin()
        assert logits[least].sigmoid().item() == pytest.approx(1 / (1 + alpha), abs=0.003)
        slope = gradient(lambda z, a=alpha: LOSSES["dsc"](z, torch.zeros_like(z), alpha=a), logits)[:, 0]
        above = logits[:, 0].sigmoid() > 1 / (1 + alpha) + 0.003
        assert above.any()
        assert (slope[above] < 0).all()  # an absent label is pushed up there
        assert (slope[: least - 2] > 0).all()


def test_tversky_of_sure_predictions_is_the_index_of_counts():
    _, target = batch(30)
    guess = batch(30, seed=1)[1]
    tp = (guess * target).sum()
    fp, fn = (guess * (1 - target)).sum(), ((1 - guess) * target).sum()
    found = LOSSES["tversky"](saturated(guess), target, alpha=0.3, beta=0.7, smooth=1.0)
    close(found, 1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1))
    jaccard = LOSSES["tversky"](saturated(guess), target, alpha=1.0, beta=1.0, smooth=0.0)
    close(jaccard, fp.add(fn) / (tp + fp + fn))
    close(LOSSES["tversky"](saturated(guess), target, smooth=0.0), 1 - 2 * tp / (2 * tp + fp + fn))


# -- AnyLoss -----------------------------------------------------------------------------------------------------------


def geometric_mean(y, guess):
    return math.sqrt(guess[y == 1].mean() * (1 - guess[y == 0]).mean())


ANYLOSS = [  # loss, its hyperparameters, the metric of hard predictions
    ("anyloss_accuracy", {}, accuracy_score),
    ("anyloss_fbeta", {"beta": 1.0}, lambda y, guess: fbeta_score(y, guess, beta=1.0)),
    ("anyloss_fbeta", {"beta": 2.0}, lambda y, guess: fbeta_score(y, guess, beta=2.0)),
    ("anyloss_balanced", {}, balanced_accuracy_score),
    ("anyloss_gmean", {}, geometric_mean),
    ("anyloss_gmean_script", {}, lambda y, guess: geometric_mean(y, guess) ** 2),
]


@pytest.mark.parametrize(("name", "given", "metric"), ANYLOSS, ids=[f"{n}-{g}" for n, g, _ in ANYLOSS])
def test_anyloss_of_sure_predictions_is_the_metric(name, given, metric):
    """Up to the 1e-5 in denominators: counts here are 5 to 20, and the score of a label at most 1."""
    _, target = batch(40)
    guess = batch(40, seed=1)[1]
    expected = 1 - np.mean([metric(target[:, k].numpy(), guess[:, k].numpy()) for k in range(LABELS)])
    assert 0.1 < expected < 0.9
    found = LOSSES[name](saturated(guess), target, **given)
    assert found.item() == pytest.approx(expected, abs=2e-5)


def test_anyloss_accuracy_of_a_mild_amplifier():
    logits, target = batch()
    a = expit(3 * (expit(logits.numpy()) - 0.5))
    right = np.where(target == 1, a, 1 - a)
    close(LOSSES["anyloss_accuracy"](logits, target, amplifier=3.0), 1 - right.mean())


# -- surrogates of macro-AUC -------------------------------------------------------------------------------------------


def test_auc_pa_is_the_mean_over_pairs():
    """By loops over labels and pairs; one label is in no sample and one in all."""
    logits, target = batch(10)
    target[:, 0], target[:, 1] = 0, 1
    total = 0.0
    for k in range(LABELS):
        pairs = itertools.product(logits[target[:, k] == 1, k].tolist(), logits[target[:, k] == 0, k].tolist())
        values = [math.log1p(math.exp(b - a)) for a, b in pairs]
        total += np.mean(values) if values else 0.0
    assert LOSSES["auc_pa"](logits, target).item() == pytest.approx(total / LABELS, rel=1e-12)


def test_auc_u1_is_its_definition():
    logits, target = batch()
    expected = np.log1p(np.exp(-(2 * target.numpy() - 1) * logits.numpy())).mean(-1)
    close(LOSSES["auc_u1"](logits, target), expected)
    close(LOSSES["auc_u1"](logits, target), LOSSES["bce"](logits, target))


def test_auc_u2_is_its_definition_and_twice_wbce():
    logits, target = batch(12)
    each = entropy_form(logits.numpy(), target.numpy())
    sides = [np.mean(each[target[:, k] == y, k]) for k in range(LABELS) for y in (0, 1)]
    close(LOSSES["auc_u2"](logits, target), np.sum(sides) / LABELS)
    whole = LOSSES["wbce"](logits, target, counts=target.sum(0), rows=torch.tensor(12.0)).mean()
    close(LOSSES["auc_u2"](logits, target), 2 * whole)


def test_auc_surrogates_and_shifts_of_a_label():
    """Only pairs do not see a shift of all of a label's logits, as AUC does not."""
    logits, target = batch(12)
    shifted = logits + torch.arange(LABELS)
    close(LOSSES["auc_pa"](shifted, target), LOSSES["auc_pa"](logits, target))
    assert (LOSSES["auc_u2"](shifted, target) - LOSSES["auc_u2"](logits, target)).abs() > 0.1


# -- softmaxes and rankings --------------------------------------------------------------------------------------------


def test_softmaxes_of_one_label_are_cross_entropy():
    logits, _ = batch()
    label = torch.arange(8) % LABELS
    target = torch.eye(LABELS, dtype=torch.float64)[label]
    expected = -log_softmax(logits.numpy(), -1)[np.arange(8), label]
    for name in ("pal", "pal_n", "dsm"):
        close(LOSSES[name](logits, target), expected)


def test_softmaxes_of_several_labels():
    logits, target = batch()
    z, y = logits.numpy(), target.numpy()
    close(LOSSES["pal"](logits, target), -(y * log_softmax(z, -1)).sum(-1))
    close(LOSSES["pal_n"](logits, target), -(y * log_softmax(z, -1)).sum(-1) / y.sum(-1).clip(1))
    for i in range(8):
        own, rivals = z[i][y[i] == 1], z[i][y[i] == 0]
        values = [-a + np.log(np.exp(a) + np.exp(rivals).sum()) for a in own]
        assert LOSSES["dsm"](logits, target)[i].item() == pytest.approx(np.mean(values) if values else 0, abs=1e-12)


def test_labels_of_a_sample_compete_in_pal_and_not_in_dsm():
    logits = torch.tensor([[5.0, 0.0, -2.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    assert gradient(lambda z: LOSSES["pal"](z, target), logits)[0, 0] > 0.5
    assert gradient(lambda z: LOSSES["dsm"](z, target), logits)[0, 0] < 0


@pytest.mark.parametrize("k", [1.0, 2.5, 5.0])
def test_soft_top_sums_to_k(k):
    scores = batch(20, 9)[0].requires_grad_()
    sigma = log_soft_top(scores, k, 2.0).exp()
    close(sigma.sum(-1), [k] * 20, 1e-12)
    jacobian = torch.stack([torch.autograd.grad(sigma[0, j], scores, retain_graph=True)[0][0] for j in range(9)])
    close(jacobian.sum(1), [0.0] * 9, 1e-12)  # no score moves the sum, and a shift of all changes nothing
    close(jacobian.sum(0), [0.0] * 9, 1e-12)
    v = 2 * (sigma[0] * (1 - sigma[0])).detach()
    close(jacobian, torch.diag(v) - torch.outer(v, v) / v.sum(), 1e-9)


def test_soft_top_of_a_steep_slope_marks_the_top():
    scores = batch(20, 9)[0]
    top = torch.zeros_like(scores).scatter(1, scores.topk(3).indices, 1.0)
    close(log_soft_top(scores, 3.0, 1e4).exp(), top, 1e-6)


def test_stk_takes_the_mean_over_present_labels():
    logits, target = batch(labels=9)
    expected = -(target * log_soft_top(logits, 5.0, 2.0)).sum(-1) / target.sum(-1).clamp(min=1)
    close(LOSSES["stk"](logits, target, k=5.0), expected)
    assert LOSSES["stk"](logits, target, k=5.0)[0] == 0
    few = logits[:, :4], target[:, :4]
    close(LOSSES["stk"](*few, k=5.0), LOSSES["stk"](*few, k=3.0))


def test_stk_cuts_after_as_many_labels_as_are_present():
    """One present label is asked to be the first; with k = 5 of 6 labels to be among the first five."""
    logits, target = batch(labels=6)
    found, count = LOSSES["stk"](logits, target), target.sum(-1)
    for k in range(1, 6):
        close(found[count == k], LOSSES["stk"](logits, target, k=float(k))[count == k])
    assert found[count == 0].eq(0).all()
    close(found[count == 6], LOSSES["stk"](logits, target, k=5.0)[count == 6])
    one = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]).double(), torch.tensor([[1.0, 0, 0, 0, 0, 0]]).double()
    assert LOSSES["stk"](*one) > 5
    assert LOSSES["stk"](*one, k=5.0) < 1.5


def test_soft_sort_of_a_low_temperature_is_the_permutation():
    scores = batch(20, 9)[0]
    found = soft_sort(scores, 1e-4)
    order = scores.argsort(-1, descending=True)
    close(found, torch.nn.functional.one_hot(order, 9), 1e-6)


def test_scaling_makes_rows_and_columns_sum_to_one():
    """By dividing the matrix itself, as the definition says; rows come last, columns near."""
    matrix = expected = soft_sort(batch(20, 9)[0], 1.0)
    for _ in range(SCALINGS):
        expected = expected / expected.sum(-2, keepdim=True)
        expected = expected / expected.sum(-1, keepdim=True)
    found = doubly_stochastic(matrix)
    close(found, expected, 1e-12)
    close(found.sum(-1), np.ones((20, 9)), 1e-12)
    close(found.sum(-2), np.ones((20, 9)), 0.02)
    assert (matrix.sum(-2) - 1).abs().max() > 0.2


def test_neural_ndcg_at_a_low_temperature_is_ndcg():
    logits, target = batch(20, 9)
    found = LOSSES["neural_ndcg"](logits, target, temperature=1e-4)
    for i in range(1, 20):
        expected = 1 - ndcg_score(target[i : i + 1].numpy(), logits[i : i + 1].numpy())
        assert found[i].item() == pytest.approx(expected, abs=1e-6)
    assert found[0] == 0  # no label


def test_pairwise_sigmoid_learns_scale_and_shift():
    logits, target = batch()
    learned = torch.tensor([0.3, -1.2], dtype=torch.float64)
    expected = entropy_form(math.exp(0.3) * logits.numpy() - 1.2, target.numpy()).mean(-1)
    close(LOSSES["pairwise_sigmoid"](logits, target, learned=learned), expected)
    plain = LOSSES["pairwise_sigmoid"](logits, target, learned=torch.zeros(2).double())
    close(plain, LOSSES["bce"](logits, target))
    assert catalogue("multilabel")["pairwise_sigmoid"].learned(LABELS, None).tolist() == pytest.approx([2.302585, -10])


# -- single positive labels --------------------------------------------------------------------------------------------


def log_form(p):
    return -np.log(p + 1e-5)


def single():
    """Logits, targets with at most one label a row, and what is observed: those labels and some absent ones."""
    logits, target = batch()
    one = torch.nn.functional.one_hot(torch.arange(8) % LABELS, LABELS).double() * target.clone()
    seen = torch.maximum(one, torch.roll(one, 2, 1) * (1 - target))
    assert 0 < one.sum() < seen.sum()
    return logits, one, seen


def parts():
    logits, one, seen = single()
    p, y, o = expit(logits.numpy()), one.numpy(), seen.numpy()
    return (logits, one, seen), (p, y, o), (log_form(p), log_form(1 - p))


def test_assume_negative_forms():
    (logits, one, seen), (_, y, o), (present, absent) = parts()
    close(LOSSES["an"](logits, one), (y * present + (1 - y) * absent).mean(-1))
    smoothed = y * (0.9 * present + 0.1 * absent) + (1 - y) * (0.9 * absent + 0.1 * present)
    close(LOSSES["an_ls"](logits, one), smoothed.mean(-1))
    close(LOSSES["an_ls"](logits, one, smoothing=0.0), LOSSES["an"](logits, one))
    weighted = y * present + (1 - y) * absent * np.where(o == 1, 1, 1 / (LABELS - 1))
    close(LOSSES["wan"](logits, one, observed=seen), weighted.mean(-1))
    close(LOSSES["iu"](logits, one, observed=seen), (y * present + (o - y) * absent).mean(-1))


def test_wan_of_two_labels_is_an():
    logits, one, _ = single()
    close(LOSSES["wan"](logits[:, :2], one[:, :2], observed=one[:, :2]), LOSSES["an"](logits[:, :2], one[:, :2]))


@pytest.mark.parametrize("name", ["wan", "iu", "em"])
def test_everything_known_leaves_cross_entropy(name):
    logits, target = batch()
    found = LOSSES[name](logits, target, observed=torch.ones_like(target))
    close(found, LOSSES["an"](logits, target))
    close(found, LOSSES["bce"](logits, target), 1e-2)


def test_spml_rank_form():
    (logits, one, _), (p, y, _), _ = parts()
    for i in range(8):
        pairs = itertools.product(p[i][y[i] == 1], p[i][y[i] == 0])
        expected = sum(max(0.0, 1 - a + b) for a, b in pairs) / LABELS
        assert LOSSES["spml_rank"](logits, one)[i].item() == pytest.approx(expected, abs=1e-12)


def test_epr_form():
    (logits, one, seen), (p, y, o), (present, absent) = parts()
    known = (y * present + (o - y) * absent).mean()
    excess = (p.sum(1).mean() - 1.3) / LABELS
    found = LOSSES["epr"](logits, one, weight=2.0, observed=seen, cardinality=torch.tensor(1.3, dtype=torch.float64))
    close(found, known + 2 * excess**2)


def test_role_form():
    (logits, one, seen), (p, y, o), (present, absent) = parts()
    state = torch.randn(8, LABELS, generator=torch.Generator().manual_seed(3)).double()
    k = torch.tensor(1.3, dtype=torch.float64)
    found, _ = LOSSES["role"](logits, one, observed=seen, cardinality=k, state=state)
    phi = expit(state.numpy() + np.log(0.995 / 0.005) * (y - (o - y)))
    cross = y * present + phi * present + (1 - phi) * absent
    close(found, cross.mean() / 2 + ((p.sum(1).mean() - 1.3) / LABELS) ** 2 / 2)


def test_role_moves_the_estimates_down_their_gradient():
    (logits, one, seen), (p, y, o), _ = parts()
    k = torch.tensor(1.3, dtype=torch.float64)
    state = torch.randn(8, LABELS, generator=torch.Generator().manual_seed(3)).double()
    _, moved = LOSSES["role"](logits, one, step=0.7, observed=seen, cardinality=k, state=state)
    offset = torch.from_numpy(math.log(0.995 / 0.005) * (2 * y - o))

    def objective(s):
        phi = torch.sigmoid(s + offset)
        inside, outside = -(phi + 1e-5).log(), -(1 - phi + 1e-5).log()
        cross = (one + torch.from_numpy(p)) * inside + (1 - torch.from_numpy(p)) * outside
        return cross.mean() / 2 + ((phi.sum(1).mean() - k) / LABELS) ** 2 / 2

    close(moved, state - 0.7 * 8 * LABELS * gradient(objective, state))


def test_role_estimates_follow_a_sure_network():
    """Visited often beside fixed predictions, estimates end near them, with as many labels as were told."""
    sure = torch.tensor([[4.0, -4.0, 4.0, -4.0]], dtype=torch.float64).repeat(5, 1)
    one = torch.zeros_like(sure)
    one[:, 0] = 1
    state = torch.zeros_like(sure)
    for _ in range(200):
        _, state = LOSSES["role"](sure, one, observed=one, cardinality=torch.tensor(2.0), state=state)
    phi = torch.sigmoid(state + math.log(0.995 / 0.005) * one)
    assert (phi[:, [0, 2]] > 0.9).all()
    assert (phi[:, [1, 3]] < 0.1).all()


def test_em_form_and_gradient():
    (logits, one, seen), (p, y, o), (present, absent) = parts()
    entropy = p * present + (1 - p) * absent
    each = np.where(o == 1, y * present + (1 - y) * absent, -0.3 * entropy)
    close(LOSSES["em"](logits, one, alpha=0.3, observed=seen), each.mean(-1))
    slope = LABELS * gradient(lambda z: LOSSES["em"](z, one, alpha=0.3, observed=seen), logits)
    unknown = seen == 0
    p = logits.sigmoid()
    close(slope[unknown], (0.3 * p * (1 - p) * logits)[unknown], 1e-3)  # up to the 1e-5 in logarithms


def apl(logits, one, seen, state, progress, **given):
    return LOSSES["em_apl"](logits, one, observed=seen, state=state, progress=torch.tensor(progress), **given)


def test_em_apl_is_em_before_its_warmup():
    logits, one, seen = single()
    found, state = apl(logits, one, seen, torch.zeros_like(one), 0.4)
    close(found, LOSSES["em"](logits, one, observed=seen))
    assert (state == 0).all()


def test_em_apl_chooses_the_lowest_of_each_label():
    """At 0.7 of the training, half of the way from 0.4 to 1: half of theta, of those unknown in the batch."""
    logits, _ = batch(20)
    one, theta = torch.zeros(20, LABELS).double(), 0.8
    seen = one.clone()
    seen[:4] = 1
    state, chosen = one, None
    for progress, share in ((0.7, 0.4), (0.7, 0.4), (1.0, 0.8)):
        before = state
        _, state = apl(logits, one, seen, state, progress, theta=theta)
        wanted = math.floor(round(share * 16, 6))
        unknown = torch.where(seen == 0, logits, torch.inf)
        chosen = torch.zeros_like(one).scatter(0, unknown.argsort(0)[:wanted], 1.0)
        assert torch.equal((state < 0).double(), chosen)
        kept = before < 0
        assert torch.equal(state[kept], before[kept])  # a pseudo-label stays what it was
    close(-state[chosen == 1], logits[chosen == 1].sigmoid())


def test_em_apl_values_a_pseudo_label_by_its_probability():
    (logits, one, seen), _, (present, absent) = parts()
    state = -0.2 * (1 - seen)
    state[:, 0] = 0
    found, _ = apl(logits, one, seen, state, 0.9, beta=0.7, alpha=0.3)
    plain = LOSSES["em"](logits, one, alpha=0.3, observed=seen)
    each = 0.7 * (0.2 * present + 0.8 * absent)
    p = expit(logits.numpy())
    gone = -0.3 * (p * present + (1 - p) * absent)
    chosen = (state < 0).numpy()
    close(found, plain.numpy() + (chosen * (each - gone)).mean(-1))

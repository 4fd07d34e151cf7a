"""Losses against independent closed forms, their limits and their identities, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from reference.losses.ldr import robust_margin
from reference.losses.log_taylor_softmax import taylor_softmax
from reference.losses.smce import stablemax
from reference.methods import catalogue
from reference.softmax import log_softmax, pick, target_log_softmax
from reference.softmax import softmax as probabilities

LOSSES = {key: method.function for key, method in catalogue("loss").items()}
CLASSES = 5


def batch(n=8, classes=CLASSES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


# -- closed forms: functions of the scores z (C,) and the label y, written with numpy from the papers ------------------


def focal_form(p, gamma):
    return -((1 - p) ** gamma) * np.log(p)


def gce_form(p, q):
    return (1 - p**q) / q


def nce_form(z, y):
    return np.log(softmax(z)[y]) / np.log(softmax(z)).sum()


def nfl_form(z, y, gamma):
    return focal_form(softmax(z), gamma)[y] / focal_form(softmax(z), gamma).sum()


def rce_form(z, y):
    clipped = np.clip(np.eye(len(z))[y], 1e-4, 1)
    return -(softmax(z) * np.log(clipped)).sum()


def agce_form(z, y, a, q):
    return ((a + 1) ** q - (a + softmax(z)[y]) ** q) / q


def aul_form(z, y, a, q):
    return ((a - softmax(z)[y]) ** q - (a - 1) ** q) / q


def js_form(z, y, w):
    label, p = np.eye(len(z))[y], softmax(z)
    middle = w * label + (1 - w) * p
    divergence = w * rel_entr(label, middle).sum() + (1 - w) * rel_entr(p, middle).sum()
    return divergence / (-(1 - w) * np.log(1 - w))


def rll_form(z, y, alpha):
    p = softmax(z)
    others = np.log(alpha + np.delete(p, y)).mean()
    return np.log((alpha + 1) / alpha) - np.log(alpha + p[y]) + others


def rll_ldr_form(z, y, alpha):
    inside = [alpha + np.exp((0 if k == y else z[k]) - z.sum()) for k in range(len(z))]
    return -np.log(alpha + softmax(z)[y]) + np.log(sum(inside)) / (len(z) - 1)


def anl_form(z, y, a, q):
    distance = np.abs(a * np.eye(len(z))[y] - softmax(z))
    return ((distance**q).sum() - (a - 1) ** q) / q


def share(form, z, y, **hyperparameters):
    """A loss divided by its sum over all labels."""
    return form(z, y, **hyperparameters) / sum(form(z, k, **hyperparameters) for k in range(len(z)))


def mae_form(z, y):
    return np.abs(np.eye(len(z))[y] - softmax(z)).sum()


def sce_form(z, y, alpha, beta):
    return -alpha * np.log(softmax(z)[y]) + beta * rce_form(z, y)


def ngce_form(z, y, q):
    return gce_form(softmax(z), q)[y] / gce_form(softmax(z), q).sum()


def tce_form(z, y, t):
    return sum((1 - softmax(z)[y]) ** j / j for j in range(1, t + 1))


def zloss_form(z, y, a, b):
    return np.log(1 + np.exp(a * (b - (z[y] - z.mean()) / z.std()))) / a


def taylor_form(z):
    return (1 + z + z**2 / 2) / (1 + z + z**2 / 2).sum()


def stablemax_form(z):
    s = np.array([v + 1 if v >= 0 else 1 / (1 - v) for v in z])
    return s / s.sum()


def margins(z, y, m):
    return z - z[y] + m * (np.arange(len(z)) != y)


def soft_maximum(deltas, temperature):
    return temperature * np.log(np.exp(deltas / temperature).mean())


def ldr_form(z, y, temperature, margin):
    f = np.log1p(np.exp(z))
    return soft_maximum(margins(f / f.mean(), y, margin), temperature)


CLOSED_FORMS = [
    ("ce", {}, lambda z, y: -np.log(softmax(z)[y])),
    ("mae", {}, mae_form),
    ("mse", {}, lambda z, y: ((np.eye(len(z))[y] - softmax(z)) ** 2).sum()),
    ("gce", {"q": 0.3}, lambda z, y, q: gce_form(softmax(z)[y], q)),
    ("rce", {}, rce_form),
    ("sce", {"alpha": 0.3, "beta": 2.0}, sce_form),
    ("sce_ldr", {"b": 0.3}, lambda z, y, b: -(1 - b) * np.log(softmax(z)[y]) + b * 4 * (1 - softmax(z)[y])),
    ("nce", {}, nce_form),
    ("nfl", {"gamma": 1.7}, nfl_form),
    ("ngce", {"q": 0.4}, ngce_form),
    ("nsce", {"alpha": 0.3, "beta": 2.0}, lambda z, y, **given: share(sce_form, z, y, **given)),
    ("nmae", {}, lambda z, y: share(mae_form, z, y)),
    ("nrce", {}, lambda z, y: share(rce_form, z, y)),
    ("nrce_apl", {}, lambda z, y: 1 / 4 * (len(z) - 1) * rce_form(z, y)),
    ("focal", {"gamma": 1.7}, lambda z, y, gamma: focal_form(softmax(z)[y], gamma)),
    ("js", {"weight": 0.3}, lambda z, y, weight: js_form(z, y, weight)),
    ("rll", {"alpha": 0.4}, rll_form),
    ("rll_ldr", {"alpha": 0.4}, rll_ldr_form),
    ("comp", {"tau": 0.0}, lambda z, y, tau: np.delete(np.exp(z - z[y]), y).sum()),
    ("comp", {"tau": 0.5}, lambda z, y, tau: 2 * (np.sqrt(1 + np.delete(np.exp(z - z[y]), y).sum()) - 1)),
    ("agce", {"a": 0.7, "q": 1.3}, agce_form),
    ("aul", {"a": 3.0, "q": 0.4}, aul_form),
    ("ael", {"a": 1.9}, lambda z, y, a: np.exp(-softmax(z)[y] / a)),
    ("anl", {"a": 1.3, "q": 0.6}, anl_form),
    ("anl", {"a": 4.0, "q": 2.5}, anl_form),
    ("sqen", {}, lambda z, y: -np.log(softmax(z)[y]) + (np.delete(z, y) ** 2).mean()),
    ("rsq", {"k": 3.0, "m": 2.0}, lambda z, y, k, m: (k * (z[y] - m) ** 2 + (np.delete(z, y) ** 2).sum()) / len(z)),
    ("poly1", {"epsilon": -0.4}, lambda z, y, epsilon: -np.log(softmax(z)[y]) + epsilon * (1 - softmax(z)[y])),
    ("tce", {"t": 4}, tce_form),
    ("tce", {"t": 20}, tce_form),
    ("tce", {"t": 2.75}, lambda z, y, t: 0.25 * tce_form(z, y, 2) + 0.75 * tce_form(z, y, 3)),
    ("zloss", {"a": 1.7, "b": 0.6}, zloss_form),
    ("log_taylor_softmax", {}, lambda z, y: -np.log(taylor_form(z)[y])),
    ("smce", {}, lambda z, y: -np.log(stablemax_form(z)[y])),
    ("cs", {"margin": 1.5}, lambda z, y, margin: max(margins(z, y, margin).max(), 0)),
    ("ww", {"margin": 1.5}, lambda z, y, margin: sum(max(0, margin + z[k] - z[y]) for k in range(len(z)) if k != y)),
    ("ldr", {"temperature": 0.7, "margin": 0.2}, ldr_form),
    (
        "nce_mae",
        {"alpha": 2.0, "beta": 3.0},
        lambda z, y, alpha, beta: alpha * nce_form(z, y) + beta * (1 - softmax(z)[y]),
    ),
    (
        "nce_rce",
        {"alpha": 2.0, "beta": 3.0},
        lambda z, y, alpha, beta: alpha * nce_form(z, y) + beta * rce_form(z, y),
    ),
    (
        "nfl_mae",
        {"alpha": 2.0, "beta": 3.0, "gamma": 0.8},
        lambda z, y, alpha, beta, gamma: alpha * nfl_form(z, y, gamma) + beta * (1 - softmax(z)[y]),
    ),
    (
        "nfl_rce",
        {"alpha": 2.0, "beta": 3.0, "gamma": 0.8},
        lambda z, y, alpha, beta, gamma: alpha * nfl_form(z, y, gamma) + beta * rce_form(z, y),
    ),
    (
        "ngce_mae",
        {"alpha": 2.0, "beta": 3.0, "q": 0.4},
        lambda z, y, alpha, beta, q: alpha * ngce_form(z, y, q) + beta * (1 - softmax(z)[y]),
    ),
    (
        "ngce_rce",
        {"alpha": 2.0, "beta": 3.0, "q": 0.4},
        lambda z, y, alpha, beta, q: alpha * ngce_form(z, y, q) + beta * rce_form(z, y),
    ),
    (
        "gce_mae",
        {"alpha": 2.0, "beta": 3.0, "q": 0.4},
        lambda z, y, alpha, beta, q: alpha * gce_form(softmax(z)[y], q) + beta * (1 - softmax(z)[y]),
    ),
    (
        "gce_rce",
        {"alpha": 2.0, "beta": 3.0, "q": 0.4},
        lambda z, y, alpha, beta, q: alpha * gce_form(softmax(z)[y], q) + beta * rce_form(z, y),
    ),
    (
        "nce_ael",
        {"alpha": 2.0, "beta": 3.0, "a": 1.9},
        lambda z, y, alpha, beta, a: alpha * nce_form(z, y) + beta * np.exp(-softmax(z)[y] / a),
    ),
    (
        "nce_agce",
        {"alpha": 2.0, "beta": 3.0, "a": 0.5, "q": 1.2},
        lambda z, y, alpha, beta, a, q: alpha * nce_form(z, y) + beta * agce_form(z, y, a, q),
    ),
    (
        "nce_aul",
        {"alpha": 2.0, "beta": 3.0, "a": 1.5, "q": 1.2},
        lambda z, y, alpha, beta, a, q: alpha * nce_form(z, y) + beta * aul_form(z, y, a, q),
    ),
]


@pytest.mark.parametrize(("name", "hyperparameters", "form"), CLOSED_FORMS, ids=[case[0] for case in CLOSED_FORMS])
def test_closed_form(name, hyperparameters, form):
    logits, target = batch()
    found = LOSSES[name](logits, target, **hyperparameters)
    close(found, [form(z, y, **hyperparameters) for z, y in zip(logits.numpy(), target.tolist(), strict=True)])


# Four equal logits (p = 1/4), then p = (1/2, 1/4, 1/8, 1/8) with the label first: worked out by hand.
BY_HAND = [
    ("ce", {}, math.log(4), math.log(2)),
    ("mae", {}, 1.5, 1.0),
    ("mse", {}, 0.75, 0.25 + 1 / 16 + 2 / 64),
    ("gce", {"q": 0.5}, 1.0, 2 - math.sqrt(2)),
    ("rce", {}, 3 * math.log(10), 2 * math.log(10)),
    ("nce", {}, 1 / 4, 1 / 9),
    ("focal", {"gamma": 2.0}, 9 / 16 * math.log(4), 1 / 4 * math.log(2)),
    ("nfl", {"gamma": 1.0}, 1 / 4, (1 / 2) / (1 / 2 + 3 / 2 + 21 / 4)),
    ("ngce", {"q": 1.0}, 1 / 4, 1 / 6),
    ("nmae", {}, 1 / 4, 1 / 6),
    ("nrce", {}, 1 / 4, 1 / 6),
    ("nrce_apl", {}, 9 / 4 * math.log(10), 3 / 2 * math.log(10)),
    ("rll", {"alpha": 1.0}, math.log(2), math.log(4 / 3) + math.log(5 / 4 * 9 / 8 * 9 / 8) / 3),
    ("comp", {"tau": 0.0}, 3.0, 1.0),
    ("comp", {"tau": 1.5}, 1.0, 2 - math.sqrt(2)),
    ("agce", {"a": 1.0, "q": 2.0}, (4 - 25 / 16) / 2, (4 - 9 / 4) / 2),
    ("aul", {"a": 2.0, "q": 2.0}, (49 / 16 - 1) / 2, (9 / 4 - 1) / 2),
    ("ael", {"a": 0.25}, math.exp(-1), math.exp(-2)),
    ("anl", {"a": 2.0, "q": 2.0}, (49 / 16 + 3 / 16 - 1) / 2, (9 / 4 + 1 / 16 + 2 / 64 - 1) / 2),
    ("poly1", {"epsilon": 2.0}, math.log(4) + 3 / 2, math.log(2) + 1),
    ("tce", {"t": 3.0}, 3 / 4 + 9 / 32 + 9 / 64, 1 / 2 + 1 / 8 + 1 / 24),
    ("gce_mae", {"alpha": 1.0, "beta": 2.0, "q": 0.5}, 1 + 3 / 2, 3 - math.sqrt(2)),
    ("cs", {"margin": 1.0}, 1.0, 1 - math.log(2)),
    ("ww", {"margin": 1.0}, 3.0, 1 - math.log(2)),
    ("cs", {"margin": 0.5}, 0.5, 0.0),
    ("ww", {"margin": 0.5}, 1.5, 0.0),
    ("nce_mae", {"alpha": 1.0, "beta": 2.0}, 1.75, 1 / 9 + 1),
]


@pytest.mark.parametrize(("name", "hyperparameters", "uniform", "halves"), BY_HAND, ids=[case[0] for case in BY_HAND])
def test_by_hand(name, hyperparameters, uniform, halves):
    logits = torch.tensor([[0.0] * 4, [math.log(p) for p in (1 / 2, 1 / 4, 1 / 8, 1 / 8)]], dtype=torch.float64)
    close(LOSSES[name](logits, torch.zeros(2, dtype=torch.long), **hyperparameters), [uniform, halves])


def test_even_jensen_shannon_is_that_of_scipy():
    logits, target = batch()
    pairs = zip(logits.numpy(), target.tolist(), strict=True)
    expected = [jensenshannon(np.eye(CLASSES)[y], softmax(z)) ** 2 / (0.5 * math.log(2)) for z, y in pairs]
    close(LOSSES["js"](logits, target, weight=0.5), expected)


# -- softmax ----------------------------------------------------------------------------------------------------------


def test_softmax_functions_agree_with_torch():
    logits, target = batch()
    for scale in (1.0, 50.0, 1e4):
        expected = torch.log_softmax(scale * logits, -1)
        close(log_softmax(scale * logits), expected)
        close(probabilities(scale * logits), expected.exp())
        close(target_log_softmax(scale * logits, target), pick(expected, target))


# -- identities and limits --------------------------------------------------------------------------------------------

LIMITS = [
    ("gce", {"q": 1e-7}, "ce", {}, 1.0, 1e-5),
    ("gce", {"q": 1.0}, "mae", {}, 0.5, 1e-12),
    ("comp", {"tau": 1.0}, "ce", {}, 1.0, 1e-15),
    ("comp", {"tau": 1 - 1e-7}, "ce", {}, 1.0, 1e-5),
    ("comp", {"tau": 1 + 1e-7}, "ce", {}, 1.0, 1e-5),
    ("comp", {"tau": 1.6}, "gce", {"q": 0.6}, 1.0, 1e-12),
    ("comp", {"tau": 2.0}, "mae", {}, 0.5, 1e-12),
    ("focal", {"gamma": 0.0}, "ce", {}, 1.0, 1e-12),
    ("nfl", {"gamma": 0.0}, "nce", {}, 1.0, 1e-12),
    ("ngce", {"q": 1e-7}, "nce", {}, 1.0, 1e-5),
    ("js", {"weight": 1e-7}, "ce", {}, 1.0, 1e-4),
    ("js", {"weight": 1 - 1e-9}, "mae", {}, 0.5, 0.1),  # the error falls like 1 / log(1 - weight)
    ("rce", {}, "mae", {}, -math.log(1e-4) / 2, 1e-12),
    ("sce", {"alpha": 1.0, "beta": 0.0}, "ce", {}, 1.0, 1e-12),
    ("sce_ldr", {"b": 0.25}, "sce", {"alpha": 0.75, "beta": -1.0 / math.log(1e-4)}, 1.0, 1e-12),
    ("agce", {"a": 0.0, "q": 0.7}, "gce", {"q": 0.7}, 1.0, 1e-12),
    ("aul", {"a": 3.0, "q": 1.0}, "mae", {}, 0.5, 1e-12),
    ("anl", {"a": 1.3, "q": 1.0}, "mae", {}, 1.0, 1e-12),
    ("anl", {"a": 5.0, "q": 1.0}, "mae", {}, 1.0, 1e-12),
    ("nsce", {"alpha": 0.7, "beta": 0.0}, "nce", {}, 1.0, 1e-12),
    ("nsce", {"alpha": 0.0, "beta": 0.7}, "nrce", {}, 1.0, 1e-12),
    ("nsce", {"alpha": 6.0, "beta": 0.1}, "nsce", {"alpha": 60.0, "beta": 1.0}, 1.0, 1e-12),
    ("nrce", {}, "nmae", {}, 1.0, 1e-12),
    ("nrce_apl", {}, "nrce", {}, -math.log(1e-4) * (CLASSES - 1) ** 2 / 4, 1e-12),
    ("ngce_mae", {"alpha": 1.0, "beta": 0.0, "q": 0.3}, "ngce", {"q": 0.3}, 1.0, 1e-12),
    ("ngce_mae", {"alpha": 2.0, "beta": 3.0, "q": 1e-7}, "nce_mae", {"alpha": 2.0, "beta": 3.0}, 1.0, 1e-5),
    ("ngce_rce", {"alpha": 2.0, "beta": 3.0, "q": 1e-7}, "nce_rce", {"alpha": 2.0, "beta": 3.0}, 1.0, 1e-5),
    ("gce_mae", {"alpha": 3.0, "beta": 0.0, "q": 0.3}, "gce", {"q": 0.3}, 3.0, 1e-12),
    ("gce_mae", {"alpha": 0.0, "beta": 3.0}, "mae", {}, 1.5, 1e-12),
    ("gce_rce", {"alpha": 0.0, "beta": 3.0}, "rce", {}, 3.0, 1e-12),
    ("nce_ael", {"alpha": 2.0, "beta": 0.0}, "nce", {}, 2.0, 1e-12),
    ("nce_ael", {"alpha": 0.0, "beta": 2.0, "a": 1.5}, "ael", {"a": 1.5}, 2.0, 1e-12),
    ("poly1", {"epsilon": 0.0}, "ce", {}, 1.0, 1e-12),
    ("tce", {"t": 1.0}, "mae", {}, 0.5, 1e-12),
    ("tce", {"t": 25.0}, "tce", {"t": 20.0}, 1.0, 1e-15),
]


@pytest.mark.parametrize(
    ("name", "given", "other", "others", "factor", "tolerance"), LIMITS, ids=[f"{c[0]}-{c[2]}" for c in LIMITS]
)
def test_limit(name, given, other, others, factor, tolerance):
    """The loss is another one, or tends to it, in value and gradient."""
    logits, target = batch()

    def expected(z):
        return factor * LOSSES[other](z, target, **others)

    close(LOSSES[name](logits, target, **given), expected(logits), tolerance)
    close(gradient(lambda z: LOSSES[name](z, target, **given), logits), gradient(expected, logits), tolerance)


SYMMETRY_SUMS = [
    ("nce", {}, 1.0),
    ("nfl", {"gamma": 0.5}, 1.0),
    ("ngce", {"q": 0.3}, 1.0),
    ("mae", {}, 2 * (CLASSES - 1)),
    ("rce", {}, 9.210340371976184 * (CLASSES - 1)),
    ("rll", {"alpha": 0.3}, CLASSES * math.log(1.3 / 0.3)),
    ("nce_mae", {"alpha": 2.0, "beta": 3.0}, 2.0 + 3.0 * (CLASSES - 1)),
    ("nsce", {"alpha": 0.3, "beta": 2.0}, 1.0),
    ("nmae", {}, 1.0),
    ("nrce", {}, 1.0),
    ("nrce_apl", {}, 9.210340371976184 * (CLASSES - 1) ** 2 / 4),
    ("ngce_mae", {"alpha": 2.0, "beta": 3.0}, 2.0 + 3.0 * (CLASSES - 1)),
    ("ngce_rce", {"alpha": 2.0, "beta": 3.0}, 2.0 + 3.0 * 9.210340371976184 * (CLASSES - 1)),
]


@pytest.mark.parametrize(("name", "hyperparameters", "total"), SYMMETRY_SUMS, ids=[case[0] for case in SYMMETRY_SUMS])
def test_sum_over_labels(name, hyperparameters, total):
    logits, _ = batch()
    found = sum(LOSSES[name](logits, torch.full((8,), y), **hyperparameters) for y in range(CLASSES))
    close(found, [total] * 8)


def test_gce_sum_over_labels_lies_between_its_bounds():
    logits, _ = batch(200)
    for q in (0.2, 0.7):
        found = sum(LOSSES["gce"](logits, torch.full((200,), y), q=q) for y in range(CLASSES))
        assert (found >= (CLASSES - CLASSES ** (1 - q)) / q - 1e-9).all()
        assert (found <= (CLASSES - 1) / q + 1e-9).all()


NO_SHIFT = {"ldr", "aldr", "rll_ldr", "sqen", "rsq", "log_taylor_softmax", "smce", "ebv"}  # they use logits themselves
PLAIN = {
    m.id
    for m in catalogue("loss").values()
    if set(m.supplied) <= {"state", "progress"} and not m.correction and not m.batchwise
}


@pytest.mark.parametrize("name", sorted(PLAIN - NO_SHIFT))
def test_gradient_sums_to_zero_over_classes(name):
    """A loss that a common shift of the logits does not change."""
    logits, target = batch()
    given = {"state": torch.ones(8), "progress": torch.tensor(0.0)} if name == "tgce" else {}

    def function(z):
        found = LOSSES[name](z, target, **given)
        return found[0] if given else found

    slope = gradient(function, logits)
    assert slope.abs().max() > 1e-3
    close(slope.sum(-1), [0.0] * 8)


WEIGHTS = [
    ("mae", {}, lambda p: 2 * p),
    ("gce", {"q": 0.7}, lambda p: p**0.7),
    ("focal", {"gamma": 2.0}, lambda p: (1 - p) ** 2 - 2 * p * (1 - p) * p.log()),
    ("comp", {"tau": 0.0}, lambda p: 1 / p),
    ("comp", {"tau": 1.0}, torch.ones_like),
    ("comp", {"tau": 1.7}, lambda p: p**0.7),
    ("agce", {"a": 0.6, "q": 0.6}, lambda p: p * (0.6 + p) ** -0.4),
    ("aul", {"a": 5.5, "q": 3.0}, lambda p: p * (5.5 - p) ** 2),
    ("ael", {"a": 2.5}, lambda p: p / 2.5 * torch.exp(-p / 2.5)),
    ("poly1", {"epsilon": 1.5}, lambda p: 1 + 1.5 * p),
    ("poly1", {"epsilon": -1.0}, lambda p: 1 - p),
    ("tce", {"t": 3.0}, lambda p: 1 - (1 - p) ** 3),
    ("gce_mae", {"alpha": 2.0, "beta": 3.0, "q": 0.7}, lambda p: 2 * p**0.7 + 3 * p),
]


@pytest.mark.parametrize(("name", "hyperparameters", "weight"), WEIGHTS, ids=[case[0] for case in WEIGHTS])
def test_gradient_weight(name, hyperparameters, weight):
    """A loss of p_y alone has the gradient w(p_y) (p - one-hot)."""
    logits, target = batch()
    p = torch.softmax(logits, -1)
    expected = weight(pick(p, target))[:, None] * (p - torch.eye(CLASSES, dtype=torch.float64)[target])
    close(gradient(lambda z: LOSSES[name](z, target, **hyperparameters), logits), expected)


def test_comp_is_continued_by_its_tangent():
    """Where the sum-exponential would overflow, value and slope go on without a jump, and the slope stays."""
    gaps = torch.tensor([29.9999999, 30.0000001, 1000.0], dtype=torch.float64)
    logits, target = torch.stack([gaps, 0 * gaps], -1), torch.ones(3, dtype=torch.long)  # -log p_y is the gap
    found = LOSSES["comp"](logits, target, tau=0.0)
    slope = gradient(lambda z: LOSSES["comp"](z, target, tau=0.0), logits)[:, 0]
    assert found[1] / found[0] == pytest.approx(1, abs=1e-6)
    assert slope[1] / slope[0] == pytest.approx(1, abs=1e-6)
    assert slope[2] == pytest.approx(math.exp(30), rel=1e-6)
    assert found[2] == pytest.approx(math.exp(30) * (1 + 970) - 1, rel=1e-6)


def test_tce_tends_to_cross_entropy():
    """From below, with a remainder of at most (1 - p)^(t + 1) / ((t + 1) p)."""
    logits, target = batch(200)
    p, last = pick(torch.softmax(logits, -1), target), torch.inf
    for t in (1, 2, 5, 10, 20):
        gap = (LOSSES["ce"](logits, target) - LOSSES["tce"](logits, target, t=t))[p < 0.7]
        assert (gap > 0).all()
        assert (gap <= ((1 - p) ** (t + 1) / ((t + 1) * p))[p < 0.7]).all()
        assert (gap < last).all()
        last = gap


# -- losses of the logits themselves ----------------------------------------------------------------------------------


def test_sqen_gradient():
    """That of cross-entropy, plus 2 z_j / (C - 1) for the other classes."""
    logits, target = batch()
    label = torch.eye(CLASSES, dtype=torch.float64)[target]
    expected = torch.softmax(logits, -1) - label + 2 / (CLASSES - 1) * logits * (1 - label)
    close(gradient(lambda z: LOSSES["sqen"](z, target), logits), expected)


def test_rsq_is_zero_at_its_targets_only():
    logits = 7.0 * torch.eye(CLASSES, dtype=torch.float64)
    found = torch.stack([LOSSES["rsq"](logits, torch.full((CLASSES,), y), k=3.0, m=7.0) for y in range(CLASSES)])
    assert (found.diag() == 0).all()
    assert (found + torch.eye(CLASSES) > 0).all()
    assert (LOSSES["rsq"](logits, torch.arange(CLASSES), k=3.0, m=6.0) > 0).all()


def test_plain_square_loss_is_least_at_the_probabilities():
    """The gradient of the expected loss is zero at z = p for k = m = 1, and not for another m."""
    p, labels = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64), torch.arange(CLASSES)

    def expected(z, m):
        return (p * LOSSES["rsq"](z.expand(CLASSES, CLASSES), labels, k=1.0, m=m)).sum()

    close(gradient(lambda z: expected(z, 1.0), p), [0.0] * CLASSES)
    assert (gradient(lambda z: expected(z, 1.5), p).abs() > 1e-3).all()


def test_zloss_does_not_change_under_positive_affine_maps():
    logits, target = batch()
    given = {"a": 1.7, "b": 0.6}
    found = LOSSES["zloss"](logits, target, **given)
    for scale, shift in ((3.0, 0.0), (1.0, -700.0), (0.2, 5.0)):
        close(LOSSES["zloss"](scale * logits + shift, target, **given), found, 1e-8)
    assert (LOSSES["zloss"](-logits, target, **given) - found).abs().min() > 1e-3


def test_zloss_bounds():
    """The score of a single winner is the root of C - 1, the largest that there is; of equal logits it is 0."""
    winner = torch.eye(CLASSES, dtype=torch.float64)[:1]
    least = LOSSES["zloss"](winner, torch.tensor([0]), a=2.0, b=3.0)
    close(least, [math.log1p(math.exp(2 * (3 - math.sqrt(CLASSES - 1)))) / 2])
    logits, target = batch(200)
    assert (LOSSES["zloss"](logits, target, a=2.0, b=3.0) >= least).all()
    close(LOSSES["zloss"](0 * winner, torch.tensor([1]), a=2.0, b=3.0), [math.log1p(math.exp(6)) / 2])


def test_zloss_gradient():
    logits, target = batch()
    label = torch.eye(CLASSES, dtype=torch.float64)[target]
    centred, sigma = logits - logits.mean(-1, keepdim=True), logits.std(-1, correction=0)[:, None]
    score = pick(centred / sigma, target)[:, None]
    slope = (label - 1 / CLASSES - score * centred / (CLASSES * sigma)) / sigma
    expected = -torch.sigmoid(1.7 * (0.6 - score)) * slope
    close(gradient(lambda z: LOSSES["zloss"](z, target, a=1.7, b=0.6), logits), expected)


LINKS = [("log_taylor_softmax", taylor_softmax, taylor_form), ("smce", stablemax, stablemax_form)]


@pytest.mark.parametrize(("name", "link", "form"), LINKS, ids=[case[0] for case in LINKS])
def test_link(name, link, form):
    """The loss is minus the log-probability of the target under its link, at every size of the logits."""
    logits, target = batch(20)
    for scale in (0.0, 1.0, 30.0, 1e4):
        found = link(scale * logits)
        close(found.exp(), np.stack([form(z) for z in scale * logits.numpy()]))
        close(LOSSES[name](scale * logits, target), -pick(found, target))
        single = link((scale * logits).float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), link((scale * logits).float().double()), rtol=1e-6, atol=1e-6)


def test_smce_gradient():
    """s'(z_j) (1/S - [j = y] / s(z_y)) with s' = 1 or 1 / (1 - z)^2; also at z = 0, where the two pieces meet."""
    logits, target = batch()
    logits[:4, :2] = 0.0
    s = torch.where(logits >= 0, logits + 1, 1 / (1 - logits))
    slope = torch.where(logits >= 0, 1.0, 1 / (1 - logits) ** 2)
    label = torch.eye(CLASSES, dtype=torch.float64)[target]
    expected = slope * (1 / s.sum(-1, keepdim=True) - label / s)
    close(gradient(lambda z: LOSSES["smce"](z, target), logits), expected)
    far = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.float32)
    expected = [1 / 10002, -1 / 10001, 1 / 10002]  # s = (10001, 1/10001, 1), S = 10002
    found = gradient(lambda z: LOSSES["smce"](z, torch.tensor([1])), far)[0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=0)


def test_log_taylor_softmax_gradient():
    """(1 + z_j) (1/S - [j = y] / f(z_y)): none at z = -1, where f is least."""
    logits, target = batch()
    logits[:4, :2] = -1.0
    f = 1 + logits + logits**2 / 2
    label = torch.eye(CLASSES, dtype=torch.float64)[target]
    expected = (1 + logits) * (1 / f.sum(-1, keepdim=True) - label / f)
    close(gradient(lambda z: LOSSES["log_taylor_softmax"](z, target), logits), expected)


def test_rll_ldr_where_its_exponentials_overflow():
    """log sum exp over the other logits and 0, minus their sum, beside log(C alpha): whichever is larger."""
    high, low = torch.full((1, CLASSES), 800.0), torch.full((1, CLASSES), -800.0)  # e^3200 stands beside C alpha
    own, target = -math.log(0.1 + 1 / CLASSES), torch.tensor([2])
    found = LOSSES["rll_ldr"](torch.cat([high, low]).double(), target.repeat(2), alpha=0.1)
    close(found, [own + math.log(0.1 * CLASSES) / (CLASSES - 1), own + 800.0 * CLASSES / (CLASSES - 1)])


# -- margins ----------------------------------------------------------------------------------------------------------


def test_hinge_gradients():
    """cs moves the target and its rival, ww the target and every offender; nothing moves a sample with its margin."""
    logits = torch.tensor([[1.0, 3.0, 2.5, 0.0], [1.0, 3.0, 1.5, 0.0]], dtype=torch.float64)
    target = torch.tensor([0, 1])
    cs = gradient(lambda z: LOSSES["cs"](z, target, margin=1.0), logits)
    ww = gradient(lambda z: LOSSES["ww"](z, target, margin=1.0), logits)
    assert cs.tolist() == [[-1, 1, 0, 0], [0, 0, 0, 0]]
    assert ww.tolist() == [[-2, 1, 1, 0], [0, 0, 0, 0]]


# -- LDR --------------------------------------------------------------------------------------------------------------


def normalised_softplus(logits):
    scores = torch.nn.functional.softplus(logits)
    return scores / scores.mean(-1, keepdim=True)


def shifted_margins(scores, target, margin):
    """f_k - f_y + margin [k != y], (N, C)."""
    others = torch.arange(scores.shape[-1]) != target[:, None]
    return scores - pick(scores, target)[:, None] + margin * others


def test_robust_margin_of_logits_is_cross_entropy():
    logits, target = batch()
    found = robust_margin(target_log_softmax(logits, target), CLASSES, 1.0, 0.0)
    close(found, LOSSES["ce"](logits, target) - math.log(CLASSES))


def test_ldr_limits_in_the_temperature():
    logits, target = batch()
    deltas = shifted_margins(normalised_softplus(logits), target, 0.1)
    close(LOSSES["ldr"](logits, target, temperature=1e-3, margin=0.1), deltas.amax(-1), 3e-3)
    close(LOSSES["ldr"](logits, target, temperature=1e6, margin=0.1), deltas.mean(-1), 1e-4)


def test_ldr_is_the_worst_case_over_class_weights():
    """max over p of  sum_k p_k delta_k - temperature KL(p || 1/C): reached at the softmax, not exceeded elsewhere."""
    logits, target = batch(1)
    deltas = shifted_margins(normalised_softplus(logits), target, 0.1)[0].numpy()
    value = LOSSES["ldr"](logits, target, temperature=0.5, margin=0.1).item()

    def objective(p):
        return (p * deltas).sum() - 0.5 * rel_entr(p, 1 / CLASSES).sum()

    weights = np.random.default_rng(0).dirichlet(np.ones(CLASSES), 2000)
    assert objective(softmax(deltas / 0.5)) == pytest.approx(value)
    assert max(objective(p) for p in weights) <= value
    assert max(objective(p) for p in weights) > value - 0.1


def test_ldr_bound():
    logits, target = batch(200)
    for scale in (1.0, 100.0, 1e4):
        assert (LOSSES["ldr"](scale * logits, target, temperature=0.1, margin=0.1) <= 0.1 + CLASSES).all()


# -- ALDR -------------------------------------------------------------------------------------------------------------


def aldr_scores(logits):
    return logits / logits.abs().mean(-1, keepdim=True)


def visits(logits, target, count, **hyperparameters):
    """The value and memory after a number of visits to the same samples."""
    ratio = torch.ones(len(target), dtype=torch.float64)
    for _ in range(count):
        found, ratio = LOSSES["aldr"](logits, target, state=ratio, **hyperparameters)
    return found, ratio


def joint_objective(ratio, scores, y, temperature, alpha):
    own, classes = temperature * ratio, len(scores)
    penalty = alpha * math.log(classes) / (2 * temperature) * (own - temperature) ** 2
    return soft_maximum(margins(scores, y, 0.0), own) - penalty


def test_aldr_memory_stays_between_its_bounds():
    for scale in (1e-3, 1.0, 1e3):
        for temperature, alpha in ((0.1, 1.5), (1.0, 2.0), (10.0, 4.0)):
            logits, target = batch(100)
            _, ratio = visits(scale * logits, target, 5, temperature=temperature, alpha=alpha)
            assert (ratio >= 1 - 1 / alpha).all()
            assert (ratio <= 1).all()


def test_aldr_temperature_tends_to_the_maximiser_of_the_joint_objective():
    """Without a margin, which the update leaves out; up to the smoothing of 1e-5."""
    logits, target = batch(6)
    found, ratio = visits(logits, target, 50, temperature=1.0, alpha=2.0, margin=0.0)
    for i, (scores, y) in enumerate(zip(aldr_scores(logits).numpy(), target.tolist(), strict=True)):
        best = minimize_scalar(
            lambda r, f=scores, y=y: -joint_objective(r, f, y, 1.0, 2.0), bounds=(0.5, 1.0), method="bounded"
        )
        assert ratio[i].item() == pytest.approx(best.x, abs=2e-4)
        assert found[i].item() == pytest.approx(-best.fun, abs=1e-4)


def test_aldr_first_visit():
    """One step by hand: the update from lambda_0, then the loss at the new temperature, margin included."""
    logits, target = batch()
    found, ratio = LOSSES["aldr"](logits, target, temperature=0.7, alpha=3.0, margin=0.2, state=torch.ones(8).double())
    for i, (f, y) in enumerate(zip(aldr_scores(logits).numpy(), target.tolist(), strict=True)):
        p = (softmax(f / 0.7) + 1e-5) / (1 + CLASSES * 1e-5)
        own = 0.7 - 0.7 * rel_entr(p, 1 / CLASSES).sum() / (3 * math.log(CLASSES))
        value = soft_maximum(margins(f, y, 0.2), own) - 3 * math.log(CLASSES) / (2 * 0.7) * (own - 0.7) ** 2
        assert ratio[i].item() * 0.7 == pytest.approx(own, abs=1e-4)
        assert found[i].item() == pytest.approx(value, abs=1e-4)


def test_aldr_gradient_holds_the_temperature():
    logits, target = batch()
    state = torch.linspace(0.6, 1.0, 8, dtype=torch.float64)
    _, ratio = LOSSES["aldr"](logits, target, temperature=0.7, state=state)
    own = 0.7 * ratio

    def expected(z):
        deltas = shifted_margins(aldr_scores(z), target, 0.1)
        return own * torch.logsumexp(deltas / own[:, None], -1)

    found = gradient(lambda z: LOSSES["aldr"](z, target, temperature=0.7, state=state)[0], logits)
    close(found, gradient(expected, logits), 1e-3)


def test_aldr_gives_confident_samples_a_smaller_temperature():
    logits = torch.tensor([[9.0, 0.1, 0.1, 0.1], [1.0, 0.9, 0.9, 0.9]], dtype=torch.float64)
    _, ratio = visits(logits, torch.zeros(2, dtype=torch.long), 20, temperature=0.5)
    assert ratio[0] < ratio[1] - 0.2


def test_aldr_allows_zero_logits():
    found, ratio = visits(torch.zeros(2, 4, dtype=torch.float64), torch.tensor([0, 3]), 1, margin=0.0)
    close(found, [0.0, 0.0])
    close(ratio, [1.0, 1.0])


# -- truncated GCE ----------------------------------------------------------------------------------------------------


def test_tgce_uses_the_flag_of_the_visit_before():
    half = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # p_y = 0.73 and 0.27
    target, early, late = torch.zeros(2, dtype=torch.long), torch.tensor(0.49), torch.tensor(0.5)
    tgce, gce = LOSSES["tgce"], LOSSES["gce"](half, target, q=0.7)
    pruned = (1 - 0.5**0.7) / 0.7

    found, flags = tgce(half, target, state=torch.ones(2).double(), progress=early)
    close(found, gce)
    assert flags.tolist() == [1, 1]  # nothing is pruned in the first half

    found, flags = tgce(half, target, state=flags, progress=late)
    close(found, gce)
    assert flags.tolist() == [1, 0]

    found, after = tgce(half, target, state=flags, progress=late)
    close(found, [gce[0].item(), pruned])
    slope = gradient(lambda z: tgce(z, target, state=flags, progress=late)[0], half)
    assert slope[1].tolist() == [0, 0]
    close(slope[0], gradient(lambda z: LOSSES["gce"](z, target, q=0.7), half)[0])
    assert after.tolist() == [1, 0]

    _, back = tgce(half.flip(0), target, state=flags, progress=late)  # now the second one is predicted
    assert back.tolist() == [0, 1]

"""Calibrators against plain forms of their papers, known truths and libraries where these are installed."""

import itertools
import math

import numpy as np
import pytest
import torch
from predictions import random
from scipy.optimize import minimize, minimize_scalar

from reference.calibrators import correctness_aware as ca
from reference.calibrators.bbq import cuts, step_function
from reference.calibrators.beta import features, fit_beta
from reference.calibrators.calibrated import with_confidence
from reference.calibrators.ensemble_temperature import simplex_least_squares
from reference.calibrators.linear import fit_linear
from reference.calibrators.spline import recalibration
from reference.calibrators.temperature import best_temperature
from reference.calibrators.vector import fit_vector
from reference.methods import catalogue
from reference.metrics.calibration import ece
from reference.metrics.predictions import top_label

CALIBRATORS = {key: method.function for key, method in catalogue("calibrator").items()}


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


def nll(log_p, target):
    return float(-log_p.gather(1, target[:, None]).mean())


# -- temperature and what contains it --------------------------------------------------------------------------------


def test_temperature_is_of_least_nll():
    logits, target = random()

    def value(log_t):
        return nll(torch.log_softmax(logits / math.exp(log_t), 1), target)

    expected = minimize_scalar(value, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x
    assert best_temperature(logits, target) == pytest.approx(math.exp(expected), rel=1e-6)
    after = CALIBRATORS["temperature"](logits, target)(logits)
    assert nll(after, target) < nll(logits, target) - 0.1


def test_temperature_is_that_by_which_logits_were_sharpened():
    logits, target = random(20_000)  # of twice the logits the targets were drawn from
    assert best_temperature(logits, target) == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("factor", [0.05, 3.0, 20.0])
def test_temperature_follows_the_scale(factor):
    logits, target = random()
    assert best_temperature(factor * logits, target) == pytest.approx(
        factor * best_temperature(logits, target), rel=1e-9
    )


def test_temperature_at_its_ends():
    logits, _ = random(50)
    assert best_temperature(logits, logits.argmax(1)) == 0.01
    assert best_temperature(logits, logits.argmin(1)) == 100
    assert best_temperature(torch.ones(5, 3), torch.tensor([0, 1, 2, 0, 1])) == 1


def test_temperature_of_least_calibration_error():
    logits, target = random()
    tried = {t / 10: ece(torch.log_softmax(logits / (t / 10), 1), target) for t in range(1, 101)}
    best = CALIBRATORS["temperature_ece"](logits, target)(logits)
    plain = ece(CALIBRATORS["temperature"](logits, target)(logits), target)
    assert ece(best, target) == pytest.approx(min(plain, *tried.values()), abs=1e-12)
    assert ece(best, target) < plain


def test_vector_is_of_least_penalised_nll():
    logits, target = random(200, 4)

    def value(flat):
        w, b = torch.from_numpy(flat).reshape(2, 4)
        return (
            200 * nll(torch.log_softmax(w * logits + b, 1), target)
            + ((w - 1) ** 2).sum().item() / 2
            + (b**2).sum().item() / 2
        )

    start = np.concatenate([np.ones(4), np.zeros(4)])
    expected = minimize(value, start, options={"gtol": 1e-6}).x
    close(fit_vector(logits, target, 1.0).flatten(), expected, 1e-4)


@pytest.mark.parametrize("id", ["matrix", "dirichlet", "vector"])
def test_a_strong_penalty_leaves_temperature(id):
    """For matrix and Dirichlet scaling the diagonal is free: there one class too sharp is too sharp for all."""
    logits, target = random(2000)
    strong = {"prior": 1e12} if id == "vector" else {"off_diagonal": 1e9, "intercept": 1e9}
    found, temperature = (CALIBRATORS[key](logits, target, **h) for key, h in ((id, strong), ("temperature", {})))
    close(found(logits).exp(), temperature(logits).exp(), 1e-6 if id == "vector" else 0.05)


def test_linear_fit_is_stationary():
    logits, target = random(300, 4)
    w = fit_linear(logits, target, 1.0, 0.02, 0.01).requires_grad_()
    off, b = w[:, :-1] * (1 - torch.eye(4)), w[:, -1]
    value = (
        torch.nn.functional.cross_entropy(logits @ w[:, :-1].T + b, target)
        + 0.02 * off.square().sum()
        + 0.01 * b.square().sum()
    )
    slope = torch.autograd.grad(value, w)[0]
    assert slope.abs().max() < 1e-4
    assert off.abs().max() > 1e-2


def test_linear_maps_are_recovered():
    """Targets drawn from a linear map of the logits, with many samples and hardly a penalty."""
    g = torch.Generator().manual_seed(0)
    z = 1.5 * torch.randn(40_000, 3, generator=g, dtype=torch.float64)
    true = torch.tensor([[1.0, 0.4, 0.0, 0.5], [0.0, 0.7, -0.3, 0.0], [0.2, 0.0, 1.2, -0.5]], dtype=torch.float64)
    target = torch.multinomial((z @ true[:, :-1].T + true[:, -1]).softmax(1), 1, generator=g)[:, 0]
    found = CALIBRATORS["matrix"](z, target, off_diagonal=1e-6, intercept=1e-6)(z)
    assert (found.exp() - (z @ true[:, :-1].T + true[:, -1]).softmax(1)).abs().mean() < 0.005


def test_dirichlet_is_matrix_scaling_of_log_probabilities():
    logits, target = random(dtype=torch.float64)
    found = CALIBRATORS["dirichlet"](logits + 5, target)(logits - 3)
    close(found, CALIBRATORS["matrix"](logits, target)(logits), 1e-9)  # random() gives log-probabilities


def test_least_squares_on_the_simplex():
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        a, y = torch.randn(20, 3, generator=g).double(), torch.randn(20, generator=g).double()
        gram, product = a.T @ a, a.T @ y
        limits = {"bounds": [(0, 1)] * 3, "constraints": {"type": "eq", "fun": lambda w: w.sum() - 1}}
        expected = minimize(
            lambda w, a=a, y=y: float((a @ torch.from_numpy(w) - y).square().sum()), np.ones(3) / 3, tol=1e-14, **limits
        )
        close(simplex_least_squares(gram, product), expected.x, 1e-4)
    twice = torch.ones(2, 2, dtype=torch.float64)
    close(simplex_least_squares(twice, torch.ones(2, dtype=torch.float64)), [1, 0])  # of equal ones, the first


def test_the_ensemble_mixes_with_least_brier_score():
    logits, target = random(500)
    found = CALIBRATORS["ensemble_temperature"](logits, target)(logits).exp()
    t = best_temperature(logits, target)
    parts = torch.stack([(logits / t).softmax(1), logits.softmax(1), torch.full_like(logits, 1 / 7)])
    truth = torch.nn.functional.one_hot(target, 7).double()

    def brier(p):
        return float((p - truth).square().sum(1).mean())

    steps = [(i / 50, j / 50, 1 - (i + j) / 50) for i in range(51) for j in range(51 - i)]
    grid = min(brier(torch.einsum("a,anc->nc", torch.tensor(w, dtype=torch.float64), parts)) for w in steps)
    assert grid - 1e-4 < brier(found) <= grid + 1e-12


# -- nonparametric ---------------------------------------------------------------------------------------------------


def pooled(hits):
    """Isotonic regression by its closed form: the largest over starts of the least over ends of the mean between."""
    n, total = len(hits), np.concatenate([[0], np.cumsum(hits)])
    mean = [[(total[b + 1] - total[a]) / (b + 1 - a) if b >= a else math.nan for b in range(n)] for a in range(n)]
    return [max(min(mean[a][b] for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


def test_isotonic_top_is_the_closed_form():
    logits, target = random(60)
    confidence, right = top_label(logits, target)
    order = confidence.argsort()
    found = CALIBRATORS["isotonic_top"](logits, target)(logits)
    own = found.gather(1, logits.argmax(1, keepdim=True))[order, 0].exp()
    others = logits[order].exp().topk(2, 1).values[:, 1]
    least = others / (1 - confidence[order] + others)
    close(own, torch.maximum(torch.tensor(pooled(right[order].numpy())), least).clamp(max=1 - 1e-12), 1e-8)


@pytest.mark.parametrize("id", ["isotonic", "isotonic_shared"])
def test_isotonic_maps_do_not_decrease(id):
    """Where two classes share all probability, those of one class alone tell."""
    logits, target = random(500, 2)
    p = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    found = CALIBRATORS[id](logits, target)(torch.stack([p, 1 - p], 1).log())
    assert (found[:, 0].exp().diff() >= -1e-12).all()
    assert found[0, 0] < found[-1, 0] - 1


@pytest.mark.parametrize(
    ("id", "name", "settings"),
    [("isotonic", "IsotonicRegression", {}), ("histogram", "HistogramBinning", {"bins": 15})],
)
def test_one_against_the_rest_is_netcals(id, name, settings):
    binning = pytest.importorskip("netcal.binning")
    log_p, target = random(3000)
    new, _ = random(100, seed=1)
    found = CALIBRATORS[id](log_p, target)(new).exp()
    library = getattr(binning, name)(**settings).fit(log_p.exp().numpy(), target.numpy())
    close(found, library.transform(new.exp().numpy()), 1e-6)


def test_histogram_by_hand():
    p = torch.tensor([0.05, 0.1, 0.3, 0.95, 1.0], dtype=torch.float64)  # of class 0, in 10 bins
    logits = torch.stack([p, 1 - p], 1).clamp(min=1e-9).log()
    found = CALIBRATORS["histogram"](logits, torch.tensor([1, 0, 1, 0, 1]), bins=10)
    first, second = 1 / 2, 1 / 2  # (0, 0.1] of class 0; (0.9, 1] of class 1 has the same samples, less that at 0.9
    own = found(torch.tensor([[0.95, 0.05]], dtype=torch.float64).log())[0].exp()
    close(own, [first, second], 1e-9)
    single = found(logits[2:3])[0].exp()
    close(single, [0, 1], 1e-9)  # that of 0.3 alone
    empty = found(torch.tensor([[0.55, 0.45]], dtype=torch.float64).log())[0].exp()
    close(empty, [0.55, 0.45], 1e-9)  # the centres of empty bins


def bayesian_bins(scores, hits, at):
    """The average over models at one score, as the formula says."""
    order = np.argsort(scores)
    s, y, n = scores[order], hits[order], len(scores)
    border = np.concatenate([[0], (s[1:] + s[:-1]) / 2, [1]])
    evidence, values = [], []
    for b in range(max(1, math.floor(n ** (1 / 3) / 10)), min(math.ceil(n / 5), math.ceil(10 * n ** (1 / 3))) + 1):
        total, ranks = 0.0, [k * n // b for k in range(b + 1)]
        for begin, end in itertools.pairwise(ranks):
            alpha = 2 * min(max((border[begin] + border[end]) / 2, 0.005), 0.995)
            one, zero = y[begin:end].sum(), end - begin - y[begin:end].sum()
            total += math.lgamma(one + alpha) + math.lgamma(zero + 2 - alpha) - math.lgamma(one + zero + 2)
            total -= math.lgamma(alpha) + math.lgamma(2 - alpha) - math.lgamma(2)
            if border[begin] < at <= border[end]:
                value = (one + alpha) / (one + zero + 2)
        evidence.append(total)
        values.append(value)
    weight = np.exp(np.array(evidence) - max(evidence))
    return float(weight @ np.array(values) / weight.sum())


def test_bbq_is_the_average_over_models():
    g = np.random.default_rng(0)
    scores = g.random(83)
    hits = (g.random(83) < scores**2).astype(float)
    edges, values = step_function(torch.from_numpy(scores), torch.from_numpy(hits))
    for at in (0.01, 0.3, 0.72, 0.99):
        found = float(values[torch.bucketize(torch.tensor(at), edges)])
        assert found == pytest.approx(bayesian_bins(scores, hits, at), abs=1e-12)


def test_bbq_does_not_part_ties():
    ordered = torch.tensor([0.1] * 30 + [0.5] * 30 + [0.9] * 30, dtype=torch.float64)
    (begin, end), _ = cuts(ordered)
    assert set(begin.tolist()) | set(end.tolist()) <= {0, 30, 60, 90}


def test_beta_is_betacals():
    betacal = pytest.importorskip("betacal")
    log_p, target = random(2000, 3)
    for k in range(3):
        x, y = features(log_p)[k : k + 1], (target == k).double()[None]
        found = torch.sigmoid(torch.einsum("cnf,cf->cn", x, fit_beta(x, y, 1e-9)))[0]
        library = betacal.BetaCalibration(parameters="abm").fit(log_p[:, k].exp().numpy(), y[0].numpy())
        close(found, library.predict(log_p[:, k].exp().numpy()), 1e-3)  # that of the library's solver


def test_beta_parameters_are_recovered_or_kept_at_zero():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(50_000, generator=g, dtype=torch.float64)
    x = torch.stack([p.log(), -torch.log1p(-p), torch.ones_like(p)], 1)[None]
    for true in ((0.5, 1.5, 0.3), (0.8, 0.0, -0.5), (0.0, 1.2, 0.0)):
        probability = torch.sigmoid(x @ torch.tensor(true, dtype=torch.float64))
        found = fit_beta(x, (torch.rand(probability.shape, generator=g) < probability).double(), 1.0)[0]
        close(found, true, 0.1)
        assert (found[:2] >= 0).all()


def test_the_spline_adds_a_constant_error():
    confidence = np.linspace(0.3, 0.8, 200)
    at, accuracy = recalibration(confidence, confidence + 0.1, 6)
    np.testing.assert_allclose(at, confidence)
    np.testing.assert_allclose(accuracy, confidence + 0.1, atol=1e-9)


def test_the_spline_follows_a_smooth_error():
    """An error that grows as the square of the share, 3 t^2 / 10, has the cubic t^3 / 10 as its sum."""
    share = (np.arange(3000) + 0.5) / 3000
    confidence = 0.3 + 0.5 * share
    _, accuracy = recalibration(confidence, confidence + 0.3 * share**2, 12)
    inner = slice(300, 2700)  # a natural spline's own ends are straight
    np.testing.assert_allclose(accuracy[inner], (confidence + 0.3 * share**2)[inner], atol=0.01)


# -- shared parts ----------------------------------------------------------------------------------------------------


def test_a_new_confidence_leaves_the_others_their_shares():
    log_p, _ = random(50)
    wanted = torch.linspace(0.75, 0.99, 50, dtype=torch.float64)
    found, p = with_confidence(log_p, wanted).exp(), log_p.exp()
    top, predicted = p.max(1)
    close(found.gather(1, predicted[:, None])[:, 0], wanted)
    close(
        found.scatter(1, predicted[:, None], 0),
        (p * ((1 - wanted) / (1 - top))[:, None]).scatter(1, predicted[:, None], 0),
    )
    low = with_confidence(log_p, torch.zeros(50))
    assert torch.equal(low.argmax(1), predicted)
    close(low.topk(2, 1).values.diff(dim=1)[:, 0], torch.zeros(50), 1e-8)


def test_the_slope_of_the_correctness_aware_loss():
    logits, target = random(40)
    right = (logits.argmax(1) == target).double()[:, None]
    weight, t = ca.balance(right), torch.linspace(0.3, 4, 40, dtype=torch.float64)[:, None].requires_grad_()
    value = (weight * ((logits / t).softmax(1).amax(1, keepdim=True) - right) ** 2).sum()
    below = logits - logits.amax(1, keepdim=True)
    close(ca.slope(below, t.detach(), right, weight), torch.autograd.grad(value, t)[0], 1e-12)
    assert float(weight[right > 0].sum()) == pytest.approx(0.5)
    close(ca.balance(torch.ones(4, 1).double()), torch.full((4, 1), 0.25), 1e-12)


def test_without_weights_the_confidence_is_as_often_right_as_it_says():
    """Logits of which nine in ten are right, all alike: the weighted optimum is one half, the plain one nine tenths."""
    logits = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64).repeat(1000, 1)
    target = (torch.arange(1000) % 10 == 0).long()
    copies = logits.expand(3, -1, -1)
    for name, expected in (("correctness_aware", 0.5), ("correctness_aware_plain", 0.9)):
        draw = torch.Generator().manual_seed(0)
        fitted = CALIBRATORS[name](logits, target, copies=copies, generator=draw, steps=1000)
        close(fitted(logits, copies=copies).exp()[:, 0], torch.full((1000,), expected), 0.01)


@pytest.mark.parametrize("name", ["correctness_aware", "correctness_aware_plain"])
def test_correctness_aware_tells_by_the_copies(name):
    """Predictions whose copies disagree are wrong: their temperature is larger, and confidences part."""
    logits, _ = random(1000)
    predicted = logits.argmax(1)
    wrong = torch.arange(1000) % 2 == 0
    target = torch.where(wrong, (predicted + 1) % 7, predicted)
    copies = torch.where(wrong[:, None], logits.roll(1, 1), logits).expand(3, -1, -1)
    fitted = CALIBRATORS[name](logits, target, copies=copies, generator=torch.Generator().manual_seed(0))
    confidence = fitted(logits, copies=copies).amax(1).exp()
    plain = logits.amax(1).exp()
    assert confidence[wrong].mean() < plain[wrong].mean() - 0.2
    assert confidence[~wrong].mean() > plain[~wrong].mean() + 0.05

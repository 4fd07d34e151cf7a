"""Metrics of calibration: against libraries where they have them, closed forms where not, and their invariances."""

import itertools
import math

import numpy as np
import pytest
import torch
from predictions import CASES, random
from scipy.stats import beta, dirichlet
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from lossboard.metrics import calibration_error
from reference.metrics import calibration, scores
from reference.metrics.bins import adaptive, equal_mass, equal_width, monotone_sweep
from reference.metrics.classwise import class_bins, classwise_ece, decomposition
from reference.metrics.kernel import by_nodes, by_pairs, canonical_kernel_ece, kernel_ece
from reference.metrics.predictions import top_label
from reference.metrics.selective import (
    aurc,
    margin,
    negative_entropy,
    risk_curve,
    risk_intervals,
    threshold_at,
)
from reference.metrics.smooth import bandwidth, error_at, smooth_ece
from reference.metrics.summary import summary

TOLERANCE = 1e-6
on_every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
METRICS = {
    "ece": calibration.ece,
    "ece_equal_mass": calibration.ece_equal_mass,
    "adaptive_ece": calibration.adaptive_ece,
    "sweep_ece": calibration.sweep_ece,
    "mce": calibration.mce,
    "ace": calibration.ace,
    "debiased_ece": calibration.debiased_ece,
    "debiased_l2": calibration.debiased_l2,
    "classwise_ece": classwise_ece,
    "smooth_ece": smooth_ece,
    "kernel_ece": kernel_ece,
    "nll": scores.nll,
    "brier": scores.brier,
    "accuracy": scores.accuracy,
    "aurc": aurc,
}
OF_CONFIDENCE = ("ece", "ece_equal_mass", "adaptive_ece", "sweep_ece", "mce", "ace", "smooth_ece", "kernel_ece")


def close(found, expected, tolerance=TOLERANCE):
    assert found == pytest.approx(expected, rel=0, abs=tolerance)


# -- scikit-learn, torchmetrics and the harness ----------------------------------------------------------------------


@on_every_case
def test_scores_are_scikit_learns(case):
    log_p, target = case()
    p, labels = log_p.double().exp().numpy(), range(log_p.shape[1])
    p /= p.sum(1, keepdims=True)
    floor = float(np.finfo(float).eps)
    close(scores.nll(log_p, target, floor=floor), log_loss(target.numpy(), p, labels=list(labels)))
    expected = brier_score_loss(target.numpy(), p, labels=list(labels), scale_by_half=False)
    close(scores.brier(log_p, target), expected)
    close(scores.accuracy(log_p, target), accuracy_score(target.numpy(), p.argmax(1)))


@pytest.mark.parametrize("name", [name for name in CASES if name != "on_edges"])
@pytest.mark.parametrize(("norm", "value"), [("l1", "ece"), ("max", "mce"), ("l2", "l2")])
def test_binned_errors_are_torchmetrics(name, norm, value):
    """Whose bins are closed below: the same away from edges. It counts in float32."""
    log_p, target = CASES[name]()
    p = log_p.exp()
    expected = float(multiclass_calibration_error(p, target, p.shape[1], n_bins=15, norm=norm))
    close(getattr(equal_width(*top_label(log_p, target)), value), expected, 2e-6 if value == "ece" else 1e-5)


@on_every_case
def test_the_harness_has_the_same_ece(case):
    log_p, target = case()
    close(calibration.ece(log_p, target), calibration_error(log_p.double(), target), 1e-12)


@pytest.mark.parametrize(("strategy", "make"), [("uniform", equal_width), ("quantile", adaptive)])
def test_bins_are_those_of_scikit_learns_curve(strategy, make):
    confidence, right = top_label(*random(777))
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy=strategy)
    found = make(confidence, right)
    if strategy == "uniform":
        np.testing.assert_allclose(found.accuracy, accuracy, atol=1e-12)
        np.testing.assert_allclose(found.confidence / found.count, mean, atol=1e-12)
    else:  # scikit-learn interpolates between N - 1 gaps, this definition between N: a sample per bin may differ
        np.testing.assert_allclose(found.accuracy, accuracy, atol=0.06)


# -- netcal, relplot, uncertainty-calibration, where they are installed ----------------------------------------------


@pytest.mark.parametrize("bins", [4, 15])
@on_every_case
def test_binned_errors_are_netcals(case, bins):
    """netcal closes its bins below. At 4 bins, confidences lie on edges; at 10 its edges are a rounding higher."""
    netcal = pytest.importorskip("netcal.metrics")
    confidence, right = top_label(*case())
    p, hits = confidence.clamp(max=1 - 1e-16).numpy(), right.long().numpy()
    found = equal_width(confidence, right, bins, closed="below")
    for library, value in ((netcal.ECE, found.ece), (netcal.ACE, found.ace), (netcal.MCE, found.mce)):
        close(value, library(bins=bins).measure(p, hits))


@on_every_case
def test_smooth_ece_is_relplots(case):
    relplot = pytest.importorskip("relplot")
    log_p, target = case()
    confidence, right = (part.numpy() for part in top_label(log_p, target))
    value, width = relplot.smECE(confidence, right, return_width=True)
    close(smooth_ece(log_p, target), value)
    assert bandwidth(confidence, confidence - right) == width
    for sigma in (0.002, 0.01, 0.3):
        close(error_at(confidence, confidence - right, sigma), relplot.smECE_sigma(confidence, right, sigma))


@on_every_case
def test_errors_are_those_of_uncertainty_calibration(case):
    library = pytest.importorskip("calibration")
    log_p, target = case()
    p, labels = log_p.double().exp().clamp(max=1).numpy(), target.numpy()
    close(calibration.ece(log_p, target), library.get_ece(p, labels))
    close(calibration.ece_equal_mass(log_p, target), library.get_ece_em(p, labels))
    close(calibration.debiased_l2(log_p, target), library.lower_bound_scaling_top_ce(p, labels))
    close(classwise_ece(log_p, target), library.get_ece(p, labels, mode="marginal"))


@pytest.mark.parametrize("name", ["random", "tied"])
def test_the_debiased_ece_is_the_mean_of_uncertainty_calibrations_draws(name):
    library = pytest.importorskip("calibration.utils")
    np.random.seed(0)  # what the library draws from
    confidence, right = top_label(*CASES[name]())
    place = np.searchsorted(np.arange(1, 16) / 15, confidence.numpy())
    data = torch.stack([confidence, right], 1).numpy()
    binned = [data[place == k] for k in np.unique(place) if (place == k).sum() > 1]
    kept = torch.from_numpy(np.isin(place, [k for k in np.unique(place) if (place == k).sum() > 1]))
    expected = library.normal_debiased_ce(binned, power=1, resamples=20_000)
    close(equal_width(confidence[kept], right[kept]).ece_debiased, expected, 5e-4)


def test_libraries_agree_on_large_inputs():
    """200,000 rows: sums of single bins are long."""
    netcal, relplot = pytest.importorskip("netcal.metrics"), pytest.importorskip("relplot")
    log_p, target = random(200_000)
    confidence, right = (part.numpy() for part in top_label(log_p, target))
    close(calibration.ece(log_p, target), netcal.ECE(bins=15).measure(confidence, right.astype(int)))
    close(smooth_ece(log_p, target), relplot.smECE(confidence, right))
    close(scores.nll(log_p, target), log_loss(target.numpy(), log_p.exp().numpy(), labels=range(7)))


# -- definitions, written plainly ------------------------------------------------------------------------------------


def groups_of_equal_mass(confidence, right, bins):
    order = np.argsort(confidence.numpy(), kind="stable")
    return [(confidence.numpy()[part], right.numpy()[part]) for part in np.array_split(order, bins)]


def test_equal_mass_without_ties_is_the_sorted_list_in_pieces():
    confidence, right = top_label(*random(503))
    parts = groups_of_equal_mass(confidence, right, 15)
    found = equal_mass(confidence, right)
    assert found.count.tolist() == [len(c) for c, _ in parts]
    close(found.ece, sum(abs(c.sum() - a.sum()) for c, a in parts) / 503, 1e-12)


def test_the_sweep_stops_before_accuracy_first_goes_down():
    confidence, right = top_label(*random(503))
    rising = [
        bool((np.diff([a.mean() for _, a in groups_of_equal_mass(confidence, right, m)]) >= 0).all())
        for m in range(1, 60)
    ]
    wanted = rising.index(False)  # bins are counted from 1
    assert wanted > 2
    assert len(monotone_sweep(confidence, right).count) == wanted


def test_classwise_is_the_mean_over_classes():
    log_p, target = random()
    each = [equal_width(log_p[:, k].exp(), (target == k).double()).ece for k in range(log_p.shape[1])]
    close(classwise_ece(log_p, target), np.mean(each), 1e-12)


def test_classwise_above_a_threshold():
    log_p, target = random()
    p, labels = log_p.exp(), torch.nn.functional.one_hot(target).double()
    kept, expected = p > 1 / 7, 0.0
    for k in range(7):
        found = equal_width(p[kept[:, k], k], labels[kept[:, k], k])
        expected += float((found.confidence - found.right).abs().sum()) / len(p) / 7
    close(classwise_ece(log_p, target, threshold=1 / 7), expected, 1e-12)
    assert expected < classwise_ece(log_p, target)


@on_every_case
def test_the_parts_of_the_brier_score_sum_to_it(case):
    log_p, target = case()
    found = class_bins(log_p, target)
    for value in (found.brier, decomposition(found).brier):
        close(value, scores.brier(log_p, target), 1e-9)
    close(found.sharpness, scores.sharpness(log_p), 1e-12)


def test_brier_decomposition_on_few_distinct_rows():
    """Murphy's three terms over distinct forecasts, and nothing within bins."""
    log_p, target = CASES["tied"]()
    p, labels = log_p.exp(), torch.nn.functional.one_hot(target, 7).double()
    found = decomposition(class_bins(log_p, target, 100_000))  # each distinct probability alone in its bin
    assert found.within == pytest.approx(0, abs=1e-12)
    base, reliability, resolution = labels.mean(0), 0.0, 0.0
    for k in range(7):
        for value in p[:, k].unique():
            rows = p[:, k] == value
            share = labels[rows, k].mean()
            reliability += float(rows.double().mean() * (value - share) ** 2)
            resolution += float(rows.double().mean() * (share - base[k]) ** 2)
    close(found.reliability, reliability, 1e-12)
    close(found.resolution, resolution, 1e-12)
    close(found.uncertainty, float(1 - (base**2).sum()), 1e-12)


def test_sharpness_and_entropy_are_the_scores_of_calibrated_predictions():
    """Brier and NLL averaged over all targets, each with its own probability."""
    log_p, _ = random(50)
    p, rows = log_p.exp(), log_p.repeat_interleave(7, 0)
    each = [scores.brier(rows[i : i + 1], torch.tensor([i % 7])) for i in range(len(rows))]
    close(1 - scores.sharpness(log_p), float((p.flatten() * torch.tensor(each, dtype=torch.float64)).sum()) / 50, 1e-12)
    close(scores.entropy(log_p), float(-(p * log_p).sum(1).mean()), 1e-12)


def beta_kernel(confidence, right, h):
    """The leave-one-out accuracies of a sample of a few, with scipy's densities."""
    c, a = confidence.numpy(), right.numpy()
    k = beta.pdf(c[:, None], c / h + 1, (1 - c) / h + 1)
    np.fill_diagonal(k, 0)
    return k @ a / k.sum(1)


@pytest.mark.parametrize("h", [0.001, 0.03, 0.5])
def test_kernel_ece_from_its_definition(h):
    log_p, target = random(60)
    confidence, right = top_label(log_p, target)
    expected = np.abs(confidence.numpy() - beta_kernel(confidence, right, h)).mean()
    close(kernel_ece(log_p, target, h), expected, 1e-9)


def test_canonical_kernel_ece_from_its_definition():
    log_p, target = random(40, 3)
    p, labels = log_p.exp().numpy(), np.eye(3)[target.numpy()]
    k = np.array([[dirichlet.pdf(row / row.sum(), centre / 0.1 + 1) for centre in p] for row in p])
    np.fill_diagonal(k, 0)
    expected = np.abs(p - k @ labels / k.sum(1, keepdims=True)).sum(1).mean()
    close(canonical_kernel_ece(log_p, target, 0.1), expected, 1e-9)


@pytest.mark.parametrize("h", [0.001, 0.01, 0.1])
def test_nodes_stand_for_pairs(h):
    confidence, right = top_label(*random(3000))
    pairs, nodes = by_pairs(confidence, right, h), by_nodes(confidence, right, h)
    assert float((pairs - nodes).abs().max()) < 5e-3
    close(float((confidence - nodes).abs().mean()), float((confidence - pairs).abs().mean()), 1e-4)


def test_a_sample_beyond_the_kernels_reach_has_the_accuracy_of_all_others():
    confidence, right = torch.full((5000,), 0.9).double(), (torch.arange(5000) % 4 > 0).double()
    confidence[0] = 0.2
    for estimate in (by_pairs, by_nodes):
        close(float(estimate(confidence, right, 1e-5)[0]), 3750 / 4999, 1e-9)


def test_smooth_ece_is_the_fixed_point():
    log_p, target = random(2000)
    confidence, right = (part.numpy() for part in top_label(log_p, target))
    value = smooth_ece(log_p, target)
    assert abs(error_at(confidence, confidence - right, value) - value) < 2e-3


def test_expected_error_of_calibrated_predictions():
    """As the mean of normal deviations: sqrt(2 / pi) sum_b sqrt(sum of c (1 - c)) / N."""
    confidence, _ = top_label(*random(2000))
    found = calibration.expected_if_calibrated(confidence, equal_width, torch.Generator().manual_seed(0), draws=200)
    variance = confidence * (1 - confidence)
    place = (confidence * 15).ceil().long() - 1
    expected = math.sqrt(2 / math.pi) * float(torch.bincount(place, variance).sqrt().sum()) / 2000
    assert found == pytest.approx(expected, rel=0.05)


# -- risk and coverage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(3, 3, 2, 1, 1, 1), (1, 1, 1, 1, 1, 1), (6, 5, 4, 3, 2, 1)])
def test_the_curve_is_the_mean_over_orders_of_ties(values):
    wrong = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    orders = [
        o for o in itertools.permutations(range(6)) if all(values[a] >= values[b] for a, b in itertools.pairwise(o))
    ]
    expected = np.mean([np.cumsum(wrong[list(order)]) / np.arange(1, 7) for order in orders], 0)
    found = risk_curve(torch.tensor(values), torch.tensor(wrong))
    np.testing.assert_allclose(found.risk, expected, atol=1e-12)
    close(found.aurc, expected.mean(), 1e-12)


def test_aurc_of_the_best_and_of_no_order():
    wrong = torch.tensor([0.0] * 70 + [1.0] * 30)
    assert risk_curve(-wrong, wrong).excess_aurc == pytest.approx(0, abs=1e-12)
    assert risk_curve(torch.zeros(100), wrong).aurc == pytest.approx(0.3)
    best = risk_curve(-wrong, wrong).aurc
    assert best == pytest.approx(0.3 + 0.7 * math.log(0.7), abs=0.01)
    assert risk_curve(wrong, wrong).excess_aurc > 0.5


def test_aurc_depends_on_the_order_alone():
    log_p, target = random()
    confidence, right = top_label(log_p, target)
    assert risk_curve(confidence, 1 - right).aurc == risk_curve(confidence**3 - 5, 1 - right).aurc
    assert risk_curve(margin(log_p), 1 - right).aurc != risk_curve(confidence, 1 - right).aurc
    assert risk_curve(negative_entropy(log_p), 1 - right).aurc < float(1 - right.mean())


def test_coverage_at_risk_takes_the_largest():
    """The first is wrong, and a long run of right ones makes up for it."""
    curve = risk_curve(torch.arange(20, 0, -1), torch.tensor([1.0] + 12 * [0.0] + 7 * [1.0]))
    assert curve.coverage_at(0.1) == 13 / 20
    assert curve.coverage_at(0.01) == 0
    assert curve.coverage_at(1) == 1
    assert curve.risk_at(0.5) == pytest.approx(1 / 10)
    assert curve.risk_at(1) == pytest.approx(8 / 20)


def test_a_threshold_accepts_ties_together():
    score, wrong = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.1]), torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0])
    assert threshold_at(score, wrong, 0.25) == 0.5
    assert threshold_at(score, wrong, 0.2) == pytest.approx(0.9)
    assert threshold_at(score[2:], wrong[2:], 0.2) == math.inf


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 100 test sets, each with a risk of 0.2 at half the coverage."""
    g, coverages, held = torch.Generator().manual_seed(0), torch.tensor([0.5, 1.0]), torch.zeros(2)
    for _ in range(100):
        score = torch.rand(300, generator=g)
        wrong = (torch.rand(300, generator=g) < 0.4 * torch.where(score > 0.5, 0.5, 1.0)).double()
        found = risk_intervals(score, wrong, coverages, g, draws=200)
        truth = torch.tensor([0.2, 0.3])
        held += (found.low <= truth) & (truth <= found.high)
    assert (held >= 88).all()
    assert (held <= 100).all()
    assert (found.low < found.high).all()


# -- invariances and limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
@on_every_case
def test_the_order_of_rows_and_of_classes_does_not_matter(metric, case):
    log_p, target = case()
    rows = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    close(metric(log_p[rows], target[rows]), metric(log_p, target), 1e-9)
    if case.__name__ != "on_edges":  # with 0.5 each the predicted class is the first
        turned = log_p.flip(1)
        close(metric(turned, log_p.shape[1] - 1 - target), metric(log_p, target), 1e-9)


@pytest.mark.parametrize("name", OF_CONFIDENCE)
def test_certain_predictions_are_off_by_their_error(name):
    log_p, target = CASES["certain"]()
    tolerance = 5e-3 if name == "smooth_ece" else 5e-3 if name == "kernel_ece" else 1e-12
    close(METRICS[name](log_p, target), 1 - scores.accuracy(log_p, target), tolerance)


@on_every_case
def test_the_summary_is_the_metrics(case):
    log_p, target = case()
    found = summary(log_p, target)
    for name, metric in METRICS.items():
        close(found[name], metric(log_p, target), 1e-9)
    assert all(math.isfinite(value) for value in found.values())


def test_chunks_do_not_show(monkeypatch):
    log_p, target = random(100)
    whole = summary(log_p, target)
    monkeypatch.setattr("reference.metrics.predictions.CHUNK", 40)
    assert summary(log_p, target) == pytest.approx(whole, rel=1e-12)


def test_inputs_are_left_alone():
    log_p, target = random(100)
    before = log_p.clone(), target.clone()
    summary(log_p, target)
    assert torch.equal(log_p, before[0])
    assert torch.equal(target, before[1])


def test_predictions_that_changed():
    log_p, _ = random(100)
    assert scores.changed(log_p, log_p * 2) == 0
    assert scores.changed(log_p, -log_p) == 1

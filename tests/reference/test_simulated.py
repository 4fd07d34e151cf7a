"""Simulated predictions have the calibration error they claim, and what is said of the estimators' bias is so."""

import math

import pytest
import torch
from scipy.integrate import quad

from reference.metrics.calibration import debiased_ece, debiased_l2, ece, ece_equal_mass, l2_ece, sweep_ece
from reference.metrics.kernel import kernel_ece
from reference.metrics.predictions import top_label
from reference.metrics.scores import accuracy
from reference.metrics.simulated import Simulation, bias
from reference.metrics.smooth import smooth_ece

CALIBRATED = Simulation(skew=3)
TOO_SURE = Simulation(skew=3, slope=0.85)
WAVY = Simulation(skew=1, wave=0.1)
L1 = {"ece": ece, "equal_mass": ece_equal_mass, "sweep": sweep_ece, "smooth": smooth_ece, "kernel": kernel_ece}


def measured(estimator, simulation, rows, *, power=1, draws=30):
    truth = simulation.error(power)
    g = torch.Generator().manual_seed(1)
    return bias(estimator, simulation, truth, rows=rows, draws=draws, generator=g)


@pytest.mark.parametrize("simulation", [CALIBRATED, TOO_SURE, WAVY, Simulation(classes=2, slope=0.5)])
def test_the_true_error_is_the_integral(simulation):
    chance = 1 / simulation.classes

    def gap(u):
        c = torch.tensor(1 - (1 - chance) * u**simulation.skew, dtype=torch.float64)
        return float((c - simulation.accuracy(c)).abs())

    expected = quad(gap, 0, 1, limit=500)[0]
    assert simulation.error() == pytest.approx(expected, abs=1e-5)
    assert simulation.error(2) >= simulation.error()


def test_the_true_error_in_closed_form():
    """(1 - slope) times the mean confidence above chance, which is (1 - 1/C) skew / (skew + 1)."""
    assert TOO_SURE.error() == pytest.approx(0.15 * 0.9 * 3 / 4, abs=1e-6)
    assert CALIBRATED.error() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("simulation", [CALIBRATED, TOO_SURE, WAVY])
def test_draws_are_right_as_often_as_they_claim(simulation):
    log_p, target = simulation.draw(200_000, torch.Generator().manual_seed(0))
    confidence, right = top_label(log_p, target)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(target), dtype=torch.float64))
    assert confidence.min() > 0.1
    place = (confidence * 20).long().clamp(max=19)
    count = torch.bincount(place, minlength=20)
    expected = torch.bincount(place, simulation.accuracy(confidence), 20)
    deviation = (torch.bincount(place, right, 20) - expected) / count.clamp(min=1).sqrt()
    assert deviation.abs().max() < 2.5  # standard deviations are at most 1/2
    assert accuracy(log_p, target) == pytest.approx(float(simulation.accuracy(confidence).mean()), abs=0.005)


@pytest.mark.parametrize("estimator", [ece, ece_equal_mass])
def test_binned_errors_of_calibrated_predictions_fall_as_the_root_of_their_number(estimator):
    few, many = (measured(estimator, CALIBRATED, rows).bias for rows in (400, 6400))
    assert few > 0.02
    assert few / many == pytest.approx(math.sqrt(16), rel=0.3)


def test_ece_of_many_calibrated_predictions_is_nearly_0():
    log_p, target = Simulation().draw(1_000_000, torch.Generator().manual_seed(0))
    for value in (ece(log_p, target), debiased_l2(log_p, target), smooth_ece(log_p, target)):
        assert value < 0.005


@pytest.mark.parametrize("simulation", [CALIBRATED, TOO_SURE, WAVY])
def test_debiasing_takes_bias_away(simulation):
    for plain, debiased, power in ((ece, debiased_ece, 1), (l2_ece, debiased_l2, 2)):
        before, after = (measured(estimator, simulation, 300, power=power) for estimator in (plain, debiased))
        assert before.bias > 4 * before.standard_error
        assert abs(after.bias) < 0.75 * before.bias


@pytest.mark.parametrize("estimator", L1.values(), ids=list(L1))
def test_every_estimator_nears_the_true_error(estimator):
    draws = 6 if estimator is kernel_ece else 30  # it visits all pairs
    few, many = (measured(estimator, TOO_SURE, rows, draws=draws) for rows in (200, 4500))
    assert abs(many.bias) < 0.015
    assert many.spread < few.spread


@pytest.mark.parametrize("estimator", [smooth_ece, sweep_ece])
def test_smoothing_hides_what_oscillates(estimator):
    """Where the error changes its sign five times, adapting estimators stay below it however many samples there are."""
    found = measured(estimator, WAVY, 3000)
    assert found.bias < -5 * found.standard_error

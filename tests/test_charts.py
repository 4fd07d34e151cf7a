"""Where charts put things: labels that do not overlap, round scales, noise levels that compare like with like."""

from __future__ import annotations

import itertools

import pytest

from lossboard import protocol
from lossboard.charts import axis, noises, spread


@pytest.mark.parametrize(
    ("wanted", "gap", "expected"),
    [
        ([], 1, []),
        ([5], 1, [5]),
        ([9, 5, 1], 2, [9, 5, 1]),
        ([5, 5], 2, [6, 4]),
        ([10, 10, 10], 3, [13, 10, 7]),
        ([10, 9, 2], 3, [11, 8, 2]),
        ([10, 9.5, 8], 2, [11.167, 9.167, 7.167]),
    ],
)
def test_labels_move_apart_no_further_than_needed(wanted: list[float], gap: float, expected: list[float]) -> None:
    placed = spread(wanted, gap)
    assert placed == pytest.approx(expected, abs=1e-3)
    assert all(above - below >= gap - 1e-9 for above, below in itertools.pairwise(placed))
    assert sum(placed) == pytest.approx(sum(wanted))  # the mean stays where it was


@pytest.mark.parametrize(
    ("intervals", "low", "high", "step"),
    [
        ([], 0, 1, 1),
        ([(1.0, 3.9)], 0, 4, 1),
        ([(-12.0, -3.0), (2.0, 7.0)], -15, 10, 5),
        ([(-0.03, 0.01)], -0.03, 0.01, 0.01),
        ([(float("nan"), 40.0)], 0, 40, 10),
    ],
)
def test_scales_hold_zero_and_end_on_round_ticks(
    intervals: list[tuple[float, float]], low: float, high: float, step: float
) -> None:
    found = axis(intervals)
    assert (found.low, found.high, found.step) == pytest.approx((low, high, step))
    assert 0 in found.ticks
    assert found.at(found.low) == "4.00%"
    assert found.at(found.high) == "96.00%"


def test_noise_levels_are_means_over_the_same_datasets() -> None:
    tasks = protocol.load("noisy").track("cpu").tasks
    levels, datasets = noises(tasks)["uniform"]
    assert list(levels) == [0, 0.3, 0.6, 0.8]
    assert levels[0.3][0] == f"{datasets[0]}/uniform-0.3"
    assert "mnist" not in datasets  # it has no task at rate 0.8
    assert all([name.split("/")[0] for name in names] == datasets for names in levels.values())


def test_levels_of_clean_labels_alone_are_no_chart() -> None:
    clean = [task for task in protocol.load("noisy").track("quick").tasks if task.corruption.rate == 0]
    assert clean
    assert noises(clean) == {}

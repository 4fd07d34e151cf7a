"""Where charts put things: labels that do not overlap, round scales, noise levels that compare like with like."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from lossboard import protocol
from lossboard.charts import axis, fence, noises, undominated
from lossboard.drawing import CIRCLE, DARK, LOW, WIDE, alone, along, beside, spread


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


# -- scatter plots and curves ------------------------------------------------------------------------------------------


def test_names_beside_points_overlap_nothing_and_the_first_come_first() -> None:
    points = [(41.0 * i % 283, 31.0 * i % 89) for i in range(12)]
    names = [f"method_{i}" for i in range(12)]
    placed = beside(points, names, 300, 100)
    assert placed[0]
    boxes = []
    for (x, y), name, place in zip(points, names, placed, strict=True):
        if place:
            dx, dy, align = place
            size = 6.8 * len(name)
            left = x + dx - {"left": 0, "right": size, "center": size / 2}[align]
            boxes.append((left, y + dy - 6, left + size, y + dy + 6))
    assert len(boxes) > 3
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert beside([(5.0, 5.0)] * 6, ["a_long_name"] * 6, 20, 10)[-1] is None
    assert beside([(50.0, 50.0)], ["name"], 100, 100, [(60.0, 50.0), (40.0, 50.0)]) == [(0, -11, "center")]


def test_a_curve_is_named_where_no_other_runs() -> None:
    steep = [(float(x), LOW - x * LOW / WIDE) for x in range(0, int(WIDE), 4)]
    flat = [(float(x), LOW / 2) for x in range(0, int(WIDE), 4)]
    for name, (at, down) in zip(("steep", "flat"), along([steep, flat], ["steep", "flat"]), strict=True):
        half = 3.6 * len(name)
        assert half < at < WIDE - half
        assert all(abs(y - down) > 1.5 for path in (steep, flat) for x, y in path if abs(x - at) <= half), name


def test_undominated_points_are_beaten_by_none() -> None:
    points = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (3.0, 3.0), (0.5, 0.5), (4.0, 9.0)]
    assert undominated(points) == {0, 1, 4, 5}
    assert undominated([(1.0, 1.0), (1.0, 1.0)]) == {0, 1}


def test_fences_leave_out_what_lies_far_and_nothing_of_few() -> None:
    low, high = fence([10.0, 11, 12, 13, 14, 15, 16, 17, 18, 99])
    assert low < 10 < 18 < high < 99
    assert fence([1.0, 1.0, 1000.0]) == (float("-inf"), float("inf"))


# -- SVG ---------------------------------------------------------------------------------------------------------------


def test_the_colours_of_the_dark_are_the_same_in_pages_and_in_files() -> None:
    sheet = (Path(__file__).parents[1] / "site" / "assets" / "style.css").read_text("utf-8")
    dark = sheet.split("@media (prefers-color-scheme: dark)", 1)[1]
    named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", dark))
    for part in ("fill", "stroke"):
        rules = dict(re.findall(rf'figure svg \[{part}="(#\w+)"\] {{ {part}: (?:var\(--)?([#\w]+)', dark))
        found = {light: named.get(colour, colour) for light, colour in rules.items()}
        assert found == {light: colour for light, colour in DARK.items() if part == "stroke" or light in found}
        assert len(found) >= 6  # grid lines have no fill
    file = alone('<svg xmlns="x" width="9"><path fill="#1b1f24"/></svg>')
    assert file.startswith('<svg xmlns="x" width="9"><style>@media (prefers-color-scheme:dark){')
    assert all(f'[stroke="{light}"]{{stroke:{colour}}}' in file for light, colour in DARK.items())


def test_circles_are_written_short() -> None:
    drawn = '<path transform="translate(187.05,-9)" d="M2.55,0A2.55,2.55,0,1,1,-2.55,0A2.55,2.55,0,1,1,2.55,0" x="1"/>'
    assert CIRCLE.sub(r"<\1 \2 \3", drawn) == '<187.05 -9 2.55 x="1"/>'
    other = drawn.replace("-2.55,0A2.55,2.55", "-2.55,0A2.55,9")
    assert not CIRCLE.search(other)

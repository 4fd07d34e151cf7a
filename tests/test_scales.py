"""How scores are averaged and shown."""

import math

import pytest

from lossboard.scales import SCALES

PERCENT, RATIO = SCALES["percent"], SCALES["ratio"]


def test_shares_are_shown_in_percent() -> None:
    assert PERCENT.interval(0.8731, 0.004) == "87.3±0.4"
    assert PERCENT.interval(0.8731, math.nan) == "87.3"
    assert PERCENT.interval(math.nan, 0.1) == ""
    assert [PERCENT.difference(x) for x in (0.012, -0.012, 0.0001)] == ["+1.2", "\N{MINUS SIGN}1.2", "0.0"]


def test_ratios_are_averaged_as_logarithms() -> None:
    mean = (RATIO.inward(2.0) + RATIO.inward(0.5)) / 2
    assert RATIO.outward(mean) == pytest.approx(1), "twice as fast and half as fast make no difference"
    assert RATIO.interval(math.log(1.63), 0.01) == "1.63±0.02"
    assert RATIO.width(math.log(2), math.log(2)) == pytest.approx((4 - 1) / 2)
    assert RATIO.difference(math.log(1.5)) == "1.50"
    assert RATIO.inward(0.0) == -math.inf
    assert RATIO.tick(RATIO.place(math.log(2))) == "2"


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_outward_undoes_inward(scale) -> None:
    for value in (0.1, 0.5, 1.0):
        assert scale.outward(scale.inward(value)) == pytest.approx(value)

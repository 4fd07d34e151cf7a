"""The roofline: arithmetic of made-up machines, and that a real one is measured."""

import pytest
import torch

from kernels import traffic
from lossboard.measure.roofline import Means, Roofline, measured

MADE = Roofline(10.0, 20.0, 40.0, {"float32": 5.0, "bfloat16": 50.0}, 1 << 20, 1, "cpu", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("read", "written", "flops", "seconds"),
    [
        (100, 0, 0, 10),  # at the speed of a read
        (100, 100, 0, 5),  # at that of the faster copy, which moves both
        (100, 40, 0, 2 + 6),
        (0, 100, 0, 2.5),
        (100, 0, 45, 10),  # the traffic takes longer than the arithmetic
        (100, 0, 55, 11),
    ],
)
def test_the_longer_of_traffic_and_arithmetic(read, written, flops, seconds):
    assert MADE.least_seconds(read, written, flops, "float32") == pytest.approx(seconds)
    assert MADE.share(read, written, flops, "float32", 2 * seconds) == pytest.approx(0.5)


def test_a_rate_that_is_not_known_is_named():
    assert MADE.least_seconds(100, 0, 0, "float64") == 10
    with pytest.raises(ValueError, match="float64; there are: float32, bfloat16"):
        MADE.least_seconds(100, 0, 1, "float64")


def test_this_machine():
    before = torch.get_float32_matmul_precision()
    moves = Means(traffic.read, traffic.copy, traffic.copy_past_caches)
    found = measured(moves, buffer_bytes=1 << 22, dtypes=("float32", "float8_e8m0fnu"), budget_s=0)
    assert min(found.read, found.copy, found.stream, *found.flops.values()) > 0
    assert set(found.flops) == {"float32", "float32-medium"}
    assert (found.buffer_bytes, found.threads, found.device) == (1 << 22, torch.get_num_threads(), "cpu")
    assert torch.get_float32_matmul_precision() == before


def test_what_moves_bytes_is_told_which():
    seen = []

    def move(*tensors):
        seen.append(tuple(t.nbytes for t in tensors))

    measured(Means(move, move, move), buffer_bytes=4096, dtypes=(), budget_s=0)
    assert set(seen) == {(4096,), (4096, 4096)}

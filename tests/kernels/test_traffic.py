"""Reads and copies: of every element, of no other, at every length."""

import pytest
import torch

from kernels import traffic
from kernels.native import SMALL

LENGTHS = [0, 1, 15, 16, 63, 64, 65, 1000, SMALL + 77]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_read_sees_every_element(n, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert traffic.read(torch.ones(n)) == n
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("copy", [traffic.copy, traffic.copy_past_caches])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_copy_writes_its_elements_and_nothing_else(copy, n):
    x, around = torch.randn(n), torch.full((n + 64,), 7.0)
    first = -(around.data_ptr() // 4) % 16  # aligned
    copy(x, around[first : first + n])
    assert torch.equal(around[first : first + n], x)
    assert (around[:first] == 7).all()
    assert (around[first + n :] == 7).all()


def test_what_cannot_be_copied_is_refused():
    x = torch.zeros(64)
    with pytest.raises(ValueError, match="no multiple of"):
        traffic.copy_past_caches(x[1:], x.clone()[1:])
    with pytest.raises(ValueError, match="64 elements and out 63"):
        traffic.copy(x, x[1:])
    with pytest.raises(ValueError, match="contiguous float32"):
        traffic.read(x.double())
    with pytest.raises(ValueError, match="contiguous float32"):
        traffic.read(x[::2])

"""Softmax: every implementation against the definition in float64."""

import math
import sys

import pytest
import torch

import kernels
from kernels.registry import Unsupported, on
from lossboard.measure import gate
from reference.methods import UnknownMethod
from reference.ops import cases
from reference.ops.cases import drawn
from reference.ops.softmax import softmax

ALL = on("softmax", "cpu")
QUICK = [id for id in ALL if id != "compiled"]  # which compiles for every shape
every = pytest.mark.parametrize("impl", QUICK)
INF, NAN = math.inf, math.nan


def relative_error(y, x):
    exact = softmax(x.double())
    normal = exact > 2 * torch.finfo(torch.float32).tiny
    return ((y.double() - exact) / exact)[normal].abs().max().item()


@pytest.mark.parametrize("impl", ALL)
def test_passes_the_gate(impl):
    inputs = cases.softmax(one_shape=impl == "compiled")
    assert gate(lambda x: kernels.softmax(x, impl=impl), softmax, inputs).faults == ()


@every
@pytest.mark.parametrize("n", [1, 2, 7, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000, 16384, 16385, 40001])
def test_sizes(impl, n):
    x = drawn(3, n)
    before = x.clone()
    y = kernels.softmax(x, impl=impl)
    assert relative_error(y, x) < (1e-5 if impl == "eager" else 1e-6)
    assert torch.equal(x, before)


@every
@pytest.mark.parametrize("n", [1, 31, 129])
def test_writes_its_rows_and_nothing_else(impl, n):
    around = torch.full((n + 64,), 7.0)
    kernels.softmax(drawn(n), out=around[32 : 32 + n], impl=impl)
    assert (around[:32] == 7).all()
    assert (around[32 + n :] == 7).all()
    assert around[32 : 32 + n].sum().item() == pytest.approx(1)


ODD = {
    "large": [1e4, -1e4, 9999.5],
    "huge": [1e38, -1e38, 1e38],
    "all huge": [-3e38, -3e38, -3e38],
    "masked": [-INF, 0.0, 1.0],
    "nothing": [-INF, -INF, -INF],
    "infinite": [INF, 0.0, 1.0],
    "nan": [NAN, 0.0, 1.0],
    "one": [3.0],
    "far": [-7e4, -7e4 + 1, -7e4 - 2],
    "wide": [3e5, 2.5e5, 3e5 - 4],
    "beyond the two-pass floor": [-1e7, -1e7 + 1, -1e7 - 2],
}


@every
@pytest.mark.parametrize("values", ODD.values(), ids=ODD)
@pytest.mark.parametrize("repeats", [1, 70])
@pytest.mark.parametrize("back", [False, True])
def test_odd_logits_are_as_eager(impl, values, repeats, back):
    x = torch.tensor(values).repeat(repeats)
    x = x.flip(0) if back else x
    torch.testing.assert_close(kernels.softmax(x, impl=impl), softmax(x), equal_nan=True, rtol=2e-6, atol=0)


@every
@pytest.mark.parametrize("place", [0, 100, 20000, 39999])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 50.0])
def test_one_odd_value_anywhere_in_a_row(impl, place, value):
    x = drawn(2, 40000)
    x[1, place] = value
    y, expected = kernels.softmax(x, impl=impl), softmax(x.double()).float()
    torch.testing.assert_close(y, expected, equal_nan=True, rtol=1e-6 if impl != "eager" else 1e-4, atol=1e-12)


@every
@pytest.mark.parametrize("rise", [20.0, 69.0, 71.0, 120.0, 1e4])
def test_one_logit_far_above_the_first_block(impl, rise):
    """A float32 difference to a maximum far below it would cost it 4e-6."""
    x = torch.zeros(3 * 4096)
    x[:4096] = 0.999996
    x[2 * 4096 + 5] = rise - 4.0
    assert relative_error(kernels.softmax(x, impl=impl), x) < (1e-5 if impl == "eager" else 1e-6)


@every
@pytest.mark.parametrize("rise", [20.0, 69.0, 71.0, 120.0, 1e4])
def test_rows_that_rise_behind_their_first_block(impl, rise):
    x = drawn(3 * 4096 + 37)
    x[4096:] += rise
    assert relative_error(kernels.softmax(x, impl=impl), x) < (1e-5 if impl == "eager" else 1e-6)
    assert relative_error(kernels.softmax(x.flip(0), impl=impl), x.flip(0)) < (1e-5 if impl == "eager" else 1e-6)


@every
@pytest.mark.parametrize("mask", [-1e4, -1e9, -1e30, torch.finfo(torch.float32).min, -INF])
@pytest.mark.parametrize("first", [0, 5000, 12300])
def test_masked_rows(impl, mask, first):
    x = drawn(3 * 4096 + 37)
    x[first::3] = mask
    y = kernels.softmax(x, impl=impl)
    assert (y[first::3] == 0).all()
    assert relative_error(y, x) < (1e-5 if impl == "eager" else 1e-6)


@every
def test_small_results_keep_their_relative_error(impl):
    x = torch.linspace(-80, 4, 5000)
    assert relative_error(kernels.softmax(x, impl=impl), x) < (5e-6 if impl == "eager" else 1e-6)


@every
def test_many_equal_logits(impl):
    n = 3 * 2**20 + 5
    y = kernels.softmax(torch.full((n,), 3.0), impl=impl)
    assert y.max().item() == y.min().item()
    assert y[0].item() * n == pytest.approx(1, rel=1e-6 if impl != "eager" else 1e-2)


@every
def test_layouts(impl):
    x = drawn(33, 65).T
    expected = softmax(x.double()).float()
    torch.testing.assert_close(kernels.softmax(x, impl=impl), expected, rtol=2e-6, atol=0)
    x = drawn(2, 3, 40)
    torch.testing.assert_close(kernels.softmax(x[:, ::2], impl=impl), softmax(x[:, ::2]), rtol=2e-6, atol=0)
    assert kernels.softmax(torch.empty(0, 5), impl=impl).shape == (0, 5)
    same = x.clone()
    assert kernels.softmax(same, out=same, impl=impl) is same
    torch.testing.assert_close(same, softmax(x), rtol=2e-6, atol=0)


@pytest.mark.parametrize("impl", [id for id in QUICK if id != "eager"])
@pytest.mark.parametrize("shape", [(1 << 18,), (2, 1 << 17), (5, 40000), (2, 3, 50001)])
def test_threads_agree_with_one(impl, shape):
    x = drawn(*shape)
    one = kernels.softmax(x, impl=impl)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        torch.testing.assert_close(kernels.softmax(x, impl=impl), one, rtol=1e-6, atol=0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("impl", [id for id in QUICK if id != "eager"])
def test_past_the_caches(impl, monkeypatch):
    for module in ("online", "auto"):  # by sys.modules: kernels.softmax is the function
        monkeypatch.setattr(sys.modules[f"kernels.softmax.{module}"], "cache_bytes", lambda: 0)
    for n in (1, 15, 100, 4097):
        x, y = drawn(3, n), torch.empty(3 * n + 5)
        for offset in range(5):  # of which only one is aligned
            out = y[offset : offset + 3 * n].view(3, n)
            assert relative_error(kernels.softmax(x, out=out, impl=impl), x) < 1e-6


def test_errors_say_what_is_possible():
    with pytest.raises(UnknownMethod, match="two_pass"):
        kernels.softmax(torch.zeros(3), impl="twopass")
    with pytest.raises(Unsupported, match=r"float32, not torch\.float64"):
        kernels.softmax(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(Unsupported, match="contiguous"):
        kernels.softmax(torch.zeros(3, 4), out=torch.zeros(4, 3).T)

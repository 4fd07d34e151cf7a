"""Softmax in Triton against the definition in float64."""

import math

import pytest
import torch
from triton_place import DEVICE, drawn, on_a_gpu

import kernels
from kernels.registry import Unsupported, catalogue
from lossboard.measure import gate
from reference.ops.softmax import softmax

IDS = [id for id, found in catalogue("softmax").items() if "triton" in found.needs]
INF, NAN = math.inf, math.nan
every = pytest.mark.parametrize("impl", IDS)


def test_all_are_here():
    assert {"triton_row", "triton_online", "triton_three_pass", "triton_two_pass", "triton_split"} < set(IDS)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_the_gate(impl, dtype):
    cases = {f"{n} logits": {"x": drawn(3, n, dtype=dtype)} for n in (1, 2, 127, 128, 129, 4095, 4097, 20001)}
    cases |= {
        "large": {"x": drawn(3, 50, scale=1e4, dtype=dtype)},
        "many rows": {"x": drawn(100, 7, dtype=dtype)},
        "row": {"x": drawn(40, dtype=dtype)},
        "strided": {"x": drawn(7, 5, dtype=dtype).T},
    }
    assert gate(lambda x: kernels.softmax(x, impl=impl), softmax, cases).faults == ()


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
    "beyond the two-pass floor": [-1e7, -1e7 + 1, -1e7 - 2],
}


@every
@pytest.mark.parametrize("values", ODD.values(), ids=ODD)
@pytest.mark.parametrize("repeats", [1, 3000])
def test_odd_logits_are_as_the_definition_has_them(impl, values, repeats):
    x = torch.tensor(values, device=DEVICE).repeat(repeats)
    torch.testing.assert_close(kernels.softmax(x, impl=impl), softmax(x), equal_nan=True, rtol=2e-6, atol=0)


@every
@pytest.mark.parametrize("place", [0, 9999])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 50.0])
def test_one_odd_value_anywhere_in_a_row(impl, place, value):
    x = drawn(2, 10000)
    x[1, place] = value
    expected = softmax(x.double()).float()
    torch.testing.assert_close(kernels.softmax(x, impl=impl), expected, equal_nan=True, rtol=4e-6, atol=1e-12)


@every
def test_writes_its_rows_and_nothing_else(impl):
    around = torch.full((129 + 64,), 7.0, device=DEVICE)
    kernels.softmax(drawn(129), out=around[32 : 32 + 129], impl=impl)
    assert (around[:32] == 7).all()
    assert (around[32 + 129 :] == 7).all()
    assert around[32 : 32 + 129].sum().item() == pytest.approx(1)


@every
def test_in_place(impl):
    x = drawn(2, 9000)
    expected = softmax(x)
    assert kernels.softmax(x, out=x, impl=impl) is x
    torch.testing.assert_close(x, expected, rtol=5e-6, atol=0)


@pytest.mark.parametrize("shape", [(3, 200), (2, 40000), (6, 33000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_choice_by_size(shape, dtype):
    x = drawn(*shape, dtype=dtype)
    found = kernels.softmax(x, impl="triton_auto")
    torch.testing.assert_close(
        found, softmax(x.double()).to(dtype), rtol=5e-6 if dtype is torch.float32 else 1e-2, atol=0
    )


def test_rows_too_long_for_registers_are_refused():
    with pytest.raises(Unsupported, match="triton_split"):
        kernels.softmax(drawn(40000), impl="triton_row")


@on_a_gpu
@pytest.mark.parametrize("impl", [id for id in IDS if id != "triton_row"])
def test_many_equal_logits(impl):
    n = 3 * 2**20 + 5
    y = kernels.softmax(torch.full((n,), 3.0, device=DEVICE), impl=impl)
    assert y.max().item() == y.min().item()
    assert y[0].item() * n == pytest.approx(1, rel=2e-6)


@on_a_gpu
def test_the_choice_by_device():
    x = drawn(5, 300)
    assert torch.equal(kernels.softmax(x), kernels.softmax(x, impl="triton_auto"))

"""Products by oneDNN or by torch.mm are the same but for rounding, whatever the layout; sums go into what is given."""

import pytest
import torch

from kernels import products
from kernels.products import add_product_, by_onednn, product

LARGE = (65, 129, 257)  # rows, inner, columns: beyond LEAST


@pytest.fixture(params=[False, True], ids=["mm", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both libraries, oneDNN where this machine's torch has it, wide vectors or not."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    monkeypatch.setattr(products, "_fused", lambda: request.param)
    return request.param


def _factors(dtype: torch.dtype, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    n, k, m = LARGE
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator).to(dtype) for shape in ((n, k), (k, m)))
    if layout == "transposed":
        a, b = a.T.contiguous().T, b.T.contiguous().T
    if layout == "strided":
        a, b = torch.cat([a, a], 1)[:, ::2][:, :k], torch.cat([b, b])[1 : 1 + k]
    return a, b


@pytest.mark.parametrize("layout", ["plain", "transposed", "strided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_product_is_the_same_to_rounding(library: bool, dtype: torch.dtype, layout: str) -> None:
    a, b = _factors(dtype, layout)
    assert by_onednn(a, b) == (library and dtype is torch.float32)
    exact = a.double() @ b.double()
    found = product(a, b)
    assert found.dtype is dtype
    # each of the sum's terms is rounded once, and the sum at most once for each
    allowed = 2 * a.shape[1] * torch.finfo(dtype).eps * (a.double().abs() @ b.double().abs())
    assert bool(((found.double() - exact).abs() <= allowed).all())


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_gets_the_product(
    library: bool, kind: torch.dtype, dtype: torch.dtype, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_twice", lambda: twice)
    monkeypatch.setattr(products, "ROWS", 16)  # several parts, the last one short
    a, b = _factors(dtype, "plain")
    total = torch.ones(len(a), b.shape[1], dtype=kind)
    add_product_(total, a, b)
    torch.testing.assert_close(total, 1 + product(a, b).to(kind), rtol=1e-4, atol=1e-4)


def test_what_is_no_number_stays_so(library: bool) -> None:
    a, b = _factors(torch.float32, "plain")
    a[1, 2], a[3, 4] = torch.nan, torch.inf
    found = product(a, b)
    assert found[1].isnan().all()
    assert not found[3].isfinite().any()
    assert found[[0, 2]].isfinite().all()

"""What Triton's compiler makes of the kernels, for cards that need not be there."""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from benchmarks.gpu_code import CUOBJDUMP, SHARED_BYTES, compiled

pytestmark = pytest.mark.skipif(
    not CUOBJDUMP.exists() or os.environ.get("TRITON_INTERPRET") == "1",
    reason="Triton came without its tools, or interprets",
)
PRODUCTS = {"_log_sum_exp", "_gradients", "_d_weight", "_d_hidden", "_products"}
SUMS = {"_own_logit", "_d_bias", "_collect"}
OF_ROWS = {"_in_registers", "_online", "_two_passes", "_three_passes", "_states", "_write", "_gradient"}
BFLOAT16 = {80: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 90: "wgmma.mma_async.sync.aligned.m64"}
CASES = [(90, torch.bfloat16, None), (80, torch.bfloat16, "linear"), (90, torch.float32, "linear")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"sm_{case[0]}-{str(case[1])[6:]}")
def code(request):
    capability, dtype, only = request.param
    return capability, dtype, compiled(capability, dtype, only)


def test_every_kernel_is_compiled(code):
    names = {each.name for each in code[2]}
    assert names >= PRODUCTS | SUMS
    assert names == PRODUCTS | SUMS or names >= OF_ROWS
    assert {"LISTED=True" in each.options for each in code[2] if each.name == "_d_weight"} == {True, False}


def test_nothing_is_spilled(code):
    assert [each for each in code[2] if each.local_bytes] == []


def test_shared_memory_is_there(code):
    capability, _, kernels = code
    assert [each for each in kernels if each.shared_bytes > SHARED_BYTES[capability]] == []


def test_products_are_of_matrices(code):
    capability, dtype, kernels = code
    products = [each for each in kernels if each.name in PRODUCTS]
    assert products
    for each in products:
        wanted = BFLOAT16[capability] if dtype is torch.bfloat16 else "tf32"
        assert any(wanted in instruction for instruction in each.matrix), each

"""Two passes without a maximum: sums are v 2^e with e as a float, which cannot overflow. Two reads, one write."""

import math

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import BLOCK, DEVICE, FLOATS, INTERPRETED, WARPS, state, there, write_softmax
from kernels.registry import kernel

LOG2E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts, of which the first has 15 bits: times n it is exact, or fused with what follows.
LN2_HIGH, LN2_LOW = tl.constexpr(float.fromhex("0x1.62E4p-1")), tl.constexpr(math.log(2) - float.fromhex("0x1.62E4p-1"))
# A row whose sum is beyond 2^+-LIMIT is done otherwise; what is raised to FLOOR is 0 beside any other sum. The
# interpreter rounds twice where a GPU has a fused multiply-add.
LIMIT = tl.constexpr(128.0 if INTERPRETED else 2.0**17)
FLOOR = tl.constexpr(-256.0 if INTERPRETED else -(2.0**18))


@triton.jit
def _halves(x):  # type: ignore[no-untyped-def]
    """exp(x) as (m, n): m 2^n with n an integer, m in [sqrt 1/2, sqrt 2]."""
    raised = tl.where(x < FLOOR, FLOOR, x)
    n = tl.floor(raised * LOG2E + 0.5)
    return tl.exp(tl.fma(n, -LN2_LOW, tl.fma(n, -LN2_HIGH, raised))), n


@triton.jit
def _two_to(n):  # type: ignore[no-untyped-def]
    """2^n for integers n <= 0, made of bits; 0 below 2^-126."""
    return ((tl.maximum(n, -127.0).to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _two_passes(src, dst, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * n
    e = tl.full((BLOCK,), 2 * FLOOR, tl.float32)
    v = tl.zeros((BLOCK,), tl.float32)
    for i in range(0, n, BLOCK):
        at = i + tl.arange(0, BLOCK)
        x = tl.load(src + row + at, mask=at < n, other=-float("inf")).to(tl.float32)
        m, power = _halves(x)
        m = tl.where(at < n, m, 0.0)
        top = tl.maximum(e, power)
        v = v * _two_to(e - top) + m * _two_to(power - top)
        e = top
    top = tl.max(e, 0)
    total = tl.sum(v * _two_to(e - top), 0)
    if (top > -LIMIT) & (top < LIMIT) & (total == total):
        for i in range(0, n, BLOCK):
            at = i + tl.arange(0, BLOCK)
            x = tl.load(src + row + at, mask=at < n, other=0.0).to(tl.float32)
            m, power = _halves(x)
            tl.store(dst + row + at, m / total * _two_to(power - top), mask=at < n)
    else:
        m, s = state(src + row, 0, n, BLOCK)
        write_softmax(src + row, dst + row, 0, n, m, s, BLOCK)


@kernel("softmax", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_two_pass(x: Tensor, out: Tensor) -> None:
    """The Two-Pass Softmax Algorithm (Dukhan & Ablavatski, IPDPSW 2020, arXiv:2001.04438), its algorithm 3.

    A program a row. Rows whose maximum is beyond +-2^16, infinities and NaN, of which the paper says nothing, take the
    online pass. Results below 2^-126 are 0.
    """
    n = x.shape[-1]
    with there(x):
        _two_passes[x.numel() // n,](x, out, n, BLOCK=BLOCK, num_warps=WARPS)

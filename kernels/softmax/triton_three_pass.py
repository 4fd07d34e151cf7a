"""Three passes, exp twice: the maximum; the sum of exp; exp again and the write. Three reads, one write."""

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import BLOCK, DEVICE, FLOATS, WARPS, finite, there, write_softmax
from kernels.registry import kernel


@triton.jit
def _three_passes(src, dst, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * n
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    for i in range(0, n, BLOCK):
        at = i + tl.arange(0, BLOCK)
        top = tl.maximum(top, tl.load(src + row + at, mask=at < n, other=-float("inf")).to(tl.float32))
    m = tl.max(top, 0)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(0, n, BLOCK):
        at = i + tl.arange(0, BLOCK)
        total += tl.exp(tl.load(src + row + at, mask=at < n, other=-float("inf")).to(tl.float32) - finite(m))
    write_softmax(src + row, dst + row, 0, n, m, tl.sum(total, 0), BLOCK)


@kernel("softmax", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_three_pass(x: Tensor, out: Tensor) -> None:
    """Algorithm 1 of Dukhan & Ablavatski 2020 (arXiv:2001.04438), a program a row."""
    n = x.shape[-1]
    with there(x):
        _three_passes[x.numel() // n,](x, out, n, BLOCK=BLOCK, num_warps=WARPS)

"""Two passes, exp twice and a rescaling: a running maximum and sum in each lane; the write. Two reads, one write."""

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import BLOCK, DEVICE, FLOATS, WARPS, state, there, write_softmax
from kernels.registry import kernel


@triton.jit
def _online(src, dst, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * n
    m, s = state(src + row, 0, n, BLOCK)
    write_softmax(src + row, dst + row, 0, n, m, s, BLOCK)


@kernel("softmax", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_online(x: Tensor, out: Tensor) -> None:
    """Online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867), a program a row."""
    n = x.shape[-1]
    with there(x):
        _online[x.numel() // n,](x, out, n, BLOCK=BLOCK, num_warps=WARPS)

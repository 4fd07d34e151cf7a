"""A row, or several short ones, in the registers of a program: one read, one write."""

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import DEVICE, FLOATS, there
from kernels.registry import Unsupported, kernel

LONGEST = 1 << 15  # of float32, 32 registers of each of 1024 threads
TOGETHER = 2048  # elements of short rows that make a program
PER_WARP = 512  # elements: 16 a thread


@triton.jit
def _in_registers(src, dst, rows, n, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < n)[None, :]
    at = row.to(tl.int64)[:, None] * n + column[None, :]
    x = tl.load(src + at, mask=inside, other=-float("inf")).to(tl.float32)
    y = tl.exp(x - tl.max(x, 1)[:, None])
    tl.store(dst + at, y / tl.sum(y, 1)[:, None], mask=inside)


@kernel("softmax", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_row(x: Tensor, out: Tensor) -> None:
    """Rows of up to 2^15: maximum, exp and sum of what is in registers.

    Raises:
        Unsupported: the rows are longer.
    """
    n = x.shape[-1]
    if n > LONGEST:
        raise Unsupported(f"'triton_row' takes rows of up to {LONGEST}, not {n}: use 'triton_online' or 'triton_split'")
    rows, block = x.numel() // n, triton.next_power_of_2(n)
    several = max(1, TOGETHER // block)
    warps = min(32, max(1, several * block // PER_WARP))
    with there(x):
        _in_registers[triton.cdiv(rows, several),](x, out, rows, n, ROWS=several, BLOCK=block, num_warps=warps)

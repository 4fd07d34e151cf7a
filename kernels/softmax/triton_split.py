"""Rows that many programs share: a state of each part; all states of a row merged, and its part written by each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import BLOCK, DEVICE, FLOATS, WARPS, merged, multiprocessors, state, there, write_softmax
from kernels.registry import kernel

EACH = 4  # programs of each multiprocessor: they end at different times
MOST = 1024  # parts of a row, whose states a program merges at once


@triton.jit
def _states(src, ms, ss, n, span, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    m, s = state(src + row.to(tl.int64) * n, part * span, tl.minimum(part * span + span, n), BLOCK)
    tl.store(ms + row * parts + part, m)
    tl.store(ss + row * parts + part, s)


@triton.jit
def _write(src, dst, ms, ss, n, span, PARTS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    at = tl.arange(0, PARTS)
    m, s = merged(
        tl.load(ms + row * parts + at, mask=at < parts, other=-float("inf")),
        tl.load(ss + row * parts + at, mask=at < parts, other=0.0),
    )
    start = row.to(tl.int64) * n
    write_softmax(src + start, dst + start, part * span, tl.minimum(part * span + span, n), m, s, BLOCK)


@kernel("softmax", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_split(x: Tensor, out: Tensor) -> None:
    """For few long rows: two launches, two reads, one write, and 8 bytes for each part."""
    n = x.shape[-1]
    rows = x.numel() // n
    wanted = min(MOST, triton.cdiv(EACH * multiprocessors(x), rows), triton.cdiv(n, BLOCK))
    span = triton.cdiv(n, wanted * BLOCK) * BLOCK
    parts = triton.cdiv(n, span)
    m, s = torch.empty(2, rows, parts, dtype=torch.float32, device=x.device)
    with there(x):
        _states[rows, parts](x, m, s, n, span, BLOCK=BLOCK, num_warps=WARPS)
        states = triton.next_power_of_2(parts)
        _write[rows, parts](x, out, m, s, n, span, PARTS=states, BLOCK=BLOCK, num_warps=WARPS)

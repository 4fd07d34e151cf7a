"""One pass, one read, by Triton; rows that many programs share where there are few."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import BLOCK, DEVICE, FLOATS, WARPS, multiprocessors, state, there
from kernels.registry import kernel

EACH = 4  # programs of each multiprocessor: they end at different times


@triton.jit
def _states(src, ms, ss, n, span, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    m, s = state(src + row * n, part * span, tl.minimum(part * span + span, n), BLOCK)
    tl.store(ms + row * parts + part, m)
    tl.store(ss + row * parts + part, s)


def logsumexp_float64(x: Tensor) -> Tensor:
    """log sum_j exp(x_j) of contiguous x (N, n): (N,) float64, so that exp(x - L) loses nothing where L is large."""
    rows, n = x.shape
    block = min(BLOCK, max(128, triton.next_power_of_2(n)))
    wanted = min(triton.cdiv(EACH * multiprocessors(x), rows), triton.cdiv(n, block))
    span = triton.cdiv(n, wanted * block) * block
    parts = triton.cdiv(n, span)
    m, s = torch.empty(2, rows, parts, dtype=torch.float32, device=x.device)
    with there(x):
        _states[rows, parts](x, m, s, n, span, BLOCK=block, num_warps=min(WARPS, max(1, block // 512)))
    sums = torch.where(m.isinf(), 0, m).double() + s.double().log()
    return sums.squeeze(1) if parts == 1 else torch.logsumexp(sums, 1)


@kernel("logsumexp", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_online(x: Tensor) -> Tensor:
    """Milakov & Gimelshein 2018 (arXiv:1805.02867), a maximum for each lane."""
    return logsumexp_float64(x).to(x.dtype)

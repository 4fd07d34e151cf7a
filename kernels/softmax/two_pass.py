"""Two passes without a maximum: sums are m 2^n with n as a float, which cannot overflow. Two reads, one write."""

import math

import numpy as np
from torch import Tensor

from kernels.native import by_rows, native, threads
from kernels.registry import kernel
from kernels.rows import BLOCK, LN2, NOTHING, merged, state, write
from kernels.softmax.online import by_chunks, past_cache
from kernels.vectors import BYTES, FMA, LANES, halves, largest, load, load_first, maximum, scale, splat, total

FLOOR = np.float32(
    -(2.0**19) if FMA else -256.0
)  # logits are raised to it; a row whose sum is near it or beyond -FLOOR is done otherwise


@native
def _extended(src, n):  # type: ignore[no-untyped-def]
    """The state of a row, from its sum as v 2^e in each lane."""
    floor = splat(FLOOR)
    m, s = np.float32(2 * FLOOR), 0.0
    e = splat(np.float32(2 * FLOOR))
    i = 0
    while i < n:
        stop = min(i + BLOCK, n)
        a = b = c = d = splat(np.float32(0))
        while i + 4 * LANES <= stop:
            at = src + 4 * i
            w, nw = halves(maximum(floor, load(at)))
            x, nx = halves(maximum(floor, load(at + BYTES)))
            y, ny = halves(maximum(floor, load(at + 2 * BYTES)))
            z, nz = halves(maximum(floor, load(at + 3 * BYTES)))
            top = maximum(maximum(maximum(nw, nx), maximum(ny, nz)), e)
            less = e - top
            a, b = scale(a, less) + scale(w, nw - top), scale(b, less) + scale(x, nx - top)
            c, d = scale(c, less) + scale(y, ny - top), scale(d, less) + scale(z, nz - top)
            e = top
            i += 4 * LANES
        while i < stop:
            x, nx = halves(maximum(floor, load_first(src + 4 * i, stop - i, NOTHING)))
            top = maximum(nx, e)
            less = e - top
            a, b, c, d = scale(a, less) + scale(x, nx - top), scale(b, less), scale(c, less), scale(d, less)
            e = top
            i += LANES
        peak = largest(e)
        part = total(scale((a + b) + (c + d), e - splat(peak)))
        m2 = np.float32(peak * LN2)
        m, s = merged(m, s, m2, part * math.exp(peak * LN2 - m2))
    if -0.5 * FLOOR > m > 0.5 * FLOOR and s == s:
        return m, s
    return state(src, n)


@native
def _rows(src, dst, rows, n, past_cache):  # type: ignore[no-untyped-def]
    for i in range(rows):
        at = 4 * n * i
        m, s = _extended(src + at, n)
        write(src + at, dst + at, n, m, s, past_cache)


@kernel("softmax", needs=("numba",))
def two_pass(x: Tensor, out: Tensor) -> None:
    """The Two-Pass Softmax Algorithm (Dukhan & Ablavatski, IPDPSW 2020, arXiv:2001.04438), its algorithm 3.

    Logits beyond +-2^18, infinities and NaN, of which the paper says nothing, take the online pass. Writes past the
    caches where x and out exceed them. Threads share rows, or the chunks of a row.
    """
    size = x.numel()
    if size // x.shape[-1] >= threads(size):
        by_rows(_rows, x, out, past_cache(x))
    else:
        by_chunks(_extended, x, out, past_cache(x))

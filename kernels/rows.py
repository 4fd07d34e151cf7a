"""The passes over one row of float32 that softmax, log-sum-exp and cross-entropy are made of, in vectors.

A row is an address and a count. Its *state* is (m, s): about the maximum, at most 14 below it, and the sum of
exp(x - m) in float64, so that log-sum-exp is m + log s (Milakov & Gimelshein 2018, arXiv:1805.02867). A row with NaN or
+inf has s = NaN; one of -inf alone, 0. Sums run in float32 lanes and are flushed to float64 every BLOCK elements.

What bounds a sum of exp is neither memory nor the count of multiplications but every operation of the two pipes that
multiply and compare (of AMD's Zen 4, where a maximum is one of theirs). So with AVX-512 a block is summed without a
maximum and without care for odd logits, relative to the largest logit that is known; where its sum is no number from
0 to LARGE, the careful pass does it again and may find a larger one.

exp(x - m) / s is written as p(t) 2^(n - e) from x itself (Dukhan & Ablavatski 2020, arXiv:2001.04438): the float32
difference x - m alone would cost the small results up to 4e-6. Rows whose maximum is beyond FAR are shifted first.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kernels.vectors import (
    AVX512,
    BYTES,
    C1,
    C2,
    C3,
    C4,
    C5,
    DEEP,
    FMA,
    LANES,
    LN2_HIGH,
    LN2_LOW,
    LOG2E,
    STREAM_ALIGNMENT,
    any_greater,
    exp,
    fence,
    fma,
    largest,
    load,
    load_first,
    maximum,
    nearest,
    ordinary_exp,
    scale,
    splat,
    store,
    store_first,
    stream,
    total,
)

BLOCK = 64 * LANES  # elements between two flushes: 16 additions a lane, which of equal numbers are off by 1e-6 at most
LOWEST = np.float32(np.finfo(np.float32).min)
NOTHING = np.float32(-np.inf)  # what fills the lanes beyond the end
FAR = 65536.0 if FMA else 0.0
LN2 = math.log(2)
LARGE = 1e6  # a sum of a block is less where no logit is 14 above m: the float32 x - m then costs exp 5e-7 at most


@njit(inline="always")
def merged(m, s, m2, s2):  # type: ignore[no-untyped-def]
    """The state of two parts of a row."""
    if m2 == m:
        return m, s + s2
    if m2 > m:
        return m2, s * math.exp(m - m2) + s2
    return m, s + s2 * math.exp(m2 - m)


@njit
def row_max(src, n):  # type: ignore[no-untyped-def]
    """The maximum; NaN counts as nothing."""
    a = b = c = d = splat(LOWEST)
    i = 0
    while i + 4 * LANES <= n:
        at = src + 4 * i
        a, b = maximum(load(at), a), maximum(load(at + BYTES), b)
        c, d = maximum(load(at + 2 * BYTES), c), maximum(load(at + 3 * BYTES), d)
        i += 4 * LANES
    a = maximum(maximum(a, b), maximum(c, d))
    while i < n:
        a = maximum(load_first(src + 4 * i, n - i, NOTHING), a)
        i += LANES
    return largest(a)


@njit
def _careful_sum(src, n, m):  # type: ignore[no-untyped-def]
    """Sum of exp(x - m), float64, of any logits, for m >= the maximum."""
    shift = splat(m)
    s = 0.0
    i = 0
    while i < n:
        stop = min(i + BLOCK, n)
        a = b = c = d = splat(np.float32(0))
        while i + 4 * LANES <= stop:
            at = src + 4 * i
            a, b = a + exp(load(at) - shift), b + exp(load(at + BYTES) - shift)
            c, d = c + exp(load(at + 2 * BYTES) - shift), d + exp(load(at + 3 * BYTES) - shift)
            i += 4 * LANES
        while i < stop:
            a = a + exp(load_first(src + 4 * i, stop - i, NOTHING) - shift)
            i += LANES
        s += total((a + b) + (c + d))
    return s


@njit
def _careful_state(src, n):  # type: ignore[no-untyped-def]
    """The state of a row of any logits in one pass: each lane keeps its own maximum, and a sum relative to it."""
    m, s = LOWEST, 0.0
    top = splat(LOWEST)
    i = 0
    while i < n:
        stop = min(i + BLOCK, n)
        a = b = c = d = splat(np.float32(0))
        while i + 4 * LANES <= stop:
            at = src + 4 * i
            w, x, y, z = load(at), load(at + BYTES), load(at + 2 * BYTES), load(at + 3 * BYTES)
            peak = maximum(maximum(w, x), maximum(y, z))
            if any_greater(peak, top):
                peak = maximum(peak, top)
                less = exp(top - peak)
                a, b, c, d, top = a * less, b * less, c * less, d * less, peak
            a, b = a + exp(w - top), b + exp(x - top)
            c, d = c + exp(y - top), d + exp(z - top)
            i += 4 * LANES
        while i < stop:
            x = load_first(src + 4 * i, stop - i, NOTHING)
            if any_greater(x, top):
                peak = maximum(x, top)
                less = exp(top - peak)
                a, b, c, d, top = a * less, b * less, c * less, d * less, peak
            a = a + exp(x - top)
            i += LANES
        peak = largest(top)
        part = total(((a + b) + (c + d)) * exp(top - splat(peak)))
        m, s = merged(m, s, peak, part)
    return m, s


@njit
def _block_sum(src, n, m):  # type: ignore[no-untyped-def]
    """Sum of exp(x - m) of at most BLOCK ordinary logits, float64; of others it is right or not in [0, LARGE)."""
    shift = splat(m)
    a = b = c = d = splat(np.float32(0))
    i = 0
    while i + 4 * LANES <= n:
        at = src + 4 * i
        a, b = a + ordinary_exp(load(at) - shift), b + ordinary_exp(load(at + BYTES) - shift)
        c, d = c + ordinary_exp(load(at + 2 * BYTES) - shift), d + ordinary_exp(load(at + 3 * BYTES) - shift)
        i += 4 * LANES
    while i < n:
        a = a + exp(load_first(src + 4 * i, n - i, NOTHING) - shift)
        i += LANES
    return total((a + b) + (c + d))


@njit
def sum_exp(src, n, m):  # type: ignore[no-untyped-def]
    """Sum of exp(x - m), float64, for m >= the maximum."""
    s = 0.0
    i = 0
    while AVX512 and i < n:
        stop = min(i + BLOCK, n)
        part = _block_sum(src + 4 * i, stop - i, m)
        s += part if 0.0 <= part < LARGE else _careful_sum(src + 4 * i, stop - i, m)
        i = stop
    return s + _careful_sum(src + 4 * i, n - i, m)


@njit
def state(src, n):  # type: ignore[no-untyped-def]
    """(m, s) of a row in one pass."""
    if not AVX512:
        return _careful_state(src, n)
    m, s = row_max(src, min(n, BLOCK)), 0.0
    i = 0
    while i < n:
        stop = min(i + BLOCK, n)
        part = _block_sum(src + 4 * i, stop - i, m)
        if 0.0 <= part < LARGE:
            s += part
        else:
            m2, s2 = _careful_state(src + 4 * i, stop - i)
            m, s = merged(m, s, m2, s2)
        i = stop
    return m, s


@njit(inline="always")
def scaled(x, shift, low, e, c0, c1, c2, c3, c4, c5):  # type: ignore[no-untyped-def]
    """exp(x - shift) c0 2^-e, the coefficients being the polynomial's times c0."""
    x = maximum(low, x - shift)
    n = nearest(x * splat(LOG2E))
    t = fma(n, splat(-LN2_LOW), fma(n, splat(-LN2_HIGH), x))
    p = fma(fma(fma(fma(fma(c5, t, c4), t, c3), t, c2), t, c1), t, c0)
    return scale(p, n - e)


@njit(inline="always")
def factors(m, s):  # type: ignore[no-untyped-def]
    """(shift, e, c) such that exp(x - m) / s = c exp(x - shift) 2^-e."""
    shift = 0.0 if abs(m) <= FAR else float(m)
    e = round((m - shift) / LN2)
    return np.float32(shift), np.float32(e), np.float32(1.0 / (s * math.exp((m - shift) - e * LN2)))


@njit
def fill(dst, n, value):  # type: ignore[no-untyped-def]
    """Write one value everywhere."""
    i = 0
    while i + LANES <= n:
        store(dst + 4 * i, splat(value))
        i += LANES
    if i < n:
        store_first(dst + 4 * i, splat(value), n - i)


@njit
def write(src, dst, n, m, s, past_cache, factor=1.0):  # type: ignore[no-untyped-def]
    """factor * exp(x - m) / s, past the caches or not; NaN where s is 0 or NaN. src and dst are one row, or do not
    overlap."""
    if not s > 0.0:
        fill(dst, n, np.float32(np.nan))
        return
    shift_, e_, c_ = factors(m, s)
    c_ = np.float32(c_ * factor)
    shift, low, e = splat(shift_), splat(np.float32(m - shift_) + DEEP), splat(e_)
    c0, c1, c2, c3, c4, c5 = splat(c_), splat(c_ * C1), splat(c_ * C2), splat(c_ * C3), splat(c_ * C4), splat(c_ * C5)
    i = 0
    if past_cache:
        head = min((-dst) % STREAM_ALIGNMENT // 4, n)
        if head:
            value = scaled(load_first(src, head, NOTHING), shift, low, e, c0, c1, c2, c3, c4, c5)
            store_first(dst, value, head)
        i = head
        while i + LANES <= n:
            stream(dst + 4 * i, scaled(load(src + 4 * i), shift, low, e, c0, c1, c2, c3, c4, c5))
            i += LANES
        fence()
    while i + LANES <= n:
        store(dst + 4 * i, scaled(load(src + 4 * i), shift, low, e, c0, c1, c2, c3, c4, c5))
        i += LANES
    if i < n:
        value = scaled(load_first(src + 4 * i, n - i, NOTHING), shift, low, e, c0, c1, c2, c3, c4, c5)
        store_first(dst + 4 * i, value, n - i)


@njit
def write_and_sum(src, dst, n, m):  # type: ignore[no-untyped-def]
    """Write exp(x - m) up to a factor near 1, and return the sum of what was written, float64."""
    shift_, e_, _ = factors(m, 1.0)
    shift, low, e = splat(shift_), splat(np.float32(m - shift_) + DEEP), splat(e_)
    one = splat(np.float32(1))
    c1, c2, c3, c4, c5 = splat(C1), splat(C2), splat(C3), splat(C4), splat(C5)
    s = 0.0
    i = 0
    while i < n:
        stop = min(i + BLOCK, n)
        a = b = c = d = splat(np.float32(0))
        while i + 4 * LANES <= stop:
            at, to = src + 4 * i, dst + 4 * i
            w = scaled(load(at), shift, low, e, one, c1, c2, c3, c4, c5)
            x = scaled(load(at + BYTES), shift, low, e, one, c1, c2, c3, c4, c5)
            y = scaled(load(at + 2 * BYTES), shift, low, e, one, c1, c2, c3, c4, c5)
            z = scaled(load(at + 3 * BYTES), shift, low, e, one, c1, c2, c3, c4, c5)
            store(to, w)
            store(to + BYTES, x)
            store(to + 2 * BYTES, y)
            store(to + 3 * BYTES, z)
            a, b, c, d = a + w, b + x, c + y, d + z
            i += 4 * LANES
        while i < stop:
            x = scaled(load_first(src + 4 * i, stop - i, NOTHING), shift, low, e, one, c1, c2, c3, c4, c5)
            store_first(dst + 4 * i, x, stop - i)
            a = a + x
            i += LANES
        s += total((a + b) + (c + d))
    return s


@njit
def divide(dst, n, s):  # type: ignore[no-untyped-def]
    """Divide a row by s, which gives NaN where s is 0 or NaN."""
    factor = np.float32(1.0 / s) if s > 0.0 else np.float32(np.nan)
    by = splat(factor)
    i = 0
    while i + LANES <= n:
        store(dst + 4 * i, load(dst + 4 * i) * by)
        i += LANES
    if i < n:
        store_first(dst + 4 * i, load_first(dst + 4 * i, n - i, NOTHING) * by, n - i)

"""Nothing but memory traffic: read, copy, and copy past the caches. What no kernel of as many bytes can beat.

All take contiguous float32 tensors on CPU; torch's threads share them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.native import native, shared, threads
from kernels.vectors import (
    BYTES,
    LANES,
    STREAM_ALIGNMENT,
    fence,
    load,
    load_first,
    splat,
    store,
    store_first,
    stream,
    total,
)

STEP = 4 * LANES  # elements of a turn of the loops


@native
def _read(src, n):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    a = b = c = d = splat(zero)
    i = 0
    while i + STEP <= n:
        at = src + 4 * i
        a, b, c, d = a + load(at), b + load(at + BYTES), c + load(at + 2 * BYTES), d + load(at + 3 * BYTES)
        i += STEP
    while i < n:
        a = a + load_first(src + 4 * i, n - i, zero)
        i += LANES
    return total((a + b) + (c + d))


@native
def _copy(src, dst, n, past_caches):  # type: ignore[no-untyped-def]
    i = 0
    if past_caches:
        while i + LANES <= n:
            stream(dst + 4 * i, load(src + 4 * i))
            i += LANES
        fence()
    while i + LANES <= n:
        store(dst + 4 * i, load(src + 4 * i))
        i += LANES
    if i < n:
        store_first(dst + 4 * i, load_first(src + 4 * i, n - i, np.float32(0)), n - i)


def read(x: Tensor) -> float:
    """Read x once; returns its sum, of float32 lanes, so that the reads cannot be left out."""
    src, n = _address(x), x.numel()
    return float(sum(shared(lambda i, j: _read(src + 4 * i, j - i), n, threads(n), STEP)))


def copy(x: Tensor, out: Tensor) -> None:
    """Write x to out, of as many elements: without the line of out in cache, it is read as well."""
    _copy_shared(x, out, False)


def copy_past_caches(x: Tensor, out: Tensor) -> None:
    """Write x to out with stores that go past the caches and read nothing of out.

    Raises:
        ValueError: out does not begin at a multiple of ``STREAM_ALIGNMENT`` bytes.
    """
    if out.data_ptr() % STREAM_ALIGNMENT:
        raise ValueError(f"out begins at {out.data_ptr():#x}, which is no multiple of {STREAM_ALIGNMENT}")
    _copy_shared(x, out, True)


def _copy_shared(x: Tensor, out: Tensor, past_caches: bool) -> None:
    src, dst, n = _address(x), _address(out), x.numel()
    if out.numel() != n:
        raise ValueError(f"x has {n} elements and out {out.numel()}")
    shared(lambda i, j: _copy(src + 4 * i, dst + 4 * i, j - i, past_caches), n, threads(n), STEP)


def _address(x: Tensor) -> int:
    if x.dtype is not torch.float32 or x.device.type != "cpu" or not x.is_contiguous():
        raise ValueError(f"expected contiguous float32 on CPU, found {x.dtype} on {x.device} with strides {x.stride()}")
    return x.data_ptr()

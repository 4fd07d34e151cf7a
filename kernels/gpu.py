"""What Triton kernels share: where they run, and the passes over a row that softmax and log-sum-exp are made of.

With ``TRITON_INTERPRET=1`` in the environment before the import, Triton's interpreter runs them on the CPU, slowly: so
are they tested where there is no GPU. Importing this file needs the package triton.

The state of a row is (m, s): its maximum and the sum of exp(x - m), where m counts as 0 if it is infinite. So a row
with +inf has s = inf, a row of -inf alone has s = 0, and NaN gives s = NaN (Milakov & Gimelshein 2018,
arXiv:1805.02867).
"""

from __future__ import annotations

import contextlib
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
FLOATS = ("float32", "bfloat16")  # what is read and written; between, all is float32
BLOCK = 4096  # elements of a row that a program handles at once
WARPS = 8  # that share them: 16 elements a thread
INTERPRETED_PROCESSORS = 4


def there(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """A context in which kernels run on the device of x; Triton takes the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def multiprocessors(x: Tensor) -> int:
    """How many programs run at the same time at least, on the device of x."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else INTERPRETED_PROCESSORS


@triton.jit
def finite(m):  # type: ignore[no-untyped-def]
    """m, or 0 where it is infinite."""
    return tl.where(tl.abs(m) == float("inf"), 0.0, m)


@triton.jit
def state(src, start, stop, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The state of src[start:stop]: a running maximum and a rescaled sum in each lane, merged at the end."""
    m = tl.full((BLOCK,), -float("inf"), tl.float32)
    s = tl.zeros((BLOCK,), tl.float32)
    for i in range(start, stop, BLOCK):
        at = i + tl.arange(0, BLOCK)
        x = tl.load(src + at, mask=at < stop, other=-float("inf")).to(tl.float32)
        top = tl.maximum(m, x)
        base = finite(top)
        s = s * tl.exp(m - base) + tl.exp(x - base)
        m = top
    return merged(m, s)


@triton.jit
def merged(m, s):  # type: ignore[no-untyped-def]
    """One state of many, given as two vectors."""
    top = tl.max(m, 0)
    return top, tl.sum(s * tl.exp(m - finite(top)), 0)


@triton.jit
def write_softmax(src, dst, start, stop, m, s, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """dst[start:stop] = exp(x - m) / s; NaN where m is infinite."""
    scale = 1 / tl.where(m == float("inf"), float("nan"), s)
    for i in range(start, stop, BLOCK):
        at = i + tl.arange(0, BLOCK)
        x = tl.load(src + at, mask=at < stop, other=0.0).to(tl.float32)
        tl.store(dst + at, tl.exp(x - finite(m)) * scale, mask=at < stop)

"""How kernels are compiled, and how they use threads.

    @native
    def double(src, dst, n): ...

Machine code is kept between processes in ``__pycache__``, in a folder named by the hash of the package's sources: numba
itself would see a change to the file of an entry point only, not to the passes that it calls.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from numba import njit
from numba.core import config
from torch import Tensor

HERE = Path(__file__).parent
SMALL = 1 << 17  # elements that one thread handles faster than it wakes another
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, since threads do not survive a fork, and size


def _sources() -> str:
    """12 hex digits over every file of the package."""
    files = sorted(HERE.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


CACHE = HERE / "__pycache__" / f"native-{_sources()}"


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile an entry point when it is first called; it runs without the interpreter's lock."""
    before = config.CACHE_DIR  # type: ignore[attr-defined]
    config.CACHE_DIR = str(CACHE)  # type: ignore[attr-defined]
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before  # type: ignore[attr-defined]


def threads(elements: int) -> int:
    """How many threads to use: torch's number, which follows OMP_NUM_THREADS, but one for what is small."""
    return 1 if elements < SMALL else torch.get_num_threads()


def shared(work: Callable[[int, int], Any], count: int, parts: int, multiple: int = 1) -> list[Any]:
    """``work(start, stop)`` over [0, count) in that many contiguous parts at once; their results in order.

    Parts begin at a multiple. The caller's thread does the first one. Of nothing there are no parts.
    """
    size = max(1, -(-count // (parts * multiple))) * multiple
    spans = [(start, min(start + size, count)) for start in range(0, count, size)]
    if len(spans) < 2:
        return [work(*span) for span in spans]
    key = os.getpid(), len(spans)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(len(spans) - 1)
    others = [_pools[key].submit(work, *span) for span in spans[1:]]
    first = work(*spans[0])
    return [first, *(other.result() for other in others)]


def by_rows(entry: Callable[..., Any], x: Tensor, out: Tensor, *arguments: Any) -> None:
    """Run ``entry(src, dst, rows, n, *arguments)`` over the rows (..., n) of two contiguous tensors."""
    size, n = x.numel(), x.shape[-1]
    src, dst, rows = x.data_ptr(), out.data_ptr(), size // n
    if size < SMALL:
        entry(src, dst, rows, n, *arguments)
        return

    def part(start: int, stop: int) -> None:
        entry(src + 4 * n * start, dst + 4 * n * start, stop - start, n, *arguments)

    shared(part, rows, min(rows, torch.get_num_threads()))

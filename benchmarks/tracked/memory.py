"""Peak memory of a call, from the kernel's high-water mark of this process."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable

CLEAR = "/proc/self/clear_refs"
MMAP_THRESHOLD = -3  # of mallopt
BLOCK = 1 << 16  # bytes: larger blocks are mappings of their own, which go back to the system when they are freed
REPEATS = 3


def measurable() -> None:
    """Make what is freed go back to the system, so that the peak is of live memory; equal calls then differ by 2 %.

    Raises:
        NotImplementedError: not on Linux with glibc, or the high-water mark cannot be set back.
    """
    if not (os.access(CLEAR, os.W_OK) and hasattr(ctypes.CDLL(None), "malloc_trim")):
        raise NotImplementedError(f"peak memory is measured with glibc and {CLEAR}, which are not both here")
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, BLOCK)


def resident(which: str) -> int:
    """Bytes of this process in memory: VmRSS, now; VmHWM, at most so far (ru_maxrss would count the parent's)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(which))


def beyond(call: Callable[[], object]) -> int:
    """Bytes at the peak of a call beyond those that were resident before it, the least of three; its result counts."""
    return min(_beyond(call) for _ in range(REPEATS))


def _beyond(call: Callable[[], object]) -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed would be used again and not be seen
    with open(CLEAR, "w") as file:
        file.write("5")  # the peak starts anew
    before = resident("VmRSS")
    kept = call()
    peak = resident("VmHWM")
    del kept
    return peak - before

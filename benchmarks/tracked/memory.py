"""Peak memory of a call, from the kernel's high-water mark of this process."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable

CLEAR = "/proc/self/clear_refs"


def measurable() -> None:
    """Raises NotImplementedError where the high-water mark cannot be set back: elsewhere than on Linux."""
    if not os.access(CLEAR, os.W_OK):
        raise NotImplementedError(f"peak memory is measured with {CLEAR}, which is not there or cannot be written")


def resident(which: str) -> int:
    """Bytes of this process in memory: VmRSS, now; VmHWM, at most so far (ru_maxrss would count the parent's)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(which))


def beyond(call: Callable[[], object]) -> int:
    """Bytes at the peak of a call beyond those that were resident before it; its result counts."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed would be used again and not be seen
    with open(CLEAR, "w") as file:
        file.write("5")  # the peak starts anew
    before = resident("VmRSS")
    kept = call()
    peak = resident("VmHWM")
    del kept
    return peak - before

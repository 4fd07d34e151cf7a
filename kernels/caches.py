"""The size of the last-level cache, which decides between algorithms."""

from __future__ import annotations

import functools
from pathlib import Path

UNKNOWN = 16 << 20
SHARE = 0.5  # of the cache that one process may count on


@functools.cache
def cache_bytes() -> int:
    """Bytes that stay in cache between two passes over them."""
    found = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    sizes = [int(text[:-1]) * 1024 for file in found if (text := file.read_text().strip()).endswith("K")]
    return int(SHARE * max(sizes, default=UNKNOWN / SHARE))

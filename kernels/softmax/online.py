"""Two passes, exp twice: maximum and rescaled sum at once; exp again and the write. Two reads, one write."""

from collections.abc import Callable

from torch import Tensor

from kernels.caches import cache_bytes
from kernels.native import by_rows, native, shared, threads
from kernels.registry import kernel
from kernels.rows import merged, state, write
from kernels.vectors import LANES


@native
def _rows(src, dst, rows, n, past_cache):  # type: ignore[no-untyped-def]
    for i in range(rows):
        at = 4 * n * i
        m, s = state(src + at, n)
        write(src + at, dst + at, n, m, s, past_cache)


@native
def _state(src, n):  # type: ignore[no-untyped-def]
    return state(src, n)


@native
def _write(src, dst, n, states, past_cache):  # type: ignore[no-untyped-def]
    m, s = states[0]
    for m2, s2 in states[1:]:
        m, s = merged(m, s, m2, s2)
    write(src, dst, n, m, s, past_cache)


def by_chunks(first: Callable[[int, int], tuple[float, float]], x: Tensor, out: Tensor, past_cache: bool) -> None:
    """Each row in chunks, one a thread: their states by ``first(src, n)``, merged, and the write."""
    n, src, dst = x.shape[-1], x.data_ptr(), out.data_ptr()
    for row in range(0, 4 * x.numel(), 4 * n):

        def scan(i: int, j: int, at: int = src + row) -> tuple[float, float]:
            return first(at + 4 * i, j - i)

        states = tuple(shared(scan, n, threads(n), LANES))

        def finish(i: int, j: int, at: int = row, states: tuple[tuple[float, float], ...] = states) -> None:
            _write(src + at + 4 * i, dst + at + 4 * i, j - i, states, past_cache)

        shared(finish, n, threads(n), LANES)


def past_cache(x: Tensor) -> bool:
    """Whether a tensor and another of its size exceed the cache."""
    return 8 * x.numel() > cache_bytes()


@kernel("softmax", needs=("numba",))
def online(x: Tensor, out: Tensor) -> None:
    """Online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867), a running maximum for each lane.

    Writes past the caches where x and out exceed them. Threads share rows, or the chunks of a row.
    """
    size = x.numel()
    if size // x.shape[-1] >= threads(size):
        by_rows(_rows, x, out, past_cache(x))
    else:
        by_chunks(_state, x, out, past_cache(x))

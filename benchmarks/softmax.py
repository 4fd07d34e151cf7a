"""How fast softmax is on this machine, each implementation beside the traffic that it cannot do without.

    python -m benchmarks.softmax                         rows of 2^10 to 2^26, one thread
    python -m benchmarks.softmax --shapes 64x256000,512x32768,4096x1024 --threads 2

All implementations of a shape are timed in turn in one process, writing to one ``out=``; a number is the median of the
rounds, in picoseconds an element (of processor time with one thread, else of the wall). ``floor`` is the time to read
x, and to read it again and write as much past the caches: what no algorithm with two passes goes below out of cache.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

import torch

import kernels
from kernels.native import native, shared
from kernels.registry import on
from kernels.vectors import BYTES, LANES, fence, load, splat, store, stream, total
from reference.ops.softmax import softmax

ALIGNED = 4 * LANES


@native
def _read(src, n):  # type: ignore[no-untyped-def]
    a = b = c = d = splat(0.0)
    for i in range(0, n - 4 * LANES + 1, 4 * LANES):
        at = src + 4 * i
        a, b, c, d = a + load(at), b + load(at + BYTES), c + load(at + 2 * BYTES), d + load(at + 3 * BYTES)
    return total((a + b) + (c + d))


@native
def _copy(src, dst, n, past_cache):  # type: ignore[no-untyped-def]
    if past_cache:
        for i in range(0, n - LANES + 1, LANES):
            stream(dst + 4 * i, load(src + 4 * i))
        fence()
    else:
        for i in range(0, n - LANES + 1, LANES):
            store(dst + 4 * i, load(src + 4 * i))


def floor(x: torch.Tensor, out: torch.Tensor) -> None:
    """Read x; read x and write out past the caches."""
    src, dst, parts = x.data_ptr(), out.data_ptr(), torch.get_num_threads()
    shared(lambda i, j: _read(src + 4 * i, j - i), x.numel(), parts, ALIGNED)
    shared(lambda i, j: _copy(src + 4 * i, dst + 4 * i, j - i, True), x.numel(), parts, ALIGNED)


def measure(
    work: dict[str, Callable[[], object]], rounds: int, calls: int, clock: Callable[[], int]
) -> dict[str, float]:
    """Median nanoseconds a call of each, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for name in work:
        work[name]()
    for _ in range(rounds):
        for name, call in work.items():
            start = clock()
            for _ in range(calls):
                call()
            taken[name].append((clock() - start) / calls)
    return {name: statistics.median(values) for name, values in taken.items()}


def error(y: torch.Tensor, x: torch.Tensor) -> float:
    """The largest relative error of what float32 can hold."""
    worst = 0.0
    for found, row in zip(y.reshape(-1, y.shape[-1]), x.reshape(-1, x.shape[-1]), strict=True):
        exact = softmax(row.double())
        worst = max(worst, ((found - exact).abs_() / exact)[exact > 1e-37].max().item())
    return worst


def line(shape: tuple[int, ...], ids: list[str], rounds: int, clock: Callable[[], int]) -> str:
    """The row of a shape in the table."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    out = torch.zeros_like(x)
    work: dict[str, Callable[[], object]] = {id: functools.partial(kernels.softmax, x, out, impl=id) for id in ids}
    work["floor"] = functools.partial(floor, x, out)
    found = measure(work, rounds, max(1, (1 << 19) // x.numel()), clock)
    each = {id: taken / x.numel() * 1e3 for id, taken in found.items()}
    cells = [f"{each[id]:6.0f}|{error(kernels.softmax(x, impl=id), x):.1e}" for id in ids]
    return " ".join(f"{cell:>14}" for cell in [*cells, f"{each['floor']:.0f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", help="comma-separated, as 1024 or 64x256000")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="comma-separated implementations")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    ids = options.only.split(",") if options.only else on("softmax", "cpu")
    texts = options.shapes.split(",") if options.shapes else [str(1 << k) for k in range(10, 27)]
    clock = time.thread_time_ns if options.threads == 1 else time.perf_counter_ns
    print(f"{'shape':>12} " + " ".join(f"{id[:14]:>14}" for id in [*ids, "floor"]) + "   (ps an element | worst error)")
    for text in texts:
        print(f"{text:>12}", line(tuple(map(int, text.split("x"))), ids, options.rounds, clock), flush=True)


if __name__ == "__main__":
    main()

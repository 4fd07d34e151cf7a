"""How fast softmax is on this machine, each implementation beside the traffic that it cannot do without.

    python -m benchmarks.softmax                         rows of 2^10 to 2^26, one thread
    python -m benchmarks.softmax --shapes 64x256000,512x32768,4096x1024 --threads 2

Implementations write to one ``out=``; a number is the median of rounds in turn, in picoseconds an element, and beside
it the largest relative error. ``floor`` is the time to read x, and to read it again and write as much past the caches:
what no algorithm with two passes goes below out of cache.
"""

from __future__ import annotations

import argparse
import functools
import os

import torch

import kernels
from kernels import traffic
from kernels.registry import on
from lossboard.measure.timing import Call, interleaved
from reference.ops.softmax import softmax


def floor(x: torch.Tensor, out: torch.Tensor) -> None:
    """Read x; read x and write out past the caches."""
    traffic.read(x)
    traffic.copy_past_caches(x, out)


def error(y: torch.Tensor, x: torch.Tensor) -> float:
    """The largest relative error of what float32 can hold."""
    worst = 0.0
    for found, row in zip(y.reshape(-1, y.shape[-1]), x.reshape(-1, x.shape[-1]), strict=True):
        exact = softmax(row.double())
        worst = max(worst, ((found - exact).abs_() / exact)[exact > 1e-37].max().item())
    return worst


def line(shape: tuple[int, ...], ids: list[str], budget_s: float) -> str:
    """The row of a shape in the table."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    out = torch.zeros_like(x)
    work: dict[str, Call] = {id: functools.partial(kernels.softmax, x, out, impl=id) for id in ids}
    work["floor"] = functools.partial(floor, x, out)
    found = interleaved(work, budget_s=budget_s)
    each = {name: times.median_s / x.numel() * 1e12 for name, times in found.items()}
    cells = [f"{each[id]:6.0f}|{error(kernels.softmax(x, impl=id), x):.1e}" for id in ids]
    return " ".join(f"{cell:>14}" for cell in [*cells, f"{each['floor']:.0f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", help="comma-separated, as 1024 or 64x256000")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for the rounds of a shape")
    parser.add_argument("--only", help="comma-separated implementations")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    ids = options.only.split(",") if options.only else on("softmax", "cpu")
    texts = options.shapes.split(",") if options.shapes else [str(1 << k) for k in range(10, 27)]
    print(f"{'shape':>12} " + " ".join(f"{id[:14]:>14}" for id in [*ids, "floor"]) + "   (ps an element | worst error)")
    for text in texts:
        print(f"{text:>12}", line(tuple(map(int, text.split("x"))), ids, options.budget), flush=True)


if __name__ == "__main__":
    main()

"""Processor seconds of GPTQ and SparseGPT on one large layer, beside the time of its products at this machine's rate.

python -m benchmarks.compression 4096     outputs and inputs of the layer

The floor is what the factorisation and the triangle's inverse (two thirds of d^3 in float64), as the paper has it, and
the changes of later columns (o d^2 in float32) would take as plain matrix products. Ours does without the inverse.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from reference.compressors.gptq import rounded
from reference.compressors.grid import Grid
from reference.compressors.layers import moments
from reference.compressors.pattern import Pattern
from reference.compressors.sparsegpt import solved

PROBE = 1024  # of the products that the rates are measured with


def main() -> None:
    """Print seconds, and the ratio to the floor, of each."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    w, h = torch.randn(size, size, generator=g), moments(torch.randn(2 * size, size, generator=g))
    single, double = (_rate(dtype) for dtype in (torch.float32, torch.float64))
    floor = 2 / 3 * size**3 / double + size**3 / single
    print(f"rates {single / 1e9:.1f} and {double / 1e9:.1f} GFLOP/s in float32 and float64; floor {floor:.1f} s")
    work: dict[str, Callable[[], object]] = {
        "gptq, 4 bits, rows": lambda: rounded(w, h, Grid(4)),
        "gptq, 4 bits, groups of 128": lambda: rounded(w, h, Grid(4, 128)),
        "sparsegpt, half": lambda: solved(w, h, Pattern(0.5)),
        "sparsegpt, 2 of 4": lambda: solved(w, h, Pattern(0, 2, 4)),
    }
    for name, call in work.items():
        taken = _seconds(call)
        print(f"{name}: {taken:.1f} s, {taken / floor:.2f} times the floor", flush=True)


def _rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a product."""
    a = torch.randn(PROBE, PROBE, dtype=dtype)
    return 2 * PROBE**3 / min(_seconds(lambda: a @ a) for _ in range(5))


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()

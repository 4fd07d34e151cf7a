"""The machine's roofline, measured at most a few minutes before it is used."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from kernels import traffic
from kernels.products import product
from lossboard import paths
from lossboard.measure.roofline import TORCH, Means, Roofline, measured
from lossboard.records import write_atomically
from suites.kernels.shapes import Kind, Shape

ELEMENT_BYTES = 4
MINUTES = 10  # for which a measurement holds
BUFFERS_BYTES = (1 << 20, 8 << 20, 128 << 20)  # within a core's caches, within the last level, and beyond
CPU = Means(traffic.read, traffic.copy, traffic.copy_past_caches, product)


def rates(kind: Kind, shape: Shape) -> Roofline:
    """Of the device, for data of this size and as many threads as torch has."""
    n, d, *v = shape.sizes
    own = ELEMENT_BYTES * (n * d + d * sum(v[:1]))
    bytes_ = next((size for size in BUFFERS_BYTES if own <= size), BUFFERS_BYTES[-1])
    path = paths.local() / "rates" / f"{kind.device}-{torch.get_num_threads()}-{bytes_ >> 20}.json"
    known = _known(path)
    if known is None:
        used = TORCH if kind.device == "cuda" else CPU
        known = measured(used, device=kind.device, buffer_bytes=bytes_)
        write_atomically(path, json.dumps(asdict(known)))
    return known


def _known(path: Path) -> Roofline | None:
    try:
        if time.time() - path.stat().st_mtime > 60 * MINUTES:
            return None
        return Roofline(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # none, or damaged: it is measured again
        return None


def gigabytes(machine: Roofline) -> dict[str, float]:
    """What records keep of it: bandwidths in GB/s, product rates in GFLOP/s."""
    found = {"read_gbps": machine.read / 1e9, "copy_gbps": machine.copy / 1e9, "stream_gbps": machine.stream / 1e9}
    return found | {f"gemm_{name.replace('-', '_')}_gflops": rate / 1e9 for name, rate in machine.flops.items()}

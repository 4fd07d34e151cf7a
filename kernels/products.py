"""Products of matrices on a processor, by the faster of torch's two libraries.

``torch.mm`` asks MKL for float32, which uses vectors of 256 bits on processors that are not Intel's: 115 GFLOP/s on one
core of an AMD EPYC (Zen 5), where oneDNN does 250 in the same precision (on a Zen 4 105, and MKL up to 93). torch hands
oneDNN float32 only under a lower ``float32_matmul_precision``, but its fused linear layer is always oneDNN's.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

LEAST = 1 << 20  # multiplications: fewer are not worth another library's overhead
ROWS = 4096  # of a sum that get their part of a product at once, which then lies in cache


@functools.cache
def _fused() -> bool:
    """Whether oneDNN is there, and its vectors are the widest."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def _twice() -> bool:
    """Whether oneDNN has twice MKL's rate: on processors of AMD whose vectors of 512 bits are not done in halves."""
    try:
        from llvmlite.binding import get_host_cpu_name
    except ImportError:
        return True
    generation = get_host_cpu_name().removeprefix("znver")
    return generation.isdecimal() and int(generation) >= 5


def by_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether :func:`product` takes these to oneDNN: large float32 matrices on a processor with AVX-512."""
    plain = a.device.type == "cpu" and a.dtype is b.dtype is torch.float32
    return plain and a.shape[0] * b.numel() >= LEAST and _fused()


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (N, K) times b (K, M): (N, M), in their dtype; without gradient."""
    if by_onednn(a, b):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
        return found
    return a @ b


def add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total (N, M) += a (N, K) times b (K, M), the product in b's dtype.

    MKL adds while it multiplies; oneDNN's product is added afterwards, which pays where it is twice as fast.
    """
    a = a.to(b.dtype)
    if total.dtype is b.dtype and not (by_onednn(a, b) and _twice()):
        total.addmm_(a, b)
        return
    for first in range(0, len(total), ROWS):
        part = slice(first, first + ROWS)
        total[part] += product(a[part], b)

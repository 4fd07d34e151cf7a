"""What a machine can do at most: bytes a second to and from memory, and floating-point operations a second.

The roofline of Williams, Waterman & Patterson (CACM 2009): work that moves so many bytes and does so many operations
takes at least the longer of the two times. It is measured where and when it is used, by the clock of implementations,
and the fastest sample counts: a roof is what the machine can do at most, and others may slow it at any time.

Bandwidth depends on whether the buffers fit a cache, so it is measured for buffers of a size. Products of float32 are
measured twice, since ``torch.set_float32_matmul_precision`` may select the library: "float32" is at "highest",
"float32-medium" at "medium" (which may round the factors to bfloat16, or be a faster library with the same rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from torch import Tensor

from lossboard.measure.timing import Call, clock_of, interleaved

BUFFER_BYTES = 128 << 20  # beyond most last-level caches
SMALLEST, LARGEST = 128, 8192  # rows and columns of the matrices
LONG_S = 0.01  # of one product


@dataclass(frozen=True)
class Means:
    """How to move bytes and do nothing else (``stream`` past the caches where a processor can), and how to multiply."""

    read: Callable[[Tensor], object]
    copy: Callable[[Tensor, Tensor], object]  # from the first to the second
    stream: Callable[[Tensor, Tensor], object]
    product: Callable[[Tensor, Tensor], object] = torch.mm


def _copy(source: Tensor, out: Tensor) -> None:
    out.copy_(source)


TORCH = Means(torch.amax, _copy, _copy)  # good enough on CUDA; on CPU its reduction is no fast read


@dataclass(frozen=True)
class Roofline:
    """Bandwidths in bytes a second (a copied byte counts twice: it is read and written), and product rates."""

    read: float
    copy: float
    stream: float
    flops: Mapping[str, float]  # FLOP/s of a matrix product, by name of a dtype or "float32-medium"
    buffer_bytes: int  # of each buffer that the bandwidths were measured with
    threads: int
    device: str
    when: str  # UTC, ISO 8601

    def least_seconds(self, bytes_read: float, bytes_written: float, flops: float, dtype: str) -> float:
        """The longer of the times for the traffic and for the arithmetic.

        As many bytes as are both read and written go at the faster of the copies, the other ones at the speed of a
        read, or of such a copy.

        Raises:
            ValueError: there are operations, and the rate of the dtype was not measured.
        """
        both, copied = min(bytes_read, bytes_written), max(self.copy, self.stream)
        traffic = (both + bytes_written) / copied + (bytes_read - both) / self.read
        if flops and dtype not in self.flops:
            raise ValueError(f"no rate was measured for {dtype}; there are: {', '.join(self.flops)}")
        return max(traffic, flops / self.flops[dtype] if flops else 0.0)

    def share(self, bytes_read: float, bytes_written: float, flops: float, dtype: str, seconds: float) -> float:
        """The least seconds over those measured: 1 is as fast as the machine allows.

        More than 1 says that the work moved or computed less than it was said to: from caches, or by leaving out.
        """
        return self.least_seconds(bytes_read, bytes_written, flops, dtype) / seconds


def measured(
    means: Means = TORCH,
    *,
    device: str = "cpu",
    buffer_bytes: int = BUFFER_BYTES,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    budget_s: float = 2.0,
) -> Roofline:
    """The roofline of this machine with as many threads as torch has, in little more than the budget.

    Args:
        means: how to move bytes and multiply; on CPU ``kernels`` has what reaches the most.
        buffer_bytes: of each of two float32 buffers: the size of the work's own data, or beyond the caches.
        dtypes: whose products are measured; one that is not implemented here is left out.
    """
    source = torch.ones(buffer_bytes // 4, device=device)
    out = torch.zeros_like(source)
    moves: dict[str, Call] = {
        "read": lambda: means.read(source),
        "copy": lambda: means.copy(source, out),
        "stream": lambda: means.stream(source, out),
    }
    products = dict(_products(means, dtypes, device))
    calls = moves | {name: product.multiply for name, product in products.items()}
    found = interleaved(calls, device=device, budget_s=budget_s)
    bandwidth = {name: (1 if name == "read" else 2) * source.nbytes / found[name].least_s for name in moves}
    return Roofline(
        **bandwidth,
        flops={name: product.flops / found[name].least_s for name, product in products.items()},
        buffer_bytes=source.nbytes,
        threads=torch.get_num_threads(),
        device=device,
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


@dataclass(frozen=True)
class _Product:
    """A product of square matrices."""

    a: Tensor
    b: Tensor
    multiplied: Callable[[Tensor, Tensor], object]
    precision: str

    def multiply(self) -> None:
        with _precision(self.precision):
            self.multiplied(self.a, self.b)

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each of n^3 terms."""
        return 2 * self.a.shape[0] ** 3


def _products(means: Means, dtypes: Sequence[str], device: str) -> Iterator[tuple[str, _Product]]:
    for dtype in dtypes:
        precisions = {dtype: "highest"} | ({f"{dtype}-medium": "medium"} if dtype == "float32" else {})
        for name, precision in precisions.items():
            try:
                yield name, _sized(means, dtype, precision, device)
            except NotImplementedError:  # torch has none of this dtype on this device
                continue


def _sized(means: Means, dtype: str, precision: str, device: str) -> _Product:
    """A product of the smallest power of two that takes LONG_S: some dtypes are a hundred times slower than others."""
    clock, n = clock_of(device), SMALLEST
    while True:
        a, b = (torch.randn(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2))
        product = _Product(a, b, means.product, precision)
        product.multiply()
        if n == LARGEST or clock(product.multiply, 1) >= LONG_S:
            return product
        n *= 2


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

"""Matrices with few entries, in rows (CSR, float32): collected above a threshold, transposed, multiplied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.native import native, shared, threads
from kernels.rows import LOWEST, state
from kernels.vectors import (
    BYTES,
    LANES,
    any_greater,
    fma,
    load,
    load_first,
    maximum,
    prefetch,
    scalar,
    splat,
    store,
    store_first,
)

LINE = 64  # bytes


@dataclass(frozen=True)
class Sparse:
    """Row i has its entries at starts[i] to starts[i + 1] of columns (int32) and values (float32)."""

    starts: Tensor
    columns: Tensor
    values: Tensor
    width: int

    @property
    def rows(self) -> Tensor:
        """The row of each entry."""
        return torch.repeat_interleave(torch.arange(len(self.starts) - 1), self.starts.diff())

    def transposed(self) -> Sparse:
        """The same entries by columns."""
        order = self.columns.argsort(stable=True)
        counts = torch.bincount(self.columns, minlength=self.width)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return Sparse(starts, self.rows[order].int(), self.values[order], len(self.starts) - 1)

    def times(self, dense: Tensor) -> Tensor:
        """This (N, M) times a contiguous float32 (M, D): (N, D)."""
        n, width = len(self.starts) - 1, dense.shape[1]
        out = torch.empty(n, width)
        starts, columns, values = self.starts.numpy(), self.columns.numpy(), self.values.numpy()
        src, dst = dense.data_ptr(), out.data_ptr()
        parts = threads(len(columns) * width)
        shared(lambda i, j: _times(starts, columns, values, src, dst, width, i, j), n, parts)
        return out


@native
def _times(starts, columns, values, src, dst, width, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        row = dst + 4 * width * i
        j = 0
        while j < width:
            store_first(row + 4 * j, splat(np.float32(0)), min(LANES, width - j))
            j += LANES
        for k in range(starts[i], starts[i + 1]):
            if k + 2 < starts[i + 1]:
                for line in range(0, 4 * width, LINE):
                    prefetch(src + 4 * width * np.int64(columns[k + 2]) + line)
            from_ = src + 4 * width * np.int64(columns[k])
            by = splat(values[k])
            j = 0
            while j + LANES <= width:
                store(row + 4 * j, fma(load(from_ + 4 * j), by, load(row + 4 * j)))
                j += LANES
            if j < width:
                left = width - j
                sum_ = fma(
                    load_first(from_ + 4 * j, left, np.float32(0)), by, load_first(row + 4 * j, left, np.float32(0))
                )
                store_first(row + 4 * j, sum_, left)


@njit
def _above(src, first, last, n, threshold, lse, cap, columns, values, at):  # type: ignore[no-untyped-def]
    """Collect columns [first, last) above the threshold; returns how many entries there are then."""
    for j in range(first, min(last, n)):
        x = scalar(src + 4 * j)
        if x > threshold and at < len(columns):
            columns[at] = j
            values[at] = math.exp(x - lse) * (1.0 if cap == 0.0 else 1.0 - (x / cap) ** 2)
            at += 1
    return at


@native
def _collect(src, rows, n, eps, cap, lse, counts, columns, values):  # type: ignore[no-untyped-def]
    at = 0
    for i in range(rows):
        row, begin = src + 4 * n * i, at
        m, s = state(row, n)
        lse[i] = m + math.log(s) if s > 0.0 else math.nan
        if not math.isfinite(lse[i]):
            columns[at], values[at] = 0, math.nan  # so that the gradient shows it
            at += 1
        else:
            threshold = np.float32(max(lse[i] + math.log(eps), LOWEST))
            bound = splat(threshold)
            j = 0
            while j + 4 * LANES <= n:
                p = row + 4 * j
                peak = maximum(maximum(load(p), load(p + BYTES)), maximum(load(p + 2 * BYTES), load(p + 3 * BYTES)))
                if any_greater(peak, bound):
                    at = _above(row, j, j + 4 * LANES, n, threshold, lse[i], cap, columns, values, at)
                j += 4 * LANES
            at = _above(row, j, n, n, threshold, lse[i], cap, columns, values, at)
        counts[i] = at - begin
    return at


def likely(logits: Tensor, eps: float, softcap: float | None) -> tuple[Tensor, Sparse]:
    """Log-sum-exps (N,) in float64, and the probabilities above eps of contiguous float32 logits (N, V).

    A sum of 1 has 1 / eps such entries at most, so memory is bounded. Under a softcap c, of capped logits a, they are
    times 1 - (a / c)^2.
    """
    rows, n = logits.shape
    most = min(n, int(1 / eps) + 2)
    src, cap = logits.data_ptr(), softcap or 0.0
    lse, counts = torch.empty(rows, dtype=torch.float64), torch.empty(rows, dtype=torch.int64)
    sums, numbers = lse.numpy(), counts.numpy()

    def part(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        columns, values = np.empty((last - first) * most, np.int32), np.empty((last - first) * most, np.float32)
        at = src + 4 * n * first
        found = _collect(at, last - first, n, eps, cap, sums[first:last], numbers[first:last], columns, values)
        return columns[:found].copy(), values[:found].copy()

    found = shared(part, rows, threads(logits.numel()))
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    columns, values = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
    odd = lse.isnan()  # NaN so far where there is NaN or +inf
    if odd.any():
        lse[odd] = torch.logsumexp(logits[odd], -1).double()
    return lse, Sparse(starts, columns, values, n)


def stacked(parts: list[Sparse]) -> Sparse:
    """Matrices of one width under each other."""
    counts = torch.cat([part.starts.diff() for part in parts])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    columns, values = torch.cat([part.columns for part in parts]), torch.cat([part.values for part in parts])
    return Sparse(starts, columns, values, parts[0].width)


def with_entry(matrix: Sparse, columns: Tensor, values: Tensor) -> Sparse:
    """The matrix plus one entry a row, at columns (N,)."""
    n = len(columns)
    starts = matrix.starts + torch.arange(n + 1)
    old = torch.ones(len(matrix.columns) + n, dtype=torch.bool)
    old[starts[:-1]] = False
    all_columns, all_values = torch.empty(len(old), dtype=torch.int32), torch.empty(len(old))
    all_columns[old], all_values[old] = matrix.columns, matrix.values
    all_columns[starts[:-1]], all_values[starts[:-1]] = columns.int(), values.float()
    return Sparse(starts, all_columns, all_values, matrix.width)

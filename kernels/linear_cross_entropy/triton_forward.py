"""Linear cross-entropy in Triton, forwards: tiles of logits, their log-sum-exp, and the logits of the targets.

Classes are handled in blocks, in an order of their own (or that of the weight).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import finite, multiprocessors, there
from kernels.linear_cross_entropy.triton_tiles import Tile, precision

WAVES = 16  # programs for each multiprocessor, one after the other: the last wave is part empty
GROUP = 32  # row blocks that are handled together: their hidden states and some blocks of classes stay in the cache


@dataclass(frozen=True)
class Layer:
    """The operands of the logits."""

    hidden: Tensor  # (N, D); elements of a row side by side
    weight: Tensor  # (V, D); likewise
    bias: Tensor | None  # (V,)
    order: Tensor | None  # (V,) int32, in which classes are handled
    softcap: float | None


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    """tanh, to float32's precision; the interpreter has none of its own."""
    e = tl.exp(-2 * tl.abs(x))
    far = tl.where(x < 0, e - 1, 1 - e) / (1 + e)
    z = x * x
    near = x * (1 + z * (-1 / 3 + z * (2 / 15 + z * (-17 / 315 + z * (62 / 2835)))))
    return tl.where(tl.abs(x) < 0.25, near, far)


@triton.jit
def tile_logits(  # type: ignore[no-untyped-def]
    hidden,
    weight,
    bias,
    rows,
    classes,
    D,
    hidden_stride,
    weight_stride,
    softcap,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The logits (ROWS, CLASSES) of rows and classes that exist."""
    depth = tl.arange(0, DEPTH)
    left = hidden + rows.to(tl.int64)[:, None] * hidden_stride + depth[None, :]
    right = weight + classes.to(tl.int64)[:, None] * weight_stride + depth[None, :]
    logits = tl.zeros((ROWS, CLASSES), tl.float32)
    for k in range(0, D, DEPTH):
        if EVEN:
            a, b = tl.load(left + k), tl.load(right + k)
        else:
            a = tl.load(left + k, mask=(k + depth < D)[None, :], other=0.0)
            b = tl.load(right + k, mask=(k + depth < D)[None, :], other=0.0)
        logits = tl.dot(a, tl.trans(b), logits, input_precision=PRECISION)
    if bias is not None:
        logits += tl.load(bias + classes).to(tl.float32)[None, :]
    if softcap is not None:
        logits = softcap * _tanh(logits / softcap)
    return logits


@triton.jit
def classes_at(at, order, V):  # type: ignore[no-untyped-def]
    """The classes at these places of the order; some class for places past its end."""
    inside = tl.minimum(at, V - 1)
    if order is not None:
        inside = tl.load(order + inside)
    return inside


@triton.jit
def _log_sum_exp(  # type: ignore[no-untyped-def]
    hidden,
    weight,
    bias,
    order,
    ms,
    ss,
    sums,
    tops,
    N,
    V,
    D,
    hidden_stride,
    weight_stride,
    softcap,
    splits,
    blocks_each,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The state of a block of rows over a share of the blocks of classes; the maximum of each block if asked for."""
    program = tl.program_id(0)
    group = program // (GROUP * splits)
    within = program % (GROUP * splits)
    width = tl.minimum(tl.cdiv(N, ROWS) - group * GROUP, GROUP)
    split = within // width
    rows = (group * GROUP + within % width) * ROWS + tl.arange(0, ROWS)
    m = tl.full((ROWS,), -float("inf"), tl.float32)
    s = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    last = tl.minimum((split + 1) * blocks_each, tl.cdiv(V, CLASSES))
    for block in range(split * blocks_each, last):
        at = block * CLASSES + tl.arange(0, CLASSES)
        logits = tile_logits(
            hidden,
            weight,
            bias,
            tl.minimum(rows, N - 1),
            classes_at(at, order, V),
            D,
            hidden_stride,
            weight_stride,
            softcap,
            ROWS,
            CLASSES,
            DEPTH,
            EVEN,
            PRECISION,
        )
        if sums is not None:
            total += tl.sum(tl.where((at < V)[None, :], logits, 0.0), 1)
        logits = tl.where((at < V)[None, :], logits, -float("inf"))
        largest = tl.max(logits, 1)
        if tops is not None:
            tl.store(tops + tl.cast(block, tl.int64) * N + rows, largest, mask=rows < N)
        top = tl.maximum(m, largest)
        base = finite(top)
        s = s * tl.exp(m - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
        m = top
    tl.store(ms + split * N + rows, m, mask=rows < N)
    tl.store(ss + split * N + rows, s, mask=rows < N)
    if sums is not None:
        tl.store(sums + split * N + rows, total, mask=rows < N)


@triton.jit
def _own_logit(hidden, weight, target, out, D, hidden_stride, weight_stride, DEPTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """The indexed product: hidden_i . weight_{y_i}."""
    row = tl.program_id(0).to(tl.int64)
    left, right = hidden + row * hidden_stride, weight + tl.load(target + row) * weight_stride
    total = tl.zeros((DEPTH,), tl.float32)
    for k in range(0, D, DEPTH):
        at = k + tl.arange(0, DEPTH)
        a = tl.load(left + at, mask=at < D, other=0.0).to(tl.float32)
        total += a * tl.load(right + at, mask=at < D, other=0.0).to(tl.float32)
    tl.store(out + row, tl.sum(total, 0))


def log_sum_exp(layer: Layer, tile: Tile, *, sums: bool, tops: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of the logits' rows: log-sum-exp (N,) float64; their sum (N,) with ``sums``; and with ``tops`` the maximum in
    each block of ``tile.classes`` classes, (blocks, N) float32.
    """
    (n, depth), classes = layer.hidden.shape, len(layer.weight)
    row_blocks, blocks = triton.cdiv(n, tile.rows), triton.cdiv(classes, tile.classes)
    splits = min(blocks, triton.cdiv(WAVES * multiprocessors(layer.hidden), row_blocks))
    each = triton.cdiv(blocks, splits)
    splits = triton.cdiv(blocks, each)
    m, s, total = torch.empty(3, splits, n, dtype=torch.float32, device=layer.hidden.device)
    largest = torch.empty(blocks, n, dtype=torch.float32, device=layer.hidden.device) if tops else None
    with there(layer.hidden):
        _log_sum_exp[row_blocks * splits,](
            layer.hidden,
            layer.weight,
            layer.bias,
            layer.order,
            m,
            s,
            total if sums else None,
            largest,
            n,
            classes,
            depth,
            layer.hidden.stride(0),
            layer.weight.stride(0),
            layer.softcap,
            splits,
            each,
            GROUP=GROUP,
            ROWS=tile.rows,
            CLASSES=tile.classes,
            DEPTH=tile.depth,
            EVEN=depth % tile.depth == 0,
            PRECISION=precision(),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    lse = torch.logsumexp(torch.where(m.isinf(), 0, m).double() + s.double().log(), 0)
    return lse, total.sum(0) if sums else None, largest


def own_logits(layer: Layer, target: Tensor) -> Tensor:
    """The logits of the targets (N,), float32."""
    n, depth = layer.hidden.shape
    found = torch.empty(n, dtype=torch.float32, device=layer.hidden.device)
    with there(layer.hidden):
        _own_logit[n,](
            layer.hidden,
            layer.weight,
            target,
            found,
            depth,
            layer.hidden.stride(0),
            layer.weight.stride(0),
            DEPTH=min(1024, triton.next_power_of_2(depth)),
            num_warps=1,
        )
    if layer.bias is not None:
        found += layer.bias[target]
    return found if layer.softcap is None else found.div_(layer.softcap).tanh_().mul_(layer.softcap)

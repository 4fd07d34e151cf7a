"""Linear cross-entropy in Triton, backwards: gradients by logits, and the products with them.

Tiles are rows and a block of classes, from lists of them (:mod:`kernels.linear_cross_entropy.triton_plan`): the
gradients by the logits of some tiles are written side by side, and the products take them from there. No program adds
to what another one writes at the same time, so that results are the same each time; sums are float32, rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import there
from kernels.linear_cross_entropy.terms import Terms
from kernels.linear_cross_entropy.triton_forward import Layer, classes_at, tile_logits
from kernels.linear_cross_entropy.triton_plan import Chunk
from kernels.linear_cross_entropy.triton_tiles import Tile, precision

STEP = 64  # classes that a product for hidden states takes at once


@triton.jit
def _rows_of(tiles, t, N, ROWS: tl.constexpr, LISTED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The rows of a tile, N where there is none: listed one by one, or consecutive from a multiple of ROWS."""
    if LISTED:
        rows = tl.load(tiles + t * ROWS + tl.arange(0, ROWS))
    else:
        rows = tl.minimum(tl.load(tiles + t) * ROWS + tl.arange(0, ROWS), N)
    return rows


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    hidden,
    weight,
    bias,
    order,
    target,
    high,
    low,
    of_p,
    of_own,
    of_all,
    tiles,
    blocks,
    turns,
    out,
    N,
    V,
    D,
    hidden_stride,
    weight_stride,
    softcap,
    LISTED: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient by the raw logits of a tile, recomputed."""
    t = tl.load(turns + tl.program_id(0))
    rows = _rows_of(tiles, t, N, ROWS, LISTED)
    at = tl.load(blocks + t) * CLASSES + tl.arange(0, CLASSES)
    classes = classes_at(at, order, V)
    some = tl.minimum(rows, N - 1)
    logits = tile_logits(
        hidden,
        weight,
        bias,
        some,
        classes,
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
    gradient = tl.exp(logits - tl.load(high + some)[:, None] - tl.load(low + some)[:, None])
    gradient *= tl.load(of_p + some)[:, None]
    if of_all is not None:
        gradient -= tl.load(of_all + some)[:, None]
    own = classes[None, :] == tl.load(target + some)[:, None]
    gradient = tl.where(own, gradient - tl.load(of_own + some)[:, None], gradient)
    if softcap is not None:
        gradient *= 1 - (logits / softcap) * (logits / softcap)
    gradient = tl.where((rows < N)[:, None] & (at < V)[None, :], gradient, 0.0)
    place = tl.arange(0, ROWS)[:, None] * CLASSES + tl.arange(0, CLASSES)[None, :]
    tl.store((out + tl.cast(t, tl.int64) * (ROWS * CLASSES)) + place, gradient)


@triton.jit
def _d_weight(  # type: ignore[no-untyped-def]
    gradients,
    hidden,
    order,
    tiles,
    starts,
    out,
    first,
    N,
    V,
    D,
    hidden_stride,
    LISTED: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of a block of the weight, of a part of its depth: the sum over the tiles of the block."""
    block = first + tl.program_id(0)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    at = block * CLASSES + tl.arange(0, CLASSES)
    place = tl.arange(0, ROWS)[:, None] * CLASSES + tl.arange(0, CLASSES)[None, :]
    base = tl.load(starts + first)
    total = tl.zeros((CLASSES, DEPTH), tl.float32)
    for t in range(tl.load(starts + block) - base, tl.load(starts + block + 1) - base):
        rows = _rows_of(tiles, t, N, ROWS, LISTED)
        gradient = tl.load((gradients + tl.cast(t, tl.int64) * (ROWS * CLASSES)) + place)
        inside = (rows < N)[:, None] & (depth < D)[None, :]
        states = tl.load(hidden + rows.to(tl.int64)[:, None] * hidden_stride + depth[None, :], mask=inside, other=0.0)
        total = tl.dot(tl.trans(gradient), states, total, input_precision=PRECISION)
    classes = classes_at(at, order, V)
    inside = (at < V)[:, None] & (depth < D)[None, :]
    tl.store(out + classes.to(tl.int64)[:, None] * D + depth[None, :], total, mask=inside)


@triton.jit
def _d_bias(gradients, order, starts, out, first, V, ROWS: tl.constexpr, CLASSES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient of a block of the bias."""
    block = first + tl.program_id(0)
    column = tl.arange(0, CLASSES)
    place = tl.arange(0, ROWS)[:, None] * CLASSES + column[None, :]
    base = tl.load(starts + first)
    total = tl.zeros((CLASSES,), tl.float32)
    for t in range(tl.load(starts + block) - base, tl.load(starts + block + 1) - base):
        tile = tl.load((gradients + tl.cast(t, tl.int64) * (ROWS * CLASSES)) + place)
        total += tl.sum(tile.to(tl.float32), 0)
    at = block * CLASSES + column
    tl.store(out + classes_at(at, order, V), total, mask=at < V)


@triton.jit
def _d_hidden(  # type: ignore[no-untyped-def]
    gradients,
    weight,
    order,
    blocks,
    starts,
    out,
    first,
    N,
    V,
    D,
    weight_stride,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of consecutive hidden states, of a part of their depth: the sum over their tiles."""
    group = first + tl.program_id(0)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    row = tl.arange(0, ROWS)
    base = tl.load(starts + first)
    each: tl.constexpr = CLASSES // STEP
    total = tl.zeros((ROWS, DEPTH), tl.float32)
    start, stop = (tl.load(starts + group) - base) * each, (tl.load(starts + group + 1) - base) * each
    block = tl.load(blocks + start // each, mask=start < stop, other=0)
    for i in range(start, stop):
        following = tl.load(blocks + (i + 1) // each, mask=i + 1 < stop, other=0)  # ahead, to be there in time
        t, step = i // each, (i % each) * STEP + tl.arange(0, STEP)
        gradient = tl.load(
            (gradients + tl.cast(t, tl.int64) * (ROWS * CLASSES)) + row[:, None] * CLASSES + step[None, :]
        )
        at = block * CLASSES + step
        classes = classes_at(at, order, V)
        inside = (at < V)[:, None] & (depth < D)[None, :]
        part = tl.load(weight + classes.to(tl.int64)[:, None] * weight_stride + depth[None, :], mask=inside, other=0.0)
        total = tl.dot(gradient, part, total, input_precision=PRECISION)
        block = following
    rows = group * ROWS + row
    inside = (rows < N)[:, None] & (depth < D)[None, :]
    tl.store(out + rows.to(tl.int64)[:, None] * D + depth[None, :], total, mask=inside)


@triton.jit
def _products(  # type: ignore[no-untyped-def]
    gradients,
    weight,
    order,
    tiles,
    blocks,
    out,
    N,
    V,
    D,
    weight_stride,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What a listed tile adds to the gradients of its hidden states, of a part of their depth."""
    t = tl.program_id(0)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    row = tl.arange(0, ROWS)
    block = tl.load(blocks + t)
    total = tl.zeros((ROWS, DEPTH), tl.float32)
    for k in range(0, CLASSES, STEP):
        step = k + tl.arange(0, STEP)
        place = row[:, None] * CLASSES + step[None, :]
        gradient = tl.load((gradients + tl.cast(t, tl.int64) * (ROWS * CLASSES)) + place)
        at = block * CLASSES + step
        classes = classes_at(at, order, V)
        inside = (at < V)[:, None] & (depth < D)[None, :]
        part = tl.load(weight + classes.to(tl.int64)[:, None] * weight_stride + depth[None, :], mask=inside, other=0.0)
        total = tl.dot(gradient, part, total, input_precision=PRECISION)
    inside = (tl.load(tiles + t * ROWS + row) < N)[:, None] & (depth < D)[None, :]
    tl.store((out + tl.cast(t, tl.int64) * ROWS * D) + row[:, None] * D + depth[None, :], total, mask=inside)


@triton.jit
def _collect(products, slots, starts, totals, D, DEPTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add to a row's total what the tiles have for it, in their order."""
    row = tl.program_id(0)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    at = totals + tl.cast(row, tl.int64) * D + depth
    total = tl.load(at, mask=depth < D, other=0.0)
    for i in range(tl.load(starts + row), tl.load(starts + row + 1)):
        total += tl.load(products + tl.load(slots + i) * D + depth, mask=depth < D, other=0.0)
    tl.store(at, total, mask=depth < D)


@dataclass(frozen=True)
class Factors:
    """What the gradient by logits is made of, (N,) each: p of_p - [own] of_own - of_all."""

    target: Tensor
    high: Tensor  # the log-sum-exp as a sum of two float32
    low: Tensor
    of_p: Tensor
    of_own: Tensor
    of_all: Tensor | None

    @classmethod
    def of(
        cls, terms: Terms, target: Tensor, lse: Tensor, upstream: Tensor, upstream_lse: Tensor, classes: int | None
    ) -> Factors:
        """From the log-sum-exp (N,) float64 and the upstream gradients (N,) of the values and the log-sum-exps.

        The uniform part of label smoothing is left out unless the number of classes is given.
        """
        high = lse.float()
        uniform = terms.label_smoothing / classes if classes else 0.0
        return cls(
            target,
            high,
            (lse - high).nan_to_num(0.0).float(),  # an infinite log-sum-exp is its own first part
            terms.of_p(lse, upstream, upstream_lse).float(),
            (1 - terms.label_smoothing) * upstream.float(),
            uniform * upstream.float() if uniform else None,
        )


def gradients_(layer: Layer, factors: Factors, chunk: Chunk, tile: Tile, out: Tensor) -> None:
    """The gradient by the raw logits of a chunk's tiles, one after the other into ``out``."""
    (n, depth), classes = layer.hidden.shape, len(layer.weight)
    turns = chunk.blocks.argsort(stable=True).int()  # programs that run together use the same part of the weight
    with there(layer.hidden):
        _gradients[len(chunk.blocks),](
            layer.hidden,
            layer.weight,
            layer.bias,
            layer.order,
            factors.target,
            factors.high,
            factors.low,
            factors.of_p,
            factors.of_own,
            factors.of_all,
            chunk.rows,
            chunk.blocks,
            turns,
            out,
            n,
            classes,
            depth,
            layer.hidden.stride(0),
            layer.weight.stride(0),
            layer.softcap,
            LISTED=chunk.listed,
            ROWS=tile.rows,
            CLASSES=tile.classes,
            DEPTH=tile.depth,
            EVEN=depth % tile.depth == 0,
            PRECISION=precision(),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )


def d_weight_(layer: Layer, gradients: Tensor, chunk: Chunk, tile: Tile, out: Tensor) -> None:
    """Write the rows of ``out`` (V, D) that are a chunk's groups of classes."""
    (n, depth), classes = layer.hidden.shape, len(layer.weight)
    with there(out):
        _d_weight[chunk.groups, triton.cdiv(depth, tile.depth)](
            gradients,
            layer.hidden,
            layer.order,
            chunk.rows,
            chunk.starts,
            out,
            chunk.first,
            n,
            classes,
            depth,
            layer.hidden.stride(0),
            LISTED=chunk.listed,
            ROWS=tile.rows,
            CLASSES=tile.classes,
            DEPTH=tile.depth,
            PRECISION=precision(),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )


def d_bias_(layer: Layer, gradients: Tensor, chunk: Chunk, tile: Tile, out: Tensor) -> None:
    """Write the entries of ``out`` (V,) float32 that are a chunk's groups of classes."""
    with there(out):
        _d_bias[chunk.groups,](
            gradients,
            layer.order,
            chunk.starts,
            out,
            chunk.first,
            len(layer.weight),
            ROWS=tile.rows,
            CLASSES=tile.classes,
            num_warps=tile.warps,
        )


def d_hidden_(layer: Layer, gradients: Tensor, chunk: Chunk, tile: Tile, out: Tensor) -> None:
    """Write the rows of ``out`` (N, D) that are a chunk's groups of rows."""
    (n, depth), classes = layer.hidden.shape, len(layer.weight)
    with there(out):
        _d_hidden[chunk.groups, triton.cdiv(depth, tile.depth)](
            gradients,
            layer.weight,
            layer.order,
            chunk.blocks,
            chunk.starts,
            out,
            chunk.first,
            n,
            classes,
            depth,
            layer.weight.stride(0),
            ROWS=tile.rows,
            CLASSES=tile.classes,
            DEPTH=tile.depth,
            STEP=STEP,
            PRECISION=precision(),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )


def add_listed_(layer: Layer, gradients: Tensor, chunk: Chunk, tile: Tile, products: Tensor, totals: Tensor) -> None:
    """Add to ``totals`` (N, D) float32 what a chunk's listed tiles give; ``products`` is room for rows of tiles x D."""
    (n, depth), classes = layer.hidden.shape, len(layer.weight)
    listed = chunk.rows.view(-1)
    ordered, slots = listed.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(n + 1, dtype=torch.int32, device=listed.device)).int()
    across = min(1024, triton.next_power_of_2(depth))
    with there(totals):
        _products[len(chunk.blocks), triton.cdiv(depth, tile.depth)](
            gradients,
            layer.weight,
            layer.order,
            chunk.rows,
            chunk.blocks,
            products,
            n,
            classes,
            depth,
            layer.weight.stride(0),
            ROWS=tile.rows,
            CLASSES=tile.classes,
            DEPTH=tile.depth,
            STEP=STEP,
            PRECISION=precision(),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        _collect[n, triton.cdiv(depth, across)](products, slots, starts, totals, depth, DEPTH=across, num_warps=4)

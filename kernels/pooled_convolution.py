"""A later layer of a small convolutional network: 3x3 convolution, 2x2 max-pool and ReLU, image by image.

The convolution's output is not kept, only which of its four values each pooled pixel is: it and its gradient are the
largest tensors left behind :mod:`kernels.stem`, and a batch of them does not fit in a core's cache. The backward pass
takes one of the four places each and skips what ReLU lets not through, where a dense convolution multiplies zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.native import native
from kernels.pooling import fits, higher, place, pooled_relu, through
from kernels.tiles import BYTES, ROWS, TILE, put, put_whole, rows_added, rows_plus_row, whole
from kernels.vectors import LANES, fma, load, scalar, splat, store

TAPS = 9
THREE = 3 * TILE  # numbers of a row of taps
ZERO = np.float32(0)


@native
def _pad(src, dst, side):  # type: ignore[no-untyped-def]
    """An image of pixels of 16 channels into one with an edge, which stays as it is."""
    line = BYTES * (side + 2)
    for i in range(side):
        to = dst + (i + 1) * line + BYTES
        for at in range(0, BYTES * side, 4 * LANES):
            store(to + at, load(src + at))
        src += BYTES * side


@native
def _forward(src, weight, bias, dst, places, images, side, out, padded, rows):  # type: ignore[no-untyped-def]
    """weight (out / 16, 9, 16 inputs, 16 outputs) -> pooled pixels and their places, channels together."""
    line, own = BYTES * (side + 2), BYTES * THREE
    for _ in range(images):
        _pad(src, padded, side)
        for o in range(0, out, TILE):
            w = weight + 3 * own * (o // TILE)
            at = 4 * o
            for i in range(0, side, 2):
                for h in range(2):
                    for j in range(0, side, ROWS):
                        c, a = rows + BYTES * (h * side + j), padded + (i + h) * line + BYTES * j
                        n = min(ROWS, side - j)
                        rows_plus_row(c, BYTES, a, BYTES, w, BYTES, THREE, n, bias + 4 * o)
                        rows_added(c, BYTES, a + line, BYTES, w + own, BYTES, THREE, n)
                        rows_added(c, BYTES, a + 2 * line, BYTES, w + 2 * own, BYTES, THREE, n)
                for j in range(0, 2 * BYTES * (side // 2), 2 * BYTES):
                    for k in range(0, BYTES, 4 * LANES):
                        here = rows + j + k
                        a, b = load(here), load(here + BYTES)
                        c, d = load(here + BYTES * side), load(here + BYTES * (side + 1))
                        m = higher(higher(a, b), higher(c, d))
                        store(dst + at + k, through(m, m))
                        store(places + at + k, place(a, b, c, m))
                    at += 4 * out
        src += BYTES * side * side
        dst, places = dst + out * side * side, places + out * side * side  # 4 bytes, a quarter of the pixels


@njit
def _listed(top, places, upstream, step, side, corners, slopes):  # type: ignore[no-untyped-def]
    """One channel's gradients that ReLU lets through, and the first of the pixels that each came from; their number.

    Neighbours in a line have every second turn: what one writes the next does not read.
    """
    line, n = BYTES * (side + 2), 0
    for i in range(0, side, 2):
        for first in (0, 2):
            for j in range(first, side, 4):
                at = step * (i // 2 * (side // 2) + j // 2)
                p = int(scalar(places + at))
                put_whole(corners + 8 * n, (i + p // 2) * line + (j + p % 2) * BYTES)
                put(slopes + 4 * n, scalar(upstream + at))
                n += not scalar(top + at) <= ZERO  # without a branch; NaN goes on
    return n


@njit(inline="always")
def _row_of_pixels(g, d, a, b, c):  # type: ignore[no-untyped-def]
    """Three taps a, b, c of one place: adds to the gradients of their pixels at d."""
    store(d, fma(g, a, load(d)))
    store(d + BYTES, fma(g, b, load(d + BYTES)))
    store(d + 2 * BYTES, fma(g, c, load(d + 2 * BYTES)))


@njit(inline="always")
def _row(g, x, d, a, b, c, s, t, u):  # type: ignore[no-untyped-def]
    """The same; returns the sums s, t, u of the taps' own gradients, whose pixels are at x."""
    _row_of_pixels(g, d, a, b, c)
    return fma(g, load(x), s), fma(g, load(x + BYTES), t), fma(g, load(x + 2 * BYTES), u)


@native
def _backward(  # type: ignore[no-untyped-def]
    src, weight, top, places, upstream, dst, dweight, dbias, images, side, out, padded, slope, corners, slopes, learns
):
    """weight (out, 9, 16 inputs); gradients of the images, and, if it ``learns``, added to those of weight and bias."""
    line, zero = BYTES * (side + 2), splat(ZERO)
    for _ in range(images):
        _pad(src, padded, side)
        for at in range(0, line * (side + 2), 4 * LANES):
            store(slope + at, zero)
        for o in range(out):
            n = _listed(top + 4 * o, places + 4 * o, upstream + 4 * o, 4 * out, side, corners, slopes)
            for k in range(0, BYTES, 4 * LANES):
                w = weight + BYTES * TAPS * o + k
                w0, w1, w2 = load(w), load(w + BYTES), load(w + 2 * BYTES)
                w3, w4, w5 = load(w + 3 * BYTES), load(w + 4 * BYTES), load(w + 5 * BYTES)
                w6, w7, w8 = load(w + 6 * BYTES), load(w + 7 * BYTES), load(w + 8 * BYTES)
                if not learns:
                    for e in range(n):
                        g, d = splat(scalar(slopes + 4 * e)), slope + whole(corners + 8 * e) + k
                        _row_of_pixels(g, d, w0, w1, w2)
                        _row_of_pixels(g, d + line, w3, w4, w5)
                        _row_of_pixels(g, d + 2 * line, w6, w7, w8)
                    continue
                s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = total = zero
                for e in range(n):
                    g, corner = splat(scalar(slopes + 4 * e)), whole(corners + 8 * e) + k
                    total = total + g
                    x, d = padded + corner, slope + corner
                    s0, s1, s2 = _row(g, x, d, w0, w1, w2, s0, s1, s2)
                    s3, s4, s5 = _row(g, x + line, d + line, w3, w4, w5, s3, s4, s5)
                    s6, s7, s8 = _row(g, x + 2 * line, d + 2 * line, w6, w7, w8, s6, s7, s8)
                sums = s0, s1, s2, s3, s4, s5, s6, s7, s8
                for t in range(TAPS):
                    to = dweight + BYTES * (TAPS * o + t) + k
                    store(to, load(to) + sums[t])
                store(dbias + BYTES * o + k, load(dbias + BYTES * o + k) + total)
        for i in range(side):
            inner = slope + (i + 1) * line + BYTES
            for at in range(0, BYTES * side, 4 * LANES):
                store(dst + at, load(inner + at))
            dst += BYTES * side
        src += BYTES * side * side
        count = out * side * side  # 4 bytes, a quarter of the pixels
        top, places, upstream = top + count, places + count, upstream + count


class _PooledConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, side, out = len(x), x.shape[-1], len(weight)
        y, places = (torch.empty(n, out, side // 2, side // 2, memory_format=torch.channels_last) for _ in range(2))
        packed = weight.view(out // TILE, TILE, TILE, TAPS).permute(0, 3, 2, 1).contiguous()
        padded, rows = torch.zeros(side + 2, side + 2, TILE), torch.empty(2, side, TILE)
        given = (tensor.data_ptr() for tensor in (x, packed, bias, y, places))
        _forward(*given, n, side, out, padded.data_ptr(), rows.data_ptr())
        ctx.save_for_backward(x, weight, y, places)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        x, weight, y, places = ctx.saved_tensors
        n, side, out = len(x), x.shape[-1], len(weight)
        taps = weight.view(out, TILE, TAPS).mT.contiguous()
        g, dx = upstream.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
        dweight, dbias = torch.zeros(out, TAPS, TILE), torch.zeros(out, TILE)
        padded, slope = torch.zeros(side + 2, side + 2, TILE), torch.empty(side + 2, side + 2, TILE)
        given = (tensor.data_ptr() for tensor in (x, taps, y, places, g, dx, dweight, dbias))
        corners, slopes = torch.empty(side * side // 4 + 1, dtype=torch.int64), torch.empty(side * side // 4 + 1)
        rooms = (tensor.data_ptr() for tensor in (padded, slope, corners, slopes))
        learns = any(ctx.needs_input_grad[1:])
        _backward(*given, n, side, out, *rooms, learns)
        if not learns:
            return dx, None, None
        return dx, dweight.mT.reshape(weight.shape), dbias[:, 0].contiguous()


def pooled_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of the 2x2 max-pool of the 3x3 convolution, edges padded with zeros: x (N, 16, s, s), weight (C, 16, 3, 3).

    Returns (N, C, s / 2, s / 2), channels last, differentiable once. Of equal values the first gets the gradient. What
    ReLU lets not through has no part in gradients, be its inputs infinite or NaN, where torch has zero times those.
    Float32 on a processor, x channels last, C a multiple of 16 and s even; else torch's convolution and
    :func:`kernels.pooling.pooled_relu`.
    """
    if x.dim() == 4 and len(x) and fits(x, weight, bias, TILE) and x.is_contiguous(memory_format=torch.channels_last):
        found: Tensor = _PooledConvolution.apply(x, weight.contiguous(), bias.contiguous())
        return found
    return pooled_relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))

"""The first layer of a small convolutional network on grey images: 3x3 convolution, 2x2 max-pool and ReLU in one pass.

The convolution's output is the largest tensor of such a network by far, and so is its gradient. Neither is made here:
a pooled pixel needs 16 pixels, and the backward pass computes its four values again to see which of them was it. Only
where gradients of the images are asked for is that written down.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.native import native
from kernels.pooling import fits, higher, left, place, pooled_relu, taken, through
from kernels.tiles import put
from kernels.vectors import LANES, fma, load, scalar, splat, store

TAPS = 9


@native
def _forward(src, weight, bias, dst, places, images, side, channels):  # type: ignore[no-untyped-def]
    """Padded images (side + 2) squared, weight (9, channels) -> pooled pixels, their channels together.

    And which of its four each is, unless ``places`` is 0.
    """
    line = 4 * (side + 2)
    for _ in range(images):
        for i in range(0, side, 2):
            for j in range(0, side, 2):
                corner = src + i * line + 4 * j
                for k in range(0, 4 * channels, 4 * LANES):
                    a = b = c = d = load(bias + k)
                    for tap in range(TAPS):
                        at, w = corner + tap // 3 * line + tap % 3 * 4, load(weight + 4 * channels * tap + k)
                        a, b = fma(splat(scalar(at)), w, a), fma(splat(scalar(at + 4)), w, b)
                        c, d = fma(splat(scalar(at + line)), w, c), fma(splat(scalar(at + line + 4)), w, d)
                    m = higher(higher(a, b), higher(c, d))
                    store(dst + k, through(m, m))
                    if places:
                        store(places + k, place(a, b, c, m))
                dst += 4 * channels
                if places:
                    places += 4 * channels
        src += line * (side + 2)


@native
def _backward(src, weight, bias, top, upstream, dst, images, side, channels):  # type: ignore[no-untyped-def]
    """Adds to dst (10, channels): gradients of the nine taps and the bias, summed image by image."""
    line, row, zero = 4 * (side + 2), 4 * channels, splat(np.float32(0))
    for _ in range(images):
        for k in range(0, row, 4 * LANES):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = total = zero
            at = k
            for i in range(0, side, 2):
                for j in range(0, side, 2):
                    corner = src + i * line + 4 * j
                    m = load(top + at)
                    g = through(m, load(upstream + at))
                    at += row
                    a = b = c = load(bias + k)
                    for tap in range(TAPS):
                        here, w = corner + tap // 3 * line + tap % 3 * 4, load(weight + row * tap + k)
                        a, b = fma(splat(scalar(here)), w, a), fma(splat(scalar(here + 4)), w, b)
                        c = fma(splat(scalar(here + line)), w, c)
                    total = total + g
                    for q in range(4):
                        x = a if q == 0 else b if q == 1 else c
                        own = taken(x, m, g) if q < 3 else g
                        g = left(x, m, g)
                        p = corner + q // 2 * line + q % 2 * 4
                        s0, s1 = fma(splat(scalar(p)), own, s0), fma(splat(scalar(p + 4)), own, s1)
                        s2, p = fma(splat(scalar(p + 8)), own, s2), p + line
                        s3, s4 = fma(splat(scalar(p)), own, s3), fma(splat(scalar(p + 4)), own, s4)
                        s5, p = fma(splat(scalar(p + 8)), own, s5), p + line
                        s6, s7 = fma(splat(scalar(p)), own, s6), fma(splat(scalar(p + 4)), own, s7)
                        s8 = fma(splat(scalar(p + 8)), own, s8)
            sums = s0, s1, s2, s3, s4, s5, s6, s7, s8, total
            for n in range(TAPS + 1):
                store(dst + row * n + k, load(dst + row * n + k) + sums[n])
        src += line * (side + 2)
        top, upstream = top + row * (side // 2) ** 2, upstream + row * (side // 2) ** 2


@native
def _slope(top, places, upstream, weight, dst, parts, sums, images, side, channels):  # type: ignore[no-untyped-def]
    """weight (channels, 9); the images' gradients, a row of pooled pixels after another, its pixels in the lanes.

    ``parts`` (4, channels, width) is room for a row's gradients, parted by their places; width is a row's pixels filled
    up to whole vectors. ``sums`` (side + 2, 2, width + LANES) is room for those of padded pixels: of a row the even
    columns, then the odd ones.
    """
    half, zero = side // 2, splat(np.float32(0))
    width = -(-half // LANES) * LANES
    part, line = 4 * width, 4 * (width + LANES)
    for _ in range(images):
        for at in range(0, 2 * line * (side + 2), 4 * LANES):
            store(sums + at, zero)
        for i in range(half):
            for at in range(0, 4 * channels * part, 4 * LANES):
                store(parts + at, zero)
            for j in range(half):
                for k in range(channels):
                    g = scalar(upstream)
                    if scalar(top) <= np.float32(0):
                        g = np.float32(0)
                    put(parts + part * (channels * int(scalar(places)) + k) + 4 * j, g)
                    top, places, upstream = top + 4, places + 4, upstream + 4
            for q in range(4):
                for j in range(0, part, 4 * LANES):
                    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = zero
                    for k in range(channels):
                        g, w = load(parts + part * (channels * q + k) + j), weight + 4 * TAPS * k
                        s0, s1 = fma(splat(scalar(w)), g, s0), fma(splat(scalar(w + 4)), g, s1)
                        s2, s3 = fma(splat(scalar(w + 8)), g, s2), fma(splat(scalar(w + 12)), g, s3)
                        s4, s5 = fma(splat(scalar(w + 16)), g, s4), fma(splat(scalar(w + 20)), g, s5)
                        s6, s7 = fma(splat(scalar(w + 24)), g, s6), fma(splat(scalar(w + 28)), g, s7)
                        s8 = fma(splat(scalar(w + 32)), g, s8)
                    found = s0, s1, s2, s3, s4, s5, s6, s7, s8
                    for tap in range(TAPS):
                        row, column = 2 * i + q // 2 + tap // 3, q % 2 + tap % 3
                        to = sums + line * (2 * row + column % 2) + j + 4 * (column // 2)
                        store(to, load(to) + found[tap])
        for i in range(1, side + 1):
            for j in range(1, side + 1):
                put(dst, scalar(sums + line * (2 * i + j % 2) + 4 * (j // 2)))
                dst += 4


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, side, channels = len(x), x.shape[-1], len(weight)
        padded, taps = F.pad(x.reshape(n, side, side), (1, 1, 1, 1)), weight.reshape(channels, TAPS).T.contiguous()
        y = torch.empty(n, channels, side // 2, side // 2, memory_format=torch.channels_last)
        places = torch.empty_like(y) if ctx.needs_input_grad[0] else None
        given = (tensor.data_ptr() for tensor in (padded, taps, bias, y))
        _forward(*given, 0 if places is None else places.data_ptr(), n, side, channels)
        ctx.save_for_backward(padded, taps, bias, y, places)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        padded, taps, bias, y, places = ctx.saved_tensors
        n, channels, side = len(padded), len(bias), padded.shape[-1] - 2
        g = upstream.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = None
        if any(ctx.needs_input_grad[1:]):
            found = torch.zeros(TAPS + 1, channels)
            _backward(*(each.data_ptr() for each in (padded, taps, bias, y, g, found)), n, side, channels)
            dweight, dbias = found[:TAPS].T.reshape(channels, 1, 3, 3), found[TAPS]
        if ctx.needs_input_grad[0]:
            dx, weight = torch.empty(n, 1, side, side), taps.T.contiguous()
            width = -(-(side // 2) // LANES) * LANES
            rooms = torch.empty(4, channels, width), torch.empty(side + 2, 2, width + LANES)
            given = (each.data_ptr() for each in (y, places, g, weight, dx, *rooms))
            _slope(*given, n, side, channels)
        return dx, dweight, dbias


def stem(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of the 2x2 max-pool of the 3x3 convolution, edges padded with zeros: x (N, 1, s, s), weight (C, 1, 3, 3).

    Returns (N, C, s / 2, s / 2), channels last, differentiable once. Float32 on a processor, C a multiple of 16 and s
    even; else torch's convolution and :func:`kernels.pooling.pooled_relu`.
    """
    if x.dim() == 4 and len(x) and fits(x, weight, bias, 1):
        found: Tensor = _Stem.apply(x, weight, bias.contiguous())
        return found
    return pooled_relu(F.conv2d(x, weight, bias, padding=1))

"""The first layer of a small convolutional network on grey images: 3x3 convolution, 2x2 max-pool and ReLU in one pass.

The convolution's output is the largest tensor of such a network by far, and so is its gradient. Neither is made here:
a pooled pixel needs 16 pixels, and the backward pass computes its four values again to see which of them was it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.native import native
from kernels.pooling import fits, higher, left, pooled_relu, taken, through
from kernels.vectors import LANES, fma, load, scalar, splat, store

TAPS = 9


@native
def _forward(src, weight, bias, dst, images, side, channels):  # type: ignore[no-untyped-def]
    """Padded images (side + 2) squared, weight (9, channels) -> pooled pixels, their channels together."""
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
                dst += 4 * channels
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
                    for place in range(4):
                        x = a if place == 0 else b if place == 1 else c
                        own = taken(x, m, g) if place < 3 else g
                        g = left(x, m, g)
                        p = corner + place // 2 * line + place % 2 * 4
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


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, side, channels = len(x), x.shape[-1], len(weight)
        padded, taps = F.pad(x.reshape(n, side, side), (1, 1, 1, 1)), weight.reshape(channels, TAPS).T.contiguous()
        y = torch.empty(n, channels, side // 2, side // 2, memory_format=torch.channels_last)
        _forward(padded.data_ptr(), taps.data_ptr(), bias.data_ptr(), y.data_ptr(), n, side, channels)
        ctx.save_for_backward(padded, taps, bias, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        padded, taps, bias, y = ctx.saved_tensors
        n, channels, side = len(padded), len(bias), padded.shape[-1] - 2
        found, g = torch.zeros(TAPS + 1, channels), upstream.contiguous(memory_format=torch.channels_last)
        given = (tensor.data_ptr() for tensor in (padded, taps, bias, y, g, found))
        _backward(*given, n, side, channels)
        return None, found[:TAPS].T.reshape(channels, 1, 3, 3), found[TAPS]


def stem(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of the 2x2 max-pool of the 3x3 convolution, edges padded with zeros: x (N, 1, s, s), weight (C, 1, 3, 3).

    Returns (N, C, s / 2, s / 2), channels last, differentiable once in weight and bias. Float32 on a processor, C a
    multiple of 16, s even, and an x without gradient; else torch's convolution and :func:`kernels.pooling.pooled_relu`.
    """
    if x.dim() == 4 and len(x) and not x.requires_grad and fits(x, weight, bias, 1):
        found: Tensor = _Stem.apply(x, weight, bias.contiguous())
        return found
    return pooled_relu(F.conv2d(x, weight, bias, padding=1))

"""A 2x2 max-pool with ReLU behind it, in one pass forwards and one backwards, for channels-last images.

torch keeps a 64-bit position of each maximum, clears the gradient before it scatters into it, and has a pass of its own
for ReLU. Here positions are found again from the input, which the convolution before it leaves in memory anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

from kernels.native import native
from kernels.vectors import LANES, load, splat, store, vector


def matches(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Where x is y, or no number."""
    return builder.or_(builder.fcmp_ordered("==", x, y), builder.fcmp_unordered("uno", x, x))


@intrinsic
def higher(typing, a, b):  # type: ignore[no-untyped-def]
    """The larger of both, NaN where one is."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        a, b = args
        taken = builder.or_(builder.fcmp_ordered(">", b, a), builder.fcmp_unordered("uno", b, b))
        return builder.select(taken, b, a)

    return vector(vector, vector), generate


@intrinsic
def through(typing, a, value):  # type: ignore[no-untyped-def]
    """The value, but 0 where a <= 0."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        nothing = ir.Constant(args[1].type, None)
        return builder.select(builder.fcmp_ordered("<=", args[0], nothing), nothing, args[1])

    return vector(vector, vector), generate


@intrinsic
def taken(typing, x, y, value):  # type: ignore[no-untyped-def]
    """The value where x is y or no number, else 0."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, y, value = args
        return builder.select(matches(builder, x, y), value, ir.Constant(value.type, None))

    return vector(vector, vector, vector), generate


@intrinsic
def left(typing, x, y, value):  # type: ignore[no-untyped-def]
    """What :func:`taken` leaves of the value."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, y, value = args
        return builder.select(matches(builder, x, y), ir.Constant(value.type, None), value)

    return vector(vector, vector, vector), generate


@intrinsic
def place(typing, a, b, c, m):  # type: ignore[no-untyped-def]
    """0, 1 or 2, as a, b or c is the first that m is, else 3."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        *values, m = args
        kind = m.type
        found = ir.Constant(kind, [ir.Constant(kind.element, 3.0)] * kind.count)
        for i, value in reversed(list(enumerate(values))):
            own = ir.Constant(kind, [ir.Constant(kind.element, float(i))] * kind.count)
            found = builder.select(matches(builder, value, m), own, found)
        return found

    return vector(vector, vector, vector, vector), generate


@native
def _forward(src, dst, rows, width, pixel):  # type: ignore[no-untyped-def]
    """``rows`` pairs of rows of 2 * width pixels become rows of width pixels, ``pixel`` bytes each."""
    line = 2 * width * pixel
    for _ in range(rows):
        for _ in range(width):
            for at in range(src, src + pixel, 4 * LANES):
                m = higher(load(at), load(at + pixel))
                m = higher(higher(m, load(at + line)), load(at + line + pixel))
                store(dst + at - src, through(m, m))
            src += 2 * pixel
            dst += pixel
        src += line


@native
def _backward(src, top, upstream, dst, rows, width, pixel):  # type: ignore[no-untyped-def]
    """The first of the four that is the maximum gets the gradient, unless ReLU lets none through."""
    line, nothing = 2 * width * pixel, splat(np.float32(0))
    for _ in range(rows):
        for _ in range(width):
            for k in range(0, pixel, 4 * LANES):
                m = load(top + k)
                g = through(m, load(upstream + k))
                for at in (k, k + pixel, k + line):
                    x = load(src + at)
                    store(dst + at, taken(x, m, g))
                    g = left(x, m, g)
                store(dst + k + line + pixel, g + nothing)
            src, dst = src + 2 * pixel, dst + 2 * pixel
            top, upstream = top + pixel, upstream + pixel
        src, dst = src + line, dst + line


class _PooledRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        y = torch.empty(n, channels, height // 2, width // 2, memory_format=torch.channels_last)
        _forward(x.data_ptr(), y.data_ptr(), n * (height // 2), width // 2, 4 * channels)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        n, channels, height, width = x.shape
        g, dx = upstream.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
        place = x.data_ptr(), y.data_ptr(), g.data_ptr(), dx.data_ptr()
        _backward(*place, n * (height // 2), width // 2, 4 * channels)
        return dx


def pooled_relu(x: Tensor) -> Tensor:
    """ReLU of the 2x2 max-pool of images (N, C, h, w): (N, C, h // 2, w // 2), differentiable once.

    The same bits as torch has, also of gradients: of equal values the first gets it (of several
    NaN another than torch's may). Float32 on a processor, channels
    last, C a multiple of 16 and even sides; else it is torch's.
    """
    _, channels, height, width = x.shape
    own = x.dtype is torch.float32 and x.device.type == "cpu" and channels % 16 == height % 2 == width % 2 == 0
    if own and x.numel() and x.is_contiguous(memory_format=torch.channels_last):
        found: Tensor = _PooledRelu.apply(x)
        return found
    return F.max_pool2d(x, 2).relu()


def fits(x: Tensor, weight: Tensor, bias: Tensor, channels: int) -> bool:
    """Whether kernels of a 3x3 convolution and this pool, which read what addresses say, are meant for these: float32
    on a processor, square images (N, channels, s, s) with s even, weight (C, channels, 3, 3) and C a multiple of 16.
    """
    one_kind = all(tensor.dtype is torch.float32 and tensor.device.type == "cpu" for tensor in (x, weight, bias))
    square = x.shape[1] == channels and x.shape[2] == x.shape[3] and x.shape[2] % 2 == 0
    return one_kind and square and weight.shape == (len(bias), channels, 3, 3) and len(bias) % 16 == 0

"""Max-pool and ReLU in one pass: the bits of torch's two, forwards and backwards."""

import math

import pytest
import torch
import torch.nn.functional as F

from kernels.pooling import pooled_relu


def images(n=5, channels=32, height=6, width=10, layout=torch.channels_last):
    x = torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0))
    return x.round(decimals=0).to(memory_format=layout)  # whole numbers: many are equal


def both(x, upstream=None):
    """Value and gradient of torch's and of ours."""
    found = []
    for function in (lambda x: F.max_pool2d(x, 2).relu(), pooled_relu):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = function(leaf)
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)) if upstream is None else upstream
        found.append((y.detach(), *torch.autograd.grad(y, leaf, g)))
    return found


@pytest.mark.parametrize("shape", [(5, 32, 6, 10), (1, 16, 2, 2), (3, 48, 28, 28), (2, 16, 14, 4)])
def test_value_and_gradient_are_torchs(shape):
    expected, found = both(images(*shape))
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)
        assert b.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(value):
    x = images()
    x[0, 3, 0, 0] = x[1, :, 1, 1] = x[2, 5, 2, 4] = x[3, 7, 1, 0] = value
    for a, b in zip(*both(x), strict=True):
        assert torch.equal(a.nan_to_num(nan=7e7), b.nan_to_num(nan=7e7))


def test_an_upstream_gradient_of_any_layout():
    g = torch.randn(5, 32, 5, 3, generator=torch.Generator().manual_seed(2)).transpose(2, 3)
    for a, b in zip(*both(images(), g), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "x",
    [
        images(layout=torch.contiguous_format),
        images(channels=6),
        images(height=7),
        images(n=2)[:, :, :, ::2],
        images().double(),
    ],
    ids=["channels first", "few channels", "odd", "strided", "float64"],
)
def test_what_is_left_to_torch(x):
    for a, b in zip(*both(x, torch.ones_like(F.max_pool2d(x, 2))), strict=True):
        assert torch.equal(a, b)

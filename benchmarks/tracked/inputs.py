"""Inputs that benchmarks share, made once a process. Append-only: an input that changes breaks every history."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MARGIN, NOISE = 13.0, 1.6  # of the target's logit over the others' mean, and their standard deviation


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@cache
def normal(*shape: int) -> Tensor:
    """Standard normal numbers of this shape."""
    return torch.randn(*shape, generator=generator())


@cache
def labels(n: int, classes: int) -> Tensor:
    """Uniform labels (n,)."""
    return torch.randint(0, classes, (n,), generator=generator())


@cache
def peaked(n: int, d: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden (N, D), weight (V, D), target (N,): frequent classes are likelier, as words are (Zipf's law)."""
    draw = generator()
    weight = torch.randn(v, d, generator=draw) / d**0.5
    target = (v ** torch.rand(n, generator=draw)).long().clamp(max=v) - 1
    likely = weight[target] + 0.3 * weight[(v ** torch.rand(n, generator=draw)).long().clamp(max=v) - 1]
    hidden = MARGIN * likely + NOISE * torch.randn(n, d, generator=draw)
    return hidden.requires_grad_(), weight.requires_grad_(), target


def sizes(shape: str) -> tuple[int, ...]:
    """The numbers of a shape such as '64x8192'."""
    return tuple(map(int, shape.split("x")))

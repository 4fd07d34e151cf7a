"""Uniform quantisation: how many bits, what shares a scale, and rounding to the nearest level."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 2.0**-14  # of a scale: below it float16, in which scales are written, loses precision
SHRINKS = tuple(1 - i / 100 for i in range(80))  # of the range, as GPTQ's code searches it
POWER = 2.4  # of the error that the search makes small, as in GPTQ's code


@dataclass(frozen=True)
class Grid:
    """Levels of a weight matrix (o, d): 2^``bits``, evenly spaced.

    ``group``: so many consecutive columns of a row share a scale (the last group of a row may be shorter); 0: a whole
    row does; -1: the whole matrix. ``symmetric``: zero is the middle level, so that no zero-point is written.
    """

    bits: int
    group: int = 0
    symmetric: bool = False

    @property
    def levels(self) -> int:
        return 1 << self.bits


@dataclass(frozen=True)
class Scales:
    """Steps and zero-points (rows, groups), one row where the whole matrix shares them: level q is step (q - zero).

    Steps are numbers of float16, zero-points whole.
    """

    step: Tensor
    zero: Tensor

    def over(self, shape: torch.Size, group: int) -> tuple[Tensor, Tensor]:
        """Step and zero-point of every weight of a matrix, (o | 1, d | 1)."""
        return spread(self.step, shape, group), spread(self.zero, shape, group)


def spread(values: Tensor, shape: torch.Size, group: int) -> Tensor:
    """Values (rows, groups), repeated so that they stand for each column of a matrix of this shape."""
    return values if group <= 0 else values.repeat_interleave(group, 1)[:, : shape[1]]


def grouped(w: Tensor, group: int) -> Tensor:
    """A matrix (o, d) as (rows, groups, members), filled up with zeros: what shares a scale is the last axis."""
    if group < 0:
        return w.reshape(1, 1, -1)
    if group == 0:
        return w[:, None]
    return F.pad(w, (0, -w.shape[1] % group)).unflatten(1, (-1, group))


def scales(w: Tensor, grid: Grid, shrink: Tensor | float = 1.0) -> Scales:
    """Scales by the smallest and the largest weight (and 0) of what shares one, or ``shrink`` times that range."""
    parts = grouped(w, grid.group)
    low, high = parts.amin(2).clamp(max=0) * shrink, parts.amax(2).clamp(min=0) * shrink
    return between(low, high, grid)


def between(low: Tensor, high: Tensor, grid: Grid) -> Scales:
    """Scales whose levels reach from low <= 0 to high >= 0; where both are 0, from -1 to 1.

    Symmetric ones reach from -m to m, m the larger magnitude, with 2^(bits - 1) for the level of 0, as GPTQ has it.
    """
    if grid.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = (low == 0) & (high == 0)
    low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
    step = rounded((high - low) / (grid.levels - 1))
    zero = torch.full_like(step, grid.levels // 2) if grid.symmetric else torch.round(-low / step)
    return Scales(step, zero.clamp(0, grid.levels - 1))


def rounded(step: Tensor) -> Tensor:
    """The nearest step that can be written: a normal number of float16."""
    return step.clamp(SMALLEST, 65504).half().to(step.dtype)


def codes(w: Tensor, step: Tensor, zero: Tensor, levels: int | Tensor) -> Tensor:
    """The nearest level of each weight, 0 to levels - 1, in the dtype of w; halves go to the even one."""
    nearest = torch.round(w / step) + zero
    if isinstance(levels, int):
        return nearest.clamp(0, levels - 1)
    return torch.minimum(nearest.clamp(min=0), levels.to(w.dtype) - 1)


def nearest(w: Tensor, step: Tensor, zero: Tensor, levels: int | Tensor) -> Tensor:
    """Each weight's nearest level as a weight."""
    return step * (codes(w, step, zero, levels) - zero)


def least_error(w: Tensor, grid: Grid) -> Scales:
    """Of the ranges shrunk by 0 to 79 percent, for what shares a scale the one with the least sum |w - Q(w)|^2.4."""
    parts = grouped(w, grid.group)
    best, least = scales(w, grid), torch.full(parts.shape[:2], torch.inf, dtype=w.dtype)
    for shrink in SHRINKS:
        tried = scales(w, grid, shrink)
        error = (nearest(parts, tried.step[..., None], tried.zero[..., None], grid.levels) - parts).abs() ** POWER
        total = error.sum(2)
        better = total < least
        least = torch.where(better, total, least)
        best = Scales(torch.where(better, tried.step, best.step), torch.where(better, tried.zero, best.zero))
    return best

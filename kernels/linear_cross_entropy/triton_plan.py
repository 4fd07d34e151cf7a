"""Which tiles of rows and classes the backward pass handles: all, or those with a probability that counts.

A plan lists tiles in groups whose sum one program takes: those of a block of classes, for the gradient of the weight,
or those of a block of rows, for that of the hidden states. A tile of what counts is a block of classes and the rows in
which one of them is likely.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MOSTLY = 0.5  # kept of all: from here on, lists cost more than they save


@dataclass(frozen=True)
class Chunk:
    """The tiles (T) of some consecutive groups."""

    rows: Tensor  # int32: (T, rows of a tile) where listed, N where there is none; else (T,), in units of a tile's
    blocks: Tensor  # (T,) int32: of classes
    starts: Tensor  # (groups of the plan + 1,) int32: where each group's tiles begin in the plan
    first: int  # group
    groups: int
    listed: bool


@dataclass(frozen=True)
class Plan:
    """All tiles, group by group."""

    rows: Tensor
    blocks: Tensor
    starts: Tensor
    listed: bool

    def chunks(self, tiles: int, groups: int) -> Iterator[Chunk]:
        """In so many tiles at once, but no fewer groups than that: they are what runs side by side."""
        starts = self.starts.tolist()
        first, count = 0, len(starts) - 1
        while first < count:
            last = min(first + groups, count)
            while last < count and starts[last + 1] - starts[first] <= tiles:
                last += 1
            some = slice(starts[first], starts[last])
            yield Chunk(self.rows[some], self.blocks[some], self.starts, first, last - first, self.listed)
            first = last

    def pieces(self, tiles: int) -> Iterator[Chunk]:
        """So many tiles at once, wherever groups begin."""
        for start in range(0, len(self.blocks), tiles):
            some = slice(start, start + tiles)
            yield Chunk(self.rows[some], self.blocks[some], self.starts, 0, 0, self.listed)


@dataclass(frozen=True)
class Plans:
    """What both gradients need."""

    by_class: Plan
    by_row: Plan | None  # none where tiles are lists of rows


def _starts(counts: Tensor) -> Tensor:
    """Where groups of so many begin, and the end."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()


def every_tile(row_blocks: int, class_blocks: int, device: torch.device) -> Plans:
    """Plans of all tiles."""
    rows = torch.arange(row_blocks, dtype=torch.int32, device=device)
    blocks = torch.arange(class_blocks, dtype=torch.int32, device=device)
    per_class = torch.arange(class_blocks + 1, dtype=torch.int32, device=device) * row_blocks
    per_row = torch.arange(row_blocks + 1, dtype=torch.int32, device=device) * class_blocks
    by_class = Plan(rows.repeat(class_blocks), blocks.repeat_interleave(row_blocks), per_class, False)
    return Plans(by_class, Plan(rows.repeat_interleave(class_blocks), blocks.repeat(row_blocks), per_row, False))


def _by_class(kept: Tensor, rows: int) -> Plan:
    """For each block of classes the kept rows, packed in tiles."""
    class_blocks, n = kept.shape
    counts = kept.sum(1)
    tiles = (counts + rows - 1) // rows
    starts = _starts(tiles)
    block, row = kept.nonzero(as_tuple=True)
    rank = torch.arange(len(row), device=kept.device) - _starts(counts)[block]
    listed = torch.full((int(starts[-1]), rows), n, dtype=torch.int32, device=kept.device)
    listed.view(-1)[starts[block] * rows + rank] = row.int()
    blocks = torch.arange(class_blocks, dtype=torch.int32, device=kept.device).repeat_interleave(tiles)
    return Plan(listed, blocks, starts, True)


def kept_tiles(kept: Tensor, rows: int) -> Plans:
    """Plans of the pairs of a block of classes and a row that are true in ``kept`` (blocks, N), in tiles of so many
    rows. Of all tiles, where most are true. Waits for the device, since the lists are as long as what is kept.
    """
    class_blocks, n = kept.shape
    if int(kept.sum()) > MOSTLY * kept.numel():
        return every_tile(-(-n // rows), class_blocks, kept.device)
    return Plans(_by_class(kept, rows), None)

"""How large the tiles of the Triton kernels are: pinned, by the precision and the card; and how exact products are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DATACENTER = (9, 10)  # compute capabilities of cards with 227 KiB of shared memory for a program
ALIGNED = 16  # elements: what Triton knows of an integer is whether it is a multiple of this


@dataclass(frozen=True)
class Tile:
    """What a program has in its registers, and how it gets there."""

    rows: int
    classes: int
    depth: int  # of hidden states: what a step takes, or in the gradients what a program writes
    warps: int
    stages: int  # steps in flight


@dataclass(frozen=True)
class Tiles:
    """A tile for each kernel. All have the same classes, those of the backward pass the same rows."""

    logits: Tile
    gradient: Tile
    d_weight: Tile
    d_hidden: Tile

    @property
    def classes(self) -> int:
        return self.logits.classes

    @property
    def rows(self) -> int:
        """Of the tiles of the backward pass."""
        return self.gradient.rows


LARGE = Tiles(Tile(128, 256, 64, 8, 4), Tile(64, 256, 64, 8, 3), Tile(64, 256, 128, 8, 3), Tile(64, 256, 256, 8, 5))
MEDIUM = Tiles(Tile(128, 128, 32, 8, 4), Tile(64, 128, 64, 4, 4), Tile(64, 128, 128, 8, 4), Tile(64, 128, 128, 4, 5))
SMALL = Tiles(Tile(64, 128, 32, 8, 3), Tile(64, 128, 32, 8, 3), Tile(64, 128, 64, 8, 3), Tile(64, 128, 64, 8, 2))


def pinned(like: Tensor) -> Tiles:
    """The tiles for hidden states (N, D): as large as their card's shared memory and registers allow."""
    major = torch.cuda.get_device_capability(like.device)[0] if like.is_cuda else 0
    return tiles_of(major, like.element_size(), like.shape[1])


def tiles_of(major: int, element_bytes: int, depth: int) -> Tiles:
    """Small ones for float32, and where rows do not begin at multiples of 16 elements, so that loads are narrow."""
    if element_bytes == 4 or depth % ALIGNED:
        return SMALL
    return LARGE if major in DATACENTER else MEDIUM


def precision() -> str:
    """How Triton multiplies float32: three products in TF32, or one where torch was allowed to."""
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"

"""How large the tiles of the Triton kernels are: pinned, by the precision and the card; and how exact products are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HOPPER = 9  # the compute capability from which on warp groups multiply together


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


TILES = {  # by element size in bytes, and whether the card is a Hopper or later
    (2, True): Tiles(Tile(128, 256, 64, 8, 4), Tile(64, 256, 64, 4, 3), Tile(64, 256, 128, 8, 3), Tile(64, 256, 256, 8, 3)),
    (2, False): Tiles(Tile(128, 128, 32, 4, 4), Tile(64, 128, 32, 4, 4), Tile(64, 128, 128, 4, 3), Tile(64, 128, 128, 4, 3)),
    (4, True): Tiles(Tile(64, 128, 32, 4, 3), Tile(64, 128, 32, 4, 3), Tile(64, 128, 64, 8, 2), Tile(64, 128, 64, 4, 2)),
    (4, False): Tiles(Tile(64, 128, 32, 8, 3), Tile(64, 128, 32, 8, 3), Tile(64, 128, 64, 8, 2), Tile(64, 128, 64, 8, 2)),
}


def pinned(like: Tensor) -> Tiles:
    """The tiles for a tensor's precision on its card."""
    major = torch.cuda.get_device_capability(like.device)[0] if like.is_cuda else HOPPER
    return TILES[like.element_size(), major >= HOPPER]


def precision() -> str:
    """How Triton multiplies float32: three products in TF32, or one where torch was allowed to."""
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"

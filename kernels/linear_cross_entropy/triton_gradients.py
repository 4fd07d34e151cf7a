"""The gradients of a linear layer from a plan of tiles: some tiles at a time, in as little memory as that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from kernels.gpu import multiprocessors
from kernels.linear_cross_entropy.terms import subtract_uniform_
from kernels.linear_cross_entropy.triton_passes import Factors, Layer, d_bias_, d_hidden_, d_weight_, gradients_
from kernels.linear_cross_entropy.triton_plan import Plans
from kernels.linear_cross_entropy.triton_tiles import Tiles

ROOM = 1 / 200  # of the layer's memory, for the gradients by some logits
WAVES = 2  # programs for each multiprocessor that a product needs to be fast


@dataclass(frozen=True)
class Gradients:
    """Of hidden (N, D), weight (V, D) and bias (V,), the last in float32; None where not wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def empty(cls, layer: Layer, wanted: Sequence[bool]) -> Gradients:
        """Memory for them; that of the bias comes with that of the weight."""
        hidden = torch.empty_like(layer.hidden, memory_format=torch.contiguous_format) if wanted[0] else None
        weight = torch.empty_like(layer.weight, memory_format=torch.contiguous_format) if any(wanted[1:3]) else None
        bias = None if layer.bias is None or not wanted[2] else torch.empty_like(layer.bias, dtype=torch.float32)
        return cls(hidden, weight, bias)

    def fill_(self, layer: Layer, factors: Factors, plans: Plans, tiles: Tiles) -> None:
        """Those of hidden first, while the memory of the weight's gradient is free for what lies between."""
        each = tiles.rows * tiles.classes
        room = int(ROOM * (layer.hidden.numel() + layer.weight.numel())) // each
        memory = layer.weight.new_empty(0) if self.weight is None else self.weight.view(-1)
        if self.hidden is not None:
            least = 1 if self.weight is not None else _side_by_side(layer, tiles.d_hidden.depth)
            for chunk in plans.by_row.chunks(max(room, memory.numel() // each), least):
                memory = _enough(memory, len(chunk.blocks) * each)
                gradients_(layer, factors, chunk, tiles.gradient, memory)
                d_hidden_(layer, memory, chunk, tiles.d_hidden, self.hidden)
        if self.weight is not None:
            memory = memory.new_empty(0)
            # Few blocks of classes are likely in most rows: they may take their time. Of all, it would be too much.
            least = 1 if plans.by_class.listed else _side_by_side(layer, tiles.d_weight.depth)
            for chunk in plans.by_class.chunks(room, least):
                memory = _enough(memory, len(chunk.blocks) * each)
                gradients_(layer, factors, chunk, tiles.gradient, memory)
                d_weight_(layer, memory, chunk, tiles.d_weight, self.weight)
                if self.bias is not None:
                    d_bias_(layer, memory, chunk, tiles.gradient, self.bias)

    def subtract_uniform_(self, layer: Layer, share: Tensor) -> None:
        """Label smoothing's part of every class, ``share`` (N,) times the row's."""
        subtract_uniform_(share, layer.hidden, layer.weight, self.hidden, self.weight, self.bias)


def _side_by_side(layer: Layer, depth: int) -> int:
    """Groups whose programs, each for so much of the depth, keep the device busy."""
    return triton.cdiv(WAVES * multiprocessors(layer.hidden), triton.cdiv(layer.hidden.shape[1], depth))


def _enough(memory: Tensor, elements: int) -> Tensor:
    """The memory, or more where that is too little."""
    return memory if memory.numel() >= elements else memory.new_empty(elements)

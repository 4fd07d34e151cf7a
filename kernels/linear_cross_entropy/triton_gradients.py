"""The gradients of a linear layer from a plan of tiles: some tiles at a time, in as little memory as that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from kernels.gpu import multiprocessors
from kernels.linear_cross_entropy.terms import subtract_uniform_
from kernels.linear_cross_entropy.triton_backward import Factors, add_listed_, d_bias_, d_hidden_, d_weight_, gradients_
from kernels.linear_cross_entropy.triton_forward import Layer
from kernels.linear_cross_entropy.triton_plan import Plan, Plans
from kernels.linear_cross_entropy.triton_tiles import Tiles

ROOM = 1 / 200  # of the layer's memory, for the gradients by some logits
LEAST_TILES = 64  # of lists of rows, whose sums are taken together
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
        if self.hidden is not None and plans.by_row is not None:
            self._hidden_from_all_(layer, factors, plans.by_row, tiles)
        elif self.hidden is not None:
            self._hidden_from_lists_(layer, factors, plans.by_class, tiles)
        if self.weight is not None:
            self._weight_(layer, factors, plans.by_class, tiles)

    def _hidden_from_all_(self, layer: Layer, factors: Factors, plan: Plan, tiles: Tiles) -> None:
        assert self.hidden is not None
        each = tiles.rows * tiles.classes
        memory = layer.weight.new_empty(0) if self.weight is None else self.weight.view(-1)
        least = 1 if self.weight is not None else _side_by_side(layer, tiles.d_hidden.depth)
        for chunk in plan.chunks(max(_room(layer, each), memory.numel() // each), least):
            memory = _enough(memory, len(chunk.blocks) * each)
            gradients_(layer, factors, chunk, tiles.gradient, memory)
            d_hidden_(layer, memory, chunk, tiles.d_hidden, self.hidden)

    def _hidden_from_lists_(self, layer: Layer, factors: Factors, plan: Plan, tiles: Tiles) -> None:
        """Sums in float32, for as many tiles at once as there is room for their gradients and products."""
        assert self.hidden is not None
        total_bytes = _whole(4 * self.hidden.numel())
        gradient_bytes = _whole(tiles.rows * tiles.classes * layer.weight.element_size())
        product_bytes = _whole(4 * tiles.rows * layer.hidden.shape[1])
        each = gradient_bytes + product_bytes
        memory = layer.weight.new_empty(0) if self.weight is None else self.weight.view(-1)
        memory = _enough(memory.view(torch.uint8), total_bytes + LEAST_TILES * each)
        count = (len(memory) - total_bytes) // each
        totals = memory[: 4 * self.hidden.numel()].view(torch.float32).view(self.hidden.shape).zero_()
        gradients = memory[total_bytes:][: count * gradient_bytes].view(layer.weight.dtype)
        products = memory[total_bytes + count * gradient_bytes :][: count * product_bytes].view(torch.float32)
        for chunk in plan.pieces(count):
            gradients_(layer, factors, chunk, tiles.gradient, gradients)
            add_listed_(layer, gradients, chunk, tiles.d_hidden, products, totals)
        self.hidden.copy_(totals)

    def _weight_(self, layer: Layer, factors: Factors, plan: Plan, tiles: Tiles) -> None:
        assert self.weight is not None
        each = tiles.rows * tiles.classes
        memory = layer.weight.new_empty(0)
        # Few blocks of classes are likely in most rows: they may take their time. Of all, it would be too much.
        least = 1 if plan.listed else _side_by_side(layer, tiles.d_weight.depth)
        for chunk in plan.chunks(_room(layer, each), least):
            memory = _enough(memory, len(chunk.blocks) * each)
            gradients_(layer, factors, chunk, tiles.gradient, memory)
            d_weight_(layer, memory, chunk, tiles.d_weight, self.weight)
            if self.bias is not None:
                d_bias_(layer, memory, chunk, tiles.gradient, self.bias)

    def subtract_uniform_(self, layer: Layer, share: Tensor) -> None:
        """Label smoothing's part of every class, ``share`` (N,) times the row's."""
        subtract_uniform_(share, layer.hidden, layer.weight, self.hidden, self.weight, self.bias)


def _room(layer: Layer, each: int) -> int:
    """How many tiles of so many elements may lie in memory of their own."""
    return int(ROOM * (layer.hidden.numel() + layer.weight.numel())) // each


def _whole(count: int) -> int:
    """Bytes, up to the next place where anything may begin."""
    return -(-count // 256) * 256


def _side_by_side(layer: Layer, depth: int) -> int:
    """Groups whose programs, each for so much of the depth, keep the device busy."""
    return triton.cdiv(WAVES * multiprocessors(layer.hidden), triton.cdiv(layer.hidden.shape[1], depth))


def _enough(memory: Tensor, elements: int) -> Tensor:
    """The memory, or more where that is too little."""
    return memory if memory.numel() >= elements else memory.new_empty(elements)

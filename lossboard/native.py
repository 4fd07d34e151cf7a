"""The step of a fleet on kernels of our own: activations of a run stay in the cache from layer to layer.

Only the loss between the two passes is left to PyTorch, and what corrections do at other places: they are anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels import mlp

if TYPE_CHECKING:
    from lossboard.step import Step, Tensors


def usable(features: Tensor) -> bool:
    """Whether networks on these features can be trained so: float32 on a processor that numba compiles for."""
    return features.dtype == torch.float32 and features.device.type == "cpu" and mlp.available()


def picked(table: Tensor, index: Tensor) -> Tensor:
    """``table[r, index[s, r, n]]``, (S, R, N), for int64 tensors."""
    if table.device.type == "cpu" and mlp.available():
        return mlp.picked(table, index)
    found = table.gather(1, index.transpose(0, 1).flatten(1))
    return found.view(index.shape[1], len(index), -1).transpose(0, 1).contiguous()


class NativeStep:
    """What :class:`lossboard.step.Step` does, for parameters that are :meth:`laid_out`."""

    def __init__(self, step: Step, widths: tuple[int, ...], compiled: Callable[..., tuple[Callable[..., Any], ...]]):
        """``compiled(functions)`` returns them compiled, or as they are."""
        self.step, self.stack = step, mlp.Stack(widths)
        parts = compiled((step.slope, step.mixed, step.perturbed, step.projected, step.verdict))
        self.slope, self.mixed, self.perturbed, self.projected, self.verdict = parts
        self.mixes, self.perturbs, self.projects = map(step.method.hook, ("inputs", "weights", "gradients"))
        self.laid_out = self.stack.laid_out
        self._buffers: tuple[list[Tensor], list[Tensor]] | None = None

    def advance(
        self,
        weights: list[Tensor],
        velocity: list[Tensor],
        features: Tensor,
        rows: Tensor,
        target: Tensor,
        lr: Tensor,
        hyper: Tensors,
        given: Tensors,
    ) -> Tensor:
        """Change ``weights`` and ``velocity`` in place by one step on these rows (R, N); returns new memory rows."""
        stack, step, second, share = self.stack, self.step, target, None
        if self.mixes:
            x = features.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)
            x, second, share = self.mixed(x, target, hyper, given)
            features, rows = x.flatten(0, 1).contiguous(), torch.arange(rows.numel()).view(rows.shape)

        def slopes(at: list[Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
            logits = stack.forward(at, features, rows).mT
            slope, learned, memory = self.slope(logits, target, second, share, hyper, given, step.own(at))
            return slope.mT.contiguous(), learned, memory

        slope, learned, memory = slopes(weights)
        how = lr, step.momentum, step.weight_decay
        if learned is None and not self.perturbs and not self.projects:
            stack.backward_and_descend(weights, velocity, slope, *how)
            return memory
        gradients, elsewhere = self._gradients(weights)

        def take(at: list[Tensor], slope: Tensor, learned: Tensor | None) -> None:
            stack.backward(at, slope, gradients)
            if learned is not None:
                gradients[-1].copy_(learned)

        take(weights, slope, learned)
        if self.perturbs:
            _assign(elsewhere, self.perturbed(weights, gradients, hyper, given))
            slope, learned, _ = slopes(elsewhere)
            take(elsewhere, slope, learned)
        if self.projects:
            _assign(gradients, self.projected(weights, gradients, hyper, given))
        stack.descend(weights, velocity, gradients, *how)
        return memory

    def scores(self, weights: list[Tensor], features: Tensor, rows: Tensor, hyper: Tensors) -> Tensor:
        """What predicts (R, C, N) for these rows (R, N): outputs of the network, or the link's log-probabilities."""
        return self.step.linked(self.stack.forward(weights, features, rows), hyper, self.step.own(weights))

    def judged(
        self, weights: list[Tensor], features: Tensor, rows: Tensor, wanted: Tensor | None, hyper: Tensors
    ) -> Tensor:
        """Which of these rows have the wanted class's score alone above all others, (R, N), or the scores."""
        if wanted is not None and self.step.method.link is None:
            return self.stack.right(weights, features, rows, wanted)
        outputs, own = self.stack.forward(weights, features, rows), self.step.own(weights)
        return outputs if self.step.method.link is None else self.verdict(outputs, wanted, hyper, own)

    def _gradients(self, weights: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Room for gradients, and for other weights."""
        if self._buffers is None:
            self._buffers = self.laid_out(weights), self.laid_out(weights)
        return self._buffers


def _assign(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)

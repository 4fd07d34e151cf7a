"""Attacks of the package pyautoattack under the contract of ours: random state, ball, and samples that are left."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import attacked, frozen
from reference.attacks.ball import project

Borrowed = Callable[[Any, Tensor, Tensor, int], Tensor]  # (model, x, target, seed) -> inputs


def perturbed(
    run: Borrowed, model: Any, x: Tensor, target: Tensor, eps: float, norm: str, generator: torch.Generator
) -> Tensor:
    """What ``run`` makes of the samples that are classified correctly, rounded into their balls.

    The package draws from torch's own generators: they are seeded by a draw of ``generator`` and then restored.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    devices = [x.device] if x.is_cuda else []

    def once(x: Tensor, target: Tensor, attempt: int, rows: Tensor) -> Tensor:
        with torch.random.fork_rng(devices), frozen(model):
            return project(run(model, x, target, seed).detach(), x, eps, norm)

    return attacked(model, x, target, once)

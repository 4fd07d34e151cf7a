"""Ascent on the input: what gradient attacks and adversarial training are made of."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reference.attacks.ball import project, steepest
from reference.attacks.objectives import right

Objective = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), labels (N,) -> values (N,) to be made large


class Slope(NamedTuple):
    """Of an objective at inputs (N, ...): its gradient (N, ...), the logits (N, C) and its values (N,)."""

    gradient: Tensor
    logits: Tensor
    values: Tensor


class Found(NamedTuple):
    """What a search gave: inputs (N, ...), and at how many of its steps each was still classified correctly (N,)."""

    x: Tensor
    right_steps: Tensor


@contextlib.contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No gradients for parameters: neither are they computed, nor are activations kept for them."""
    wanted = [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in wanted:
            p.requires_grad_(True)


def slope(model: Any, x: Tensor, target: Tensor, objective: Objective, draws: int = 1) -> Slope:
    """The objective at x and its gradient there; the means of so many ``draws`` of a model that randomises."""
    found = [_slope(model, x, target, objective) for _ in range(draws)]
    return found[0] if draws == 1 else Slope(*(torch.stack(part).mean(0) for part in zip(*found, strict=True)))


def _slope(model: Any, x: Tensor, target: Tensor, objective: Objective) -> Slope:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = model(leaf)
        values = objective(logits, target)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return Slope(gradient, logits.detach(), values.detach())


def ascend(
    model: Any,
    x: Tensor,
    target: Tensor,
    objective: Objective,
    start: Tensor,
    *,
    eps: float,
    norm: str,
    step: float,
    steps: int,
    draws: int = 1,
    patience: int | None = None,
) -> Found:
    """Projected steepest ascent from ``start``, within eps of x and in [0, 1].

    Args:
        step: how far a step goes, in the norm.
        draws: forward passes averaged at each step.
        patience: a sample takes so many steps from when it is first misclassified, and then costs nothing more; None:
            all of them. 0 is for an attack that has done its work then. The objective may depend on samples only
            through logits and labels.
    """
    x_left, y_left, point = x, target, start
    result, left = start.clone(), torch.arange(len(x), device=x.device)
    right_steps = torch.zeros(len(x), dtype=torch.long, device=x.device)
    spare = torch.full_like(right_steps, steps if patience is None else patience)
    with frozen(model):
        for _ in range(steps):
            gradient, logits, _ = slope(model, point, y_left, objective, draws)
            still = right(logits, y_left)
            right_steps[left] += still
            if patience is not None:
                moves = still | (spare > 0)
                spare = spare - (~still).long()
                if not bool(moves.all()):
                    result[left[~moves]] = point[~moves]
                    left, spare = left[moves], spare[moves]
                    x_left, y_left, point, gradient = x_left[moves], y_left[moves], point[moves], gradient[moves]
                    if not len(left):
                        break
            point = project(point + step * steepest(gradient, norm), x_left, eps, norm)
    result[left] = point
    return Found(result, right_steps)


def attacked(
    model: Any, x: Tensor, target: Tensor, once: Callable[[Tensor, Tensor, int, Tensor], Tensor], attempts: int = 1
) -> Tensor:
    """What ``once(x, target, attempt, rows)`` makes of those rows of x (N, ...) that are still classified correctly.

    It is called for attempts 0, 1, ... with the inputs as they were. A sample that is misclassified stays as it is; one
    that no attempt fools is what the last one made of it.
    """
    found = x.clone()
    for attempt in range(attempts):
        with torch.no_grad():
            rows = right(model(found), target).nonzero()[:, 0]
        if not len(rows):
            break
        found[rows] = once(x[rows], target[rows], attempt, rows)
    return found

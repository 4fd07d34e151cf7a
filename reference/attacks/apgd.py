"""Auto-PGD (Croce & Hein, ICML 2020, arXiv:2003.01690), section 3 and algorithm 1."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from reference.attacks import objectives
from reference.attacks.ascent import Slope, attacked, frozen, slope
from reference.attacks.ball import project, steepest, surface
from reference.attacks.objectives import right
from reference.methods import attack

Sloped = Callable[[Tensor, Tensor, Tensor], Slope]  # points, labels, which samples they are -> the objective there
MOMENTUM = 0.75  # weight of the new step; the rest is of the last move
RHO = 0.75  # the step is halved where the objective rose at no more than this share of the steps between checkpoints


@dataclass(frozen=True)
class Run:
    """How the attack is run: the ball, what draws the start, the steps, and the forward passes averaged at each."""

    eps: float
    norm: str
    generator: torch.Generator
    steps: int
    draws: int


@dataclass(frozen=True)
class State:
    """The samples that are not yet misclassified: a row of every field each; what is not an input is (M,)."""

    row: Tensor  # which of the samples it is
    target: Tensor
    centre: Tensor
    point: Tensor
    before: Tensor  # the point one step ago
    gradient: Tensor
    step: Tensor
    value: Tensor  # of the objective, at the last step
    best: Tensor  # the point of largest value, its gradient and the value
    best_gradient: Tensor
    best_value: Tensor
    rises: Tensor  # at how many steps the value rose since the last checkpoint
    halved: Tensor  # whether the step was halved there
    best_then: Tensor  # the largest value there

    def only(self, which: Tensor) -> "State":
        """The samples for which ``which`` (M,) is true."""
        return State(*(getattr(self, field.name)[which] for field in fields(self)))


def gaps(steps: int) -> list[int]:
    """How many steps lie between checkpoints, where the size of the step is looked at.

    >>> gaps(100)
    [22, 19, 16, 13, 10, 7, 6, 6]
    """
    gap, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    found: list[int] = []
    while sum(found) + gap <= steps:
        found.append(gap)
        gap = max(gap - less, least)
    return found


def auto_pgd(
    model: Any,
    x: Tensor,
    target: Tensor,
    objective: Callable[..., Tensor],
    how: Run,
    wanted: Tensor | None = None,
) -> Tensor:
    """One run of the attack on an objective, for inputs (N, ...) and target (N,); returns inputs (N, ...).

    The objective is a function of logits and target and, where classes are ``wanted`` (N,), of these.

    A sample costs nothing once an iterate of it is misclassified: that iterate is returned. (The authors go on, and
    return the last such iterate; which samples are fooled is the same.) The others get the iterate of largest value.
    """
    result = x.clone()

    def sloped(point: Tensor, target: Tensor, row: Tensor) -> Slope:
        if wanted is None:
            return slope(model, point, target, objective, how.draws)
        return slope(model, point, target, lambda z, y: objective(z, y, wanted[row]), how.draws)

    def parted(s: State, logits: Tensor) -> State:
        """Those still classified correctly; the points of the others are results."""
        still = right(logits, s.target)
        if bool(still.all()):
            return s
        result[s.row[~still]] = s.point[~still]
        return s.only(still)

    with frozen(model):
        s, logits = _started(sloped, x, target, how)
        s = parted(s, logits)
        since, ahead = 0, iter([*gaps(how.steps), how.steps + 1])
        gap = next(ahead)
        for i in range(how.steps):
            if not len(s.row):
                break
            s, logits = _stepped(sloped, s, how, 1.0 if i == 0 else MOMENTUM)
            s, since = parted(s, logits), since + 1
            if since == gap:
                s, since, gap = _adapted(s, gap), 0, next(ahead)
    result[s.row] = s.best
    return result


def _started(sloped: Sloped, x: Tensor, target: Tensor, how: Run) -> tuple[State, Tensor]:
    rows, start = torch.arange(len(x), device=x.device), surface(x, how.eps, how.norm, how.generator)
    gradient, logits, values = sloped(start, target, rows)
    zero = torch.zeros_like(values)  # the authors compare the first value with 0
    step, halved = torch.full_like(values, 2 * how.eps), zero == 0
    searched = (rows, target, x, start, start, gradient, step)
    return State(*searched, zero, start, gradient, values, zero, halved, values), logits


def _stepped(sloped: Sloped, s: State, how: Run, share: float) -> tuple[State, Tensor]:
    """A step along the gradient and, by ``1 - share``, along the last move."""
    ahead = s.point + _beside(s.step, s.point) * steepest(s.gradient, how.norm)
    ahead = project(ahead, s.centre, how.eps, how.norm)
    ahead = s.point + share * (ahead - s.point) + (1 - share) * (s.point - s.before)
    point = project(ahead, s.centre, how.eps, how.norm)
    gradient, logits, values = sloped(point, s.target, s.row)
    better = values > s.best_value
    new = replace(
        s,
        point=point,
        before=s.point,
        gradient=gradient,
        value=values,
        best=torch.where(_beside(better, point), point, s.best),
        best_gradient=torch.where(_beside(better, point), gradient, s.best_gradient),
        best_value=torch.where(better, values, s.best_value),
        rises=s.rises + (values > s.value),
    )
    return new, logits


def _adapted(s: State, gap: int) -> State:
    """At a checkpoint: half the step, from the best point, where the value oscillates or nothing was gained."""
    halve = (s.rises <= RHO * gap) | (~s.halved & (s.best_then >= s.best_value))
    return replace(
        s,
        step=torch.where(halve, s.step / 2, s.step),
        point=torch.where(_beside(halve, s.point), s.best, s.point),
        gradient=torch.where(_beside(halve, s.point), s.best_gradient, s.gradient),
        rises=torch.zeros_like(s.rises),
        halved=halve,
        best_then=s.best_value,
    )


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """Values (M,) shaped (M, 1, ...) to go with x (M, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))


@attack(norms=("linf", "l2"))
def apgd_ce(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float = 100,
    restarts: float = 1,
    draws: float = 1,
) -> Tensor:
    r"""PGD on cross-entropy with momentum and a step that halves itself, for inputs (N, ...) and target (N,); returns
    inputs (N, ...).

    $$ x_{t+1} = \Pi(x_t + \alpha (\Pi(x_t + s_t \, \mathrm{sign} \, \nabla_x \ell(f(x_t), y)) - x_t)
    + (1 - \alpha)(x_t - x_{t-1})) $$

    alpha is 0.75, and s begins at twice eps. At checkpoints that come closer and closer s is halved, and the search
    goes on from the best point, where the loss rose at no more than three quarters of the steps or nothing was gained.
    steps is how many, restarts how often from another start, where the last found nothing; draws is how many forward
    passes are averaged at each step, for networks that randomise. The first step is compared with a loss of 0, as in
    the authors' code.
    """

    def once(x: Tensor, target: Tensor, attempt: int, rows: Tensor) -> Tensor:
        how = Run(eps, norm, generator, int(steps), int(draws))
        return auto_pgd(model, x, target, objectives.ce, how)

    return attacked(model, x, target, once, int(restarts))


@attack(norms=("linf", "l2"), classes=4)
def apgd_t(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float = 100,
    targets: float = 9,
    draws: float = 1,
) -> Tensor:
    r"""Auto-PGD towards each of the most probable other classes, for inputs (N, ...) and target (N,); returns inputs
    (N, ...).

    $$ \frac{z_t - z_y}{z_{(1)} - (z_{(3)} + z_{(4)}) / 2}, \quad z = f(x) $$

    The objective is the difference of logits ratio; t is one class after the other, in the order of their logits for
    the input as it is, up to the number of targets, while the sample is classified correctly. steps and draws are as
    for ``apgd_ce``.
    """
    with torch.no_grad():
        order = model(x).argsort(1, descending=True)

    def once(x: Tensor, target: Tensor, attempt: int, rows: Tensor) -> Tensor:
        how = Run(eps, norm, generator, int(steps), int(draws))
        return auto_pgd(model, x, target, objectives.targeted_dlr, how, order[rows, attempt + 1])

    return attacked(model, x, target, once, min(int(targets), order.shape[1] - 1))

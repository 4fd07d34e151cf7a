"""Projected gradient descent (Madry et al., ICLR 2018, arXiv:1706.06083)."""

from typing import Any

import torch
from torch import Tensor

from reference.attacks import objectives
from reference.attacks.ascent import Objective, ascend, attacked
from reference.attacks.ball import anywhere
from reference.methods import attack


def pgd_on(
    objective: Objective,
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float,
    step: float,
    restarts: float,
    draws: float,
) -> Tensor:
    """Projected ascent on an objective from random starts; a sample stops at its first misclassified iterate.

    ``step`` is a share of eps. The numbers of steps, restarts and draws are whole.
    """

    def once(x: Tensor, target: Tensor, attempt: int, rows: Tensor) -> Tensor:
        start = anywhere(x, eps, norm, generator)
        return ascend(
            model,
            x,
            target,
            objective,
            start,
            eps=eps,
            norm=norm,
            step=step * eps,
            steps=int(steps),
            draws=int(draws),
            patience=0,
        ).x

    return attacked(model, x, target, once, int(restarts))


@attack(norms=("linf", "l2"))
def pgd(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float = 40,
    step: float = 0.1,
    restarts: float = 1,
    draws: float = 1,
) -> Tensor:
    r"""Steps along the sign of the gradient of cross-entropy, projected to the ball, from a random point of it, for
    inputs (N, ...) and target (N,); returns inputs (N, ...).

    $$ x_{t+1} = \Pi(x_t + s \, \mathrm{sign} \, \nabla_x \ell(f(x_t), y)), \quad x_0 \sim U(B(x, \epsilon)) $$

    s is step, a share of eps; steps is how many, restarts how often from another start, where the last found nothing,
    and draws how many forward passes are averaged at each step, for networks that randomise. A sample stops where it is
    first misclassified. In the norm "l2" the gradient is divided by its length.
    """
    how = {"steps": steps, "step": step, "restarts": restarts, "draws": draws}
    return pgd_on(objectives.ce, model, x, target, eps=eps, norm=norm, generator=generator, **how)


@attack(norms=("linf", "l2"))
def pgd_margin(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float = 40,
    step: float = 0.1,
    restarts: float = 1,
    draws: float = 1,
) -> Tensor:
    r"""PGD on the margin, for inputs (N, ...) and target (N,); returns inputs (N, ...).

    $$ x_{t+1} = \Pi(x_t + s \, \mathrm{sign} \, \nabla_x (\max_{k \ne y} z_k - z_y)), \quad z = f(x_t) $$

    The gradient does not fade where the network is certain, as that of cross-entropy does. steps, step, restarts and
    draws are as for ``pgd``.
    """
    how = {"steps": steps, "step": step, "restarts": restarts, "draws": draws}
    return pgd_on(objectives.margin, model, x, target, eps=eps, norm=norm, generator=generator, **how)


@attack(norms=("linf", "l2"), classes=3)
def pgd_dlr(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
    steps: float = 40,
    step: float = 0.1,
    restarts: float = 1,
    draws: float = 1,
) -> Tensor:
    r"""PGD on the difference of logits ratio, for inputs (N, ...) and target (N,); returns inputs (N, ...).

    $$ x_{t+1} = \Pi\left(x_t + s \, \mathrm{sign} \, \nabla_x
    \frac{\max_{k \ne y} z_k - z_y}{z_{(1)} - z_{(3)}}\right), \quad z = f(x_t) $$

    Neither a shift nor a scale of the logits changes it (Croce & Hein, ICML 2020). steps, step, restarts and draws are
    as for ``pgd``.
    """
    how = {"steps": steps, "step": step, "restarts": restarts, "draws": draws}
    return pgd_on(objectives.dlr, model, x, target, eps=eps, norm=norm, generator=generator, **how)

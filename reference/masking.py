"""Whether a defence only hides its gradients (Athalye, Carlini & Wagner, ICML 2018, arXiv:1802.00420).

An attack that follows gradients is blind where they lead nowhere, and accuracy under it says nothing then. Signs of
that can be measured, and every check here is one: it gives the number, and a verdict. A defence that fails one is not
thereby broken, but its accuracy under attack is not to be relied on.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference.attacks.ascent import frozen, slope
from reference.attacks.ball import project, steepest
from reference.attacks.objectives import ce

LEAST = 0.01  # difference of two accuracies that is looked at
RISES = 0.9  # least share of inputs whose loss rises along its gradient
LEFT = 0.02  # most accuracy that may be left in the largest ball
SAME = 1e-4  # relative difference of logits that is not rounding
LINE = (1 / 64, 1 / 16, 1 / 4, 1 / 2, 1)  # shares of eps at which the loss is looked at along its gradient


@dataclass(frozen=True)
class Check:
    """What a check measured, where its limit lies, and what follows: ``reason`` is empty where nothing is wrong."""

    name: str
    value: float
    limit: float
    reason: str

    @property
    def suspect(self) -> bool:
        """Whether the defence fails it."""
        return bool(self.reason)


def gained(name: str, weaker: Tensor, stronger: Tensor, reason: str) -> Check:
    """By how much accuracy is higher under the attack that should be stronger: fails above LEAST and two standard
    errors.

    Both are bools (N,), whether the same samples were still classified correctly under each attack.
    """
    value = float(stronger.double().mean() - weaker.double().mean())
    limit = max(LEAST, 2 * math.sqrt(int((weaker != stronger).sum())) / len(weaker))
    return Check(name, value, limit, f"{reason} by {100 * value:.1f} points" if value > limit else "")


def more_steps(few: Tensor, many: Tensor) -> Check:
    """An attack of more steps never leaves more right: bools (N,)."""
    return gained("steps", few, many, "more steps of the attack raise accuracy")


def more_restarts(one: Tensor, several: Tensor) -> Check:
    """An attack of more restarts never leaves more right: bools (N,)."""
    return gained("restarts", one, several, "more restarts of the attack raise accuracy")


def black_box(without: Tensor, within: Tensor) -> Check:
    """An attack without gradients is never better than one ``within`` the network, that follows them: bools (N,)."""
    return gained("black box", without, within, "an attack without gradients beats the one with them")


def vanishes(accuracy: Mapping[float, float]) -> Check:
    """Accuracy under attack falls as eps grows, and in the largest ball, from which anything can be reached, to
    nothing.

    ``accuracy`` maps eps to accuracy under the same attack; the largest eps is to cover the box.
    """
    sizes = sorted(accuracy)
    value = accuracy[sizes[-1]]
    rise = max((accuracy[b] - accuracy[a] for a, b in itertools.pairwise(sizes)), default=0.0)
    reason = f"{100 * value:.1f} % are still right at eps = {sizes[-1]:g}" if value > LEFT else ""
    if not reason and rise > 2 * LEAST:
        reason = f"accuracy rises by {100 * rise:.1f} points with eps"
    return Check("large eps", value, LEFT, reason)


def along_gradient(model: Any, x: Tensor, target: Tensor, *, eps: float, norm: str = "linf") -> Check:
    """The share of inputs x (N, ...) whose cross-entropy rises, somewhere within eps, along its own gradient.

    It is nearly all of them for a network whose gradients mean something; not where the input or the logits are made
    coarse, or so large or small that float32 no longer sees a change.
    """
    with frozen(model):
        gradient, _, before = slope(model, x, target, ce)
        highest = torch.full_like(before, -torch.inf)
        for share in LINE:
            with torch.no_grad():
                after = ce(model(project(x + share * eps * steepest(gradient, norm), x, eps, norm)), target)
            highest = torch.maximum(highest, after)
    value = float((highest > before).double().mean())
    none = int((gradient.flatten(1).abs().amax(1) == 0).sum())
    reason = f"the loss rises along its gradient for {100 * value:.0f} % of inputs; it is 0 for {none} of {len(x)}"
    return Check("along the gradient", value, RISES, reason if value < RISES else "")


@torch.no_grad()
def repeatable(model: Any, x: Tensor) -> Check:
    """The share of inputs x (N, ...) that get other logits when asked again: none, unless the network randomises."""
    one, two = model(x), model(x)
    size = torch.maximum(one.abs(), two.abs()).amax(1)
    value = float(((one - two).abs().amax(1) > SAME * size).double().mean())
    return Check(
        "repeatable", value, 0.0, "predictions are random: attacks have to average over draws" if value > 0 else ""
    )

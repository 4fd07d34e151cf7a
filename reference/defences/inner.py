"""The searches that several defences share: what they make large to find the inputs they train on."""

from typing import Any

from torch import Tensor

from reference.attacks.ascent import Found
from reference.attacks.objectives import ce
from reference.attacks.search import Search


def loudest(model: Any, x: Tensor, target: Tensor, search: Search) -> Found:
    """PGD on cross-entropy from a random point of the ball (Madry et al., ICLR 2018)."""
    return search.ascend(model, x, target, ce, search.anywhere(x))


def loudest_nearby(model: Any, x: Tensor, target: Tensor, search: Search) -> Found:
    """PGD on cross-entropy from right beside the input, as the code of MART and MTARD has it."""
    return search.ascend(model, x, target, ce, search.near(x))

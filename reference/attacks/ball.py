"""The ball around an input in which attacks look, cut to the box [0, 1]: projection, steepest direction, a random
point.

Inputs are (N, ...); a ball is the inputs within ``eps`` of a centre in the norm "linf" (the largest change of a
feature) or "l2" (the Euclidean length of all changes).
"""

import torch
from torch import Tensor

TINY = 1e-12  # added to lengths that are divided by


def lengths(x: Tensor) -> Tensor:
    """The Euclidean length of each sample of x (N, ...), shaped (N, 1, ...) so that it divides x."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def largest(x: Tensor) -> Tensor:
    """The largest magnitude in each sample of x (N, ...), shaped (N, 1, ...)."""
    return x.flatten(1).abs().amax(1).view(-1, *[1] * (x.ndim - 1))


def project(x: Tensor, centre: Tensor, eps: float, norm: str) -> Tensor:
    """The points of the balls around ``centre`` in [0, 1] that stand for x, both (N, ...).

    For "linf" they are the nearest ones. For "l2" x is first moved along the ray to the centre, then cut to the box,
    which brings it no further from a centre in the box.

    >>> project(torch.tensor([[0.9, 0.2]]), torch.tensor([[0.5, 0.5]]), 0.1, "linf")
    tensor([[0.6000, 0.4000]])
    """
    if norm == "linf":
        return torch.clamp(torch.clamp(x, centre - eps, centre + eps), 0, 1)
    change = x - centre
    return torch.clamp(centre + change * (eps / lengths(change).clamp(min=max(eps, TINY))), 0, 1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The step of size 1 in the norm along which a function with this gradient (N, ...) rises most; 0 where it is 0.

    >>> steepest(torch.tensor([[3.0, -4.0]]), "linf"), steepest(torch.tensor([[3.0, -4.0]]), "l2")
    (tensor([[ 1., -1.]]), tensor([[ 0.6000, -0.8000]]))
    """
    if norm == "linf":
        return gradient.sign()
    scaled = gradient / largest(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)  # squares of tiny ones vanish
    return scaled / (lengths(scaled) + TINY)


def anywhere(centre: Tensor, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    """A random point of each ball around ``centre`` (N, ...), then cut to the box.

    Uniform in the ball for "linf"; for "l2" direction and distance are uniform, as programs have it: in many dimensions
    nearly all of the ball is next to its surface, where the box cuts more.
    """
    drawn = torch.empty(centre.shape, dtype=centre.dtype)
    if norm == "linf":
        change = drawn.uniform_(-eps, eps, generator=generator)
    else:
        change = steepest(drawn.normal_(generator=generator), norm)
        radius = torch.rand(len(centre), *[1] * (centre.ndim - 1), generator=generator, dtype=centre.dtype)
        change = eps * radius * change
    return torch.clamp(centre + change.to(centre.device), 0, 1)


def surface(centre: Tensor, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    """A random point on the surface of each ball around ``centre`` (N, ...), then cut to the box."""
    drawn = torch.empty(centre.shape, dtype=centre.dtype)
    if norm == "linf":
        drawn.uniform_(-1, 1, generator=generator)
        change = drawn / (largest(drawn) + TINY)
    else:
        change = steepest(drawn.normal_(generator=generator), norm)
    return torch.clamp(centre + eps * change.to(centre.device), 0, 1)

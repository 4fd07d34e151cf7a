"""How two networks that do the same lie to each other: what is between them, and how alike their outputs are."""

from collections.abc import Sequence

from torch import Tensor


def connectivity(errors: Sequence[float]) -> float:
    """Mode connectivity (Zhou et al., ICML 2023, arXiv:2305.18383) from errors along a path, its ends included.

    The mean of the ends less the largest on the path: about 0 where nothing worse lies between two networks, and
    negative where a barrier does.

    >>> connectivity([0.1, 0.4, 0.2])
    -0.25
    """
    return (errors[0] + errors[-1]) / 2 - max(errors)


def cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019, arXiv:1905.00414) of outputs (N, P) and (N, Q).

    From 0 to 1, which is for outputs that are alike up to a rotation and a factor; NaN where one is constant.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    >>> round(cka(x, 5 * x.flip(1) + 1), 6)
    1.0
    """
    x, y = (each.double() - each.double().mean(0) for each in (x, y))
    cross, own, other = (a.T @ b for a, b in ((x, y), (x, x), (y, y)))
    return float(cross.square().sum() / (own.norm() * other.norm()))

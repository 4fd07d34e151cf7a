"""Mixup (Zhang et al., ICLR 2018, arXiv:1710.09412)."""

import math

import torch
from torch import Tensor

from reference.methods import Range, correction


def symmetric_beta(a: float | Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A draw of Beta(a, a) from two uniforms in [0, 1), for any a > 0.

    Bailey's polar method (Mathematics of Computation 1994) gives Student's t with 2a degrees of freedom as
    t^2 = 2a (u^(-1/a) - 1) cos^2(2 pi v), and (1 + t / sqrt(2a + t^2)) / 2 is the draw. Both parts of the fraction are
    multiplied by sqrt(u^(1/a)) here, so that nothing overflows for small a.
    """
    power = u.log() / a
    across = (-torch.expm1(power)).sqrt() * torch.cos(2 * math.pi * v)
    length = (power.exp() + across.square()).sqrt()
    return (1 + across / length.clamp(min=torch.finfo(length.dtype).tiny)) / 2


@correction(at="inputs", search={"mix": Range(0.1, 32, log=True)}, draws=2)
def mixup(inputs: Tensor, target: Tensor, *, mix: float = 1.0, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Every sample mixed with another one, and so their losses, for inputs (N, ...) and target (N,); returns the mixed
    inputs (N, ...), the others' target (N,) and the share of the own (0-d).

    $$ \lambda \, \ell(f(\tilde{x}_i), y_i) + (1 - \lambda) \, \ell(f(\tilde{x}_i), y_{i+1}), \quad
    \tilde{x}_i = \lambda x_i + (1 - \lambda) x_{i+1}, \quad \lambda \sim \mathrm{Beta}(\alpha, \alpha) $$

    alpha is mix; one lambda is drawn for each batch, and the other sample is the next one of the batch, whose order is
    random. The default is the authors' for CIFAR-10; with noisy labels they prefer 8 to 32, near an even mix.
    """
    share = symmetric_beta(mix, draws[0, 0], draws[0, 1])
    return share * inputs + (1 - share) * inputs.roll(-1, 0), target.roll(-1, 0), share

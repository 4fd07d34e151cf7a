"""Adversarial weight perturbation (Wu, Xia & Wang, NeurIPS 2020, arXiv:2004.05884)."""

from collections.abc import Callable, Sequence

from torch import Tensor

from reference.defences.divergence import kl
from reference.defences.inner import loudest
from reference.defences.trades import furthest
from reference.methods import Range, defence

TINY = 1e-20  # added to the length of a gradient


def against_weights(weights: Sequence[Tensor], gradients: Sequence[Tensor], *, gamma: float) -> list[Tensor]:
    """Each layer's weights moved along their gradient by gamma times their length; biases and scales stay."""
    moved = []
    for w, g in zip(weights, gradients, strict=True):
        moved.append(w + gamma * w.norm() / (g.norm() + TINY) * g if w.ndim > 1 else w)
    return moved


@defence(search={"gamma": Range(0.001, 0.02, log=True)}, inner=loudest, weights=against_weights)
def at_awp(
    target: Tensor, *, adversarial: Tensor, base: Callable[[Tensor, Tensor], Tensor], gamma: float = 0.01
) -> Tensor:
    r"""Adversarial training whose gradient is taken at worse weights, for target (N,); returns (N,).

    $$ \max_{\|v_l\| \le \gamma \|w_l\|} \ell(f_{w + v}(x'), y) $$

    One step of each layer's weights along the gradient, by gamma times their length, and the gradient is taken there
    (Wu et al.): flat minima, and less overfitting to the adversary. The inputs are those found at the unmoved weights.
    gamma is that of the authors' code for adversarial training, where it starts after some epochs; here from the first.
    """
    return base(adversarial, target)


@defence(
    search={"gamma": Range(0.001, 0.02, log=True), "weight": Range(0.5, 12, log=True)},
    inner=furthest,
    weights=against_weights,
)
def trades_awp(
    target: Tensor,
    *,
    clean: Tensor,
    adversarial: Tensor,
    base: Callable[[Tensor, Tensor], Tensor],
    gamma: float = 0.005,
    weight: float = 6.0,
) -> Tensor:
    r"""TRADES whose gradient is taken at worse weights, for target (N,); returns (N,).

    $$ \max_{\|v_l\| \le \gamma \|w_l\|} \ell(f_{w + v}(x), y)
    + \beta \, \mathrm{KL}(p_{w + v}(x) \,\|\, p_{w + v}(x')) $$

    As ``at_awp`` and ``trades``; gamma is that of the authors' code for TRADES, beta is weight.
    """
    return base(clean, target) + weight * kl(clean, adversarial)

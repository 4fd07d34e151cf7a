"""Adversarial training (Madry et al., ICLR 2018, arXiv:1706.06083)."""

from collections.abc import Callable

from torch import Tensor

from reference.defences.inner import loudest
from reference.methods import defence


@defence(inner=loudest)
def at(target: Tensor, *, adversarial: Tensor, base: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    r"""The loss for the worst input that PGD finds in the ball, for target (N,); returns (N,).

    $$ \ell(f(x'), y), \quad x' \approx \arg\max_{x' \in B(x, \epsilon)} -\log p_y(x') $$

    With another loss the adversary is still that of cross-entropy: the loss decides what the network makes of an
    attack, not how strong it is, and a loss whose gradient fades would blind its own adversary.
    """
    return base(adversarial, target)

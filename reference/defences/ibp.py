"""Training with interval bounds (Gowal et al. 2018, arXiv:1810.12715)."""

from collections.abc import Callable

from torch import Tensor

from reference.methods import defence

WARM, RAMPED = 0.05, 0.5  # shares of the training: until the first eps is 0, from the second on all of it


def ramp(progress: Tensor) -> Tensor:
    """The share of eps to train at: 0, then in a line to 1.

    >>> import torch
    >>> ramp(torch.tensor([0.0, 0.5, 0.9])).tolist()
    [0.0, 1.0, 1.0]
    """
    return ((progress - WARM) / (RAMPED - WARM)).clamp(0, 1)


@defence(search={"clean_share": (0.0, 0.9)}, radius=ramp)
def ibp(
    target: Tensor,
    *,
    clean: Tensor,
    worst: Tensor,
    base: Callable[[Tensor, Tensor], Tensor],
    progress: Tensor,
    clean_share: float = 0.5,
) -> Tensor:
    r"""The loss for the worst logits that interval bounds allow, beside the plain loss, for target (N,); returns (N,).

    $$ \kappa \, \ell(f(x), y) + (1 - \kappa) \, \ell(\hat{z}, y), \quad
    \hat{z}_k = \max_{x'} (z_k - z_y) \text{ by bounds} $$

    Where the bounds keep every other class below the label no attack within eps succeeds: what it trains for can be
    certified. eps grows from 0 in a line over the first half of the training, and kappa falls with it from 1 to
    clean_share. The authors' final share is 0.5; the schedule's lengths are ours.
    """
    kappa = 1 - (1 - clean_share) * ramp(progress)
    return kappa * base(clean, target) + (1 - kappa) * base(worst, target)

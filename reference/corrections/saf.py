"""Sharpness-aware training for free (Du et al., NeurIPS 2022, arXiv:2205.14083)."""

import torch
from torch import Tensor

from reference.corrections.labels import Loss
from reference.methods import Memory, Range, correction
from reference.softmax import log_softmax


@correction(search={"pull": Range(0.05, 2, log=True)}, state=Memory(0.0, per_class=True))
def saf(
    base: Loss,
    logits: Tensor,
    target: Tensor,
    *,
    pull: float = 0.3,
    heat: float = 5.0,
    onset: float = 0.05,
    state: Tensor,
    progress: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""The loss plus the distance of the softened prediction from the one of the visit before, for logits (N, C) and
    target (N,); returns (N,) and the log-probabilities (N, C).

    $$ \ell(z, y) + \lambda \tau^2 \, \mathrm{KL}\big( p'_\tau \,\|\, p_\tau \big), \quad
    p_\tau = \mathrm{softmax}(z / \tau) $$

    lambda is pull, tau is heat, and p' the prediction of the visit before. A sharp minimum shows as a sudden change
    between visits; keeping it small costs no second gradient. The memory holds the log-probabilities of the last visit,
    0 before the first; the authors' code keeps several epochs and compares with two or three epochs ago.

    The term begins at the fraction onset of the training: the authors begin after 5 of 90 epochs, or at 30 %. The
    default of pull is theirs; heat is not tuned, on their advice, nor is onset.
    """
    log_p, before = log_softmax(logits / heat), log_softmax(state / heat)
    divergence = (before.exp() * (before - log_p)).sum(-1)
    begun = (progress >= onset) & (state.amin(-1) < 0)
    values = base(logits, target) + torch.where(begun, pull * heat**2 * divergence, 0)
    return values, log_softmax(logits.detach())

"""Truncated generalized cross-entropy (Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836)."""

import torch
from torch import Tensor

from reference.methods import Memory, loss
from reference.softmax import target_log_softmax


@loss(search={"q": (0.05, 0.95)}, bounded=True, state=Memory(1.0), tags=("noise-robust",))
def tgce(
    logits: Tensor, target: Tensor, *, q: float = 0.7, k: float = 0.5, state: Tensor, progress: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Generalized cross-entropy that prunes samples predicted with probability k or less, for logits (N, C) and target
    (N,); returns (N,) and the keep flags (N,).

    $$ \frac{1 - p_y^q}{q} \text{ if the sample is kept, else } \frac{1 - k^q}{q} $$

    The memory holds one keep flag per sample, 1 at the start. A visit is valued with the flag of the visit before; from
    half of the training on (progress >= 0.5) it leaves behind a new flag, p_y > k. A pruned sample costs a constant,
    has no gradient, and comes back once the model, trained on the others, predicts its label.

    The paper alternates two searches: with the model fixed, the best flags (those of p_y > k); with the flags fixed,
    the model. Refreshing at every visit is that alternation one batch at a time. The code of Zhu et al. (ICML 2023)
    refreshes in every tenth epoch of the second half, makes no step in that epoch, and leaves out the constant.

    k stays at the paper's 0.5, above which the label is certainly the predicted class.
    """
    log_p = target_log_softmax(logits, target)
    kept = -torch.expm1(q * log_p) / q
    pruned = (1 - k**q) / q
    flags = torch.where(progress >= 0.5, (log_p.detach().exp() > k).to(state.dtype), state)
    return state * kept + (1 - state) * pruned, flags

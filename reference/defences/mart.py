"""Misclassification-aware adversarial training (Wang et al., ICLR 2020)."""

import torch
from torch import Tensor

from reference.defences.divergence import kl
from reference.defences.inner import loudest_nearby
from reference.methods import Range, defence
from reference.softmax import pick, softmax, target_log_softmax


@defence(search={"weight": Range(0.5, 12, log=True)}, inner=loudest_nearby)
def mart(target: Tensor, *, clean: Tensor, adversarial: Tensor, weight: float = 6.0) -> Tensor:
    r"""Boosted cross-entropy of the adversarial input, and a divergence that counts more where the clean input is not
    classified well, for target (N,); returns (N,).

    $$ -\log p_y(x') - \log(1.0001 - \max_{k \ne y} p_k(x')) + \lambda (1 - p_y(x)) \, \mathrm{KL}(p(x) \,\|\, p(x')) $$

    lambda is weight; the default is that of the authors' code, their paper has 5. The constant 1.0001 is the code's, so
    that the logarithm stays finite.
    """
    p = softmax(adversarial)
    own = target[:, None] == torch.arange(p.shape[1], device=p.device)
    others = p.masked_fill(own, 0).amax(1)
    boosted = -target_log_softmax(adversarial, target) - (1.0001 - others).log()
    return boosted + weight * (1 - pick(softmax(clean), target)) * kl(clean, adversarial)

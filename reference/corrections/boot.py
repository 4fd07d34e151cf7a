"""Bootstrapping (Reed et al., ICLR Workshop 2015, arXiv:1412.6596), section 3.3."""

import torch
from torch import Tensor

from reference.corrections.labels import Loss, against, against_all
from reference.methods import correction
from reference.softmax import pick, softmax

TRUST = (0.4, 0.99)


@correction(search={"trust": TRUST}, tags=("noise-robust",))
def boot_soft(base: Loss, logits: Tensor, target: Tensor, *, trust: float = 0.95) -> Tensor:
    r"""The loss against a label mixed with the prediction itself, for logits (N, C) and target (N,); returns (N,).

    $$ b \, \ell(z, y) + (1 - b) \sum_k p_k \, \ell(z, k) $$

    b is the trust in the label. The gradient flows through p too, so that around cross-entropy the second term is the
    entropy of the prediction: the network is drawn to what it already believes. The default is the authors'.
    """
    losses = against_all(base, logits)
    return trust * pick(losses, target) + (1 - trust) * (softmax(logits) * losses).sum(-1)


@correction(search={"trust": TRUST}, tags=("noise-robust",))
def boot_hard(base: Loss, logits: Tensor, target: Tensor, *, trust: float = 0.8) -> Tensor:
    r"""The loss against the label and against the predicted class, for logits (N, C) and target (N,); returns (N,).

    $$ b \, \ell(z, y) + (1 - b) \, \ell(z, \hat{y}), \quad \hat{y} = \operatorname{argmax}_k z_k $$

    b is the trust in the label. A sample whose label is the predicted class keeps the loss itself. The default is the
    authors'.
    """
    labels = torch.stack([target, logits.detach().argmax(-1)])
    own, predicted = against(base, logits, labels).unbind(-1)
    return trust * own + (1 - trust) * predicted

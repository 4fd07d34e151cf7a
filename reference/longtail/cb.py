"""Class-balanced losses (Cui et al., CVPR 2019, arXiv:1901.05555)."""

import torch
from torch import Tensor

from reference.losses.focal import focusing
from reference.methods import long_tail_loss
from reference.softmax import pick, target_log_softmax


def effective_weights(counts: Tensor, beta: float | Tensor) -> Tensor:
    """(1 - beta) / (1 - beta^n) for the classes' sizes n (C,), scaled to sum to C. A class of size 0 counts as of 1."""
    log_beta = torch.as_tensor(beta, dtype=counts.dtype, device=counts.device).log()
    weights = 1 / -torch.expm1(counts.clamp(min=1) * log_beta)
    return weights * counts.shape[-1] / weights.sum(-1, keepdim=True)


def of_target(weights: Tensor, target: Tensor) -> Tensor:
    """The weight (N,) of each sample's class, of weights (C,)."""
    return pick(weights.expand(*target.shape, -1), target)


@long_tail_loss(search={"beta": (0.9, 0.9999)})
def cb(logits: Tensor, target: Tensor, *, beta: float = 0.999, counts: Tensor) -> Tensor:
    r"""Cross-entropy weighted by the effective number of samples of the class, for logits (N, C) and target (N,);
    returns (N,).

    $$ -w_y \log p_y, \quad w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}, \; \sum_k w_k = C $$

    n are the sizes of the classes. beta -> 0 is cross-entropy, beta -> 1 weights by 1 / n. The authors try 0.9, 0.99,
    0.999 and 0.9999; the default is our choice.
    """
    return -of_target(effective_weights(counts, beta), target) * target_log_softmax(logits, target)


@long_tail_loss(search={"beta": (0.9, 0.9999), "gamma": (0.1, 5.0)})
def cb_focal(logits: Tensor, target: Tensor, *, beta: float = 0.999, gamma: float = 1.0, counts: Tensor) -> Tensor:
    r"""Focal loss weighted by the effective number of samples of the class, for logits (N, C) and target (N,); returns
    (N,).

    $$ -w_y (1 - p_y)^\gamma \log p_y, \quad w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}, \; \sum_k w_k = C $$

    Of softmax probabilities; the authors' is a sum over one-against-all sigmoids. Zero gamma is ``cb``. Defaults are
    ours.
    """
    return of_target(effective_weights(counts, beta), target) * focusing(target_log_softmax(logits, target), gamma)

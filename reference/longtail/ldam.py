"""Label-distribution-aware margins (Cao et al., NeurIPS 2019, arXiv:1906.07413)."""

import torch
from torch import Tensor

from reference.longtail.cb import effective_weights, of_target
from reference.methods import Range, long_tail_loss
from reference.softmax import target_log_softmax

SEARCH = {"margin": Range(0.1, 1.0), "scale": Range(1.0, 30.0, log=True)}
LATE = 0.8  # when the weights set in: epoch 160 of 200 in the authors' code
BETA = 0.9999  # of the weights, as there


def margins(counts: Tensor, margin: float | Tensor) -> Tensor:
    """The classes' margins (C,), proportional to size^(-1/4); ``margin`` for the smallest class."""
    raw = counts.clamp(min=1) ** -0.25
    return margin * raw / raw.amax(-1, keepdim=True)


def with_margin(logits: Tensor, target: Tensor, own: Tensor, scale: float | Tensor) -> Tensor:
    """Minus the log-probability of the target after its logit was lowered by ``own`` (N,): (N,)."""
    label = target[..., :, None] == torch.arange(logits.shape[-1], device=logits.device)
    return -target_log_softmax(scale * (logits - label * own[..., None]), target)


@long_tail_loss(search=SEARCH)
def ldam(logits: Tensor, target: Tensor, *, margin: float = 0.5, scale: float = 30.0, counts: Tensor) -> Tensor:
    r"""Cross-entropy with a margin that is larger for smaller classes, for logits (N, C) and target (N,); returns (N,).

    $$ -\log \frac{e^{s (z_y - m_y)}}{e^{s (z_y - m_y)} + \sum_{k \neq y} e^{s z_k}}, \quad
    m_k = m \frac{n_k^{-1/4}}{\max_j n_j^{-1/4}} $$

    n are the sizes of the classes, m the margin, s the scale. The defaults are the authors', whose z are cosines of
    normalised features and weights; with the logits of a plain network, s is another temperature and is tuned down to
    1.
    """
    return with_margin(logits, target, of_target(margins(counts, margin), target), scale)


@long_tail_loss(search=SEARCH)
def ldam_drw(
    logits: Tensor, target: Tensor, *, margin: float = 0.5, scale: float = 30.0, counts: Tensor, progress: Tensor
) -> Tensor:
    r"""The margins of ``ldam``, and class-balanced weights in the last fifth of the training, for logits (N, C) and
    target (N,); returns (N,).

    $$ -w_y \log \frac{e^{s (z_y - m_y)}}{e^{s (z_y - m_y)} + \sum_{k \neq y} e^{s z_k}}, \quad
    w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}} \text{ late, else } 1 $$

    Deferred re-weighting as in the authors' code: from epoch 160 of 200 on, with beta = 0.9999.
    """
    weights = torch.where(progress >= LATE, effective_weights(counts, BETA), 1.0)
    return of_target(weights, target) * ldam(logits, target, margin=margin, scale=scale, counts=counts)

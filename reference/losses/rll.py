"""Robust log loss (Patel & Sastry, PAKDD 2021, arXiv:2107.09957)."""

import torch
from torch import Tensor

from reference.methods import Range, loss
from reference.softmax import pick, softmax, target_log_softmax


@loss(search={"alpha": Range(0.1, 10, log=True)}, symmetric=True, bounded=True, tags=("noise-robust",))
def rll(logits: Tensor, target: Tensor, *, alpha: float = 0.1) -> Tensor:
    r"""Log loss of shifted probabilities, made symmetric, for logits (N, C) and target (N,); returns (N,).

    $$ \log \frac{\alpha + 1}{\alpha} - \log(\alpha + p_y) + \frac{1}{C - 1} \sum_{k \neq y} \log(\alpha + p_k) $$

    Symmetric: its sum over all labels is C log((alpha + 1) / alpha). Zero at p_y = 1. The default is the smallest of
    the grid {0.1, 1, 10} of Zhu et al. (ICML 2023), whose code has another last term.
    """
    logs = torch.log1p(softmax(logits) / alpha)  # log(alpha + p) - log(alpha); the second parts cancel
    own = pick(logs, target)
    return torch.log1p(torch.ones_like(own) / alpha) - own + (logs.sum(-1) - own) / (logits.shape[-1] - 1)


@loss(search={"alpha": Range(0.1, 10, log=True)}, tags=("noise-robust",))
def rll_ldr(logits: Tensor, target: Tensor, *, alpha: float = 0.1) -> Tensor:
    r"""Robust log loss with the last term of another code, for logits (N, C) and target (N,); returns (N,).

    $$ -\log(\alpha + p_y) + \frac{1}{C - 1} \log \sum_k \left( \alpha +
    \exp \left( [k \neq y] \, z_k - \sum_l z_l \right) \right) $$

    The form in the code of Zhu et al. (ICML 2023, arXiv:2112.14869), z the logits; their grid is {0.1, 1, 10}. Where
    ``rll`` has the mean of the other classes' log(alpha + p_k), it has the logarithm of a sum of exponentials of
    logits: it is neither symmetric nor bounded, and depends on the logits' mean. The exponentials, which overflow in
    their code, are never formed here.
    """
    classes = logits.shape[-1]
    log_p = target_log_softmax(logits, target)
    others = torch.arange(classes, device=logits.device) != target[..., None]
    exponents = torch.where(others, logits, 0) - logits.sum(-1, keepdim=True)
    top = exponents.detach().amax(-1)
    rest = (exponents - top[..., None]).exp().sum(-1).log() + top
    floor = torch.log(torch.ones_like(log_p) * alpha * classes)
    return torch.logaddexp(floor, rest) / (classes - 1) - torch.log(alpha + log_p.exp())

"""Earth mover distance optimization (Ren, Wu & Zhu, ICLR 2024, arXiv:2310.04691)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import log_softmax, pick


@loss(tags=("stop-gradient",))
def emo(logits: Tensor, target: Tensor, *, cap: float = 3.0, head: Tensor) -> Tensor:
    r"""Cross-entropy beside the earth mover's distance between classes, which is scaled to equal it, for logits (N, C)
    and target (N,); returns (N,).

    $$ \frac{1}{2} \left( \min(\overline{L / D}, \, c) \, D - \log p_y \right), \quad L = -\log p_y, \quad
    D = 1 - \left\langle E_y, \sum_k p_k E_k - \overline{p}_y E_y \right\rangle $$

    E_k is row k of the head (C, h), the network's last weights, divided by its norm; c is the cap. What is barred is
    held constant. D is an upper bound of the earth mover's distance between prediction and label, with cost one minus
    the cosine of E_y and E_k, but for the target's own part, which is taken from its value and left in its gradient.

    Made for language models, where rows are word embeddings. This is the authors' adaptive mixing; their cap, 3 where
    they fine-tune, is not tuned. The cosines of all pairs of classes are not needed, only the mean embedding.
    """
    rows = head * torch.rsqrt((head * head).sum(-1, keepdim=True) + 1e-20)
    log_p = log_softmax(logits)
    own = pick(log_p, target)
    p = log_p.exp()
    distance = 1 - (rows[target] * (p @ rows)).sum(-1) + own.detach().exp()
    ratio = (-own.detach() / (distance.detach().clamp(min=0) + 1e-10)).clamp(max=cap)
    return 0.5 * (ratio * distance - own)

"""Logit adjustment (Menon et al., ICLR 2021, arXiv:2007.07314)."""

from torch import Tensor

from reference.methods import long_tail_loss
from reference.softmax import target_log_softmax


@long_tail_loss(search={"tau": (0.0, 2.0)})
def logit_adjusted(logits: Tensor, target: Tensor, *, tau: float = 1.0, counts: Tensor) -> Tensor:
    r"""Cross-entropy of logits that are raised by the logarithm of the class's frequency, for logits (N, C) and target
    (N,); returns (N,).

    $$ -\log \frac{\pi_y^\tau e^{z_y}}{\sum_k \pi_k^\tau e^{z_k}} $$

    pi are the classes' shares of the training samples. The prior is in the training alone, so that the plain logits
    predict as if all classes were alike; with tau = 1 that is Fisher consistent for the balanced error. Zero tau is
    cross-entropy. A class of size 0 counts as of 1.
    """
    log_share = (counts.clamp(min=1) / counts.sum(-1, keepdim=True)).log()
    return -target_log_softmax(logits + tau * log_share, target)

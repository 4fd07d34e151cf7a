"""The divergence between two predictions."""

from torch import Tensor

from reference.softmax import log_softmax


def kl(of: Tensor, against: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) of the softmax of logits ``of`` (N, C) from that of ``against`` (N, C).

    The gradient goes through both.
    """
    log_p, log_q = log_softmax(of), log_softmax(against)
    return (log_p.exp() * (log_p - log_q)).sum(-1)

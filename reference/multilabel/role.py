"""Regularised online label estimation (Cole et al., CVPR 2021, arXiv:2106.09708)."""

import math

import torch
from torch import Tensor

from reference.methods import Memory, Range, multilabel_loss
from reference.multilabel.epr import excess
from reference.sigmoid import LEAST, negative_logs

FIRST = math.log(0.995 / 0.005)  # where the estimate of a known label begins, as in the authors' code


@multilabel_loss(
    search={"step": Range(0.1, 30.0, log=True)},
    batchwise=True,
    state=Memory(0.0, per_class=True),
    tags=("single-positive",),
)
def role(
    logits: Tensor, target: Tensor, *, step: float = 3.0, observed: Tensor, cardinality: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Network and label estimates that teach each other, for logits (N, L) and target (N, L); returns a scalar and the
    estimates' logits (N, L).

    $$ -\frac{1}{2 N L} \sum_{il} \left[ y \log p + \phi \log p + (1 - \phi) \log(1 - p) \right]
    + \frac{1}{2} \left( \frac{\frac{1}{N} \sum_{il} p_{il} - k}{L} \right)^2 $$

    phi, the memory's estimate of each training label, minimises the same with p and phi exchanged, by one gradient step
    at each visit. k is the mean number of labels that samples truly have, which the loss is told. The memory holds the
    estimates' logits, less where those of known labels begin, at 0.995; the others begin at 1/2, the authors' near it
    at random. The authors train the estimates with Adam, at ten times the network's rate; a visit here changes them by
    step times N L times the gradient, which does not depend on the batch's size, and step is our choice. A label that
    is known not to hold teaches through its estimate alone, which begins at 0.005.
    """
    present, absent = negative_logs(logits)
    known = FIRST * (target - observed * (1 - target))
    phi = torch.sigmoid(state + known)
    value = (target * present + phi * present + (1 - phi) * absent).mean() / 2
    p = torch.sigmoid(logits)
    pull = (1 - p) / (1 - phi + LEAST) - (target + p) / (phi + LEAST) + 2 * excess(phi, cardinality)
    moved = state - step * (pull * phi * (1 - phi) / 2).detach()
    return value + excess(p, cardinality) ** 2 / 2, moved

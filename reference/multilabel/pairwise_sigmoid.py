"""Pairwise sigmoid loss (Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023, arXiv:2303.15343)."""

import math

import torch
from torch import Tensor

from reference.methods import multilabel_loss
from reference.sigmoid import target_log_sigmoid


def first(labels: int, generator: torch.Generator) -> Tensor:
    """The logarithm of the scale, and the shift, that training begins with: (2,)."""
    return torch.tensor([math.log(10.0), -10.0])


def scaled(logits: Tensor, *, learned: Tensor) -> Tensor:
    """The logits (N, L) of the probabilities: scaled and shifted by what was learned (2,)."""
    return learned[0].exp() * logits + learned[1]


@multilabel_loss(link=scaled, learned=first)
def pairwise_sigmoid(logits: Tensor, target: Tensor, *, learned: Tensor) -> Tensor:
    r"""Binary cross-entropy of logits with a learned scale and shift, for logits (N, L) and target (N, L); returns
    (N,).

    $$ -\frac{1}{L} \sum_l \log \mathrm{sigmoid} \left( y'_l (e^{t} z_l + b) \right), \quad y'_l = 2 y_l - 1 $$

    t and b are trained with the network, from log 10 and -10 (recalled, not read in the paper), so that it begins by
    predicting nothing. The authors' z are cosines of pairs of texts and images, and their sum over pairs is divided by
    N alone; here it is the mean, which a learning rate makes up for.
    """
    return -target_log_sigmoid(scaled(logits, learned=learned), target).mean(-1)

"""Poly-1, the simplest PolyLoss (Leng et al., ICLR 2022, arXiv:2204.12511)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


@loss(search={"epsilon": (-1.0, 5.0)})
def poly1(logits: Tensor, target: Tensor, *, epsilon: float = 2.0) -> Tensor:
    r"""Cross-entropy with another first term of its expansion in 1 - p, for logits (N, C) and target (N,); returns
    (N,).

    $$ -\log p_y + \varepsilon (1 - p_y) = (1 + \varepsilon) (1 - p_y) + \sum_{j \geq 2} \frac{(1 - p_y)^j}{j} $$

    Zero epsilon is cross-entropy; epsilon = -1, the least that the paper allows, drops the first term and fades for
    well predicted samples as ``focal`` does. Unbounded. The default is the one of Optax, whose documentation gives it
    as the paper's for ImageNet, and -1 for object detection; the upper end of the range is ours.
    """
    log_p = target_log_softmax(logits, target)
    return -log_p - epsilon * torch.expm1(log_p)

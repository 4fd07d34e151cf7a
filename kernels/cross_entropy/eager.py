"""torch's own: keeps the log-probabilities, as large as the logits."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kernels.registry import kernel


@kernel("cross_entropy", device="any", dtypes=())
def eager(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """``torch.nn.functional.cross_entropy``."""
    values = cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
    return values + z_loss * torch.logsumexp(logits, -1) ** 2 if z_loss else values

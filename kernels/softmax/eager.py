"""torch's own: maximum; exp written and summed; multiplied, each row in one go."""

import torch
from torch import Tensor

from kernels.registry import kernel


@kernel("softmax", device="any", dtypes=())
def eager(x: Tensor, out: Tensor) -> None:
    """``torch.softmax``."""
    torch.softmax(x, -1, out=out)

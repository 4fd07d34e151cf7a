"""The fastest implementation."""

import torch
from torch import Tensor

from kernels.logsumexp.eager import eager
from kernels.logsumexp.online import online
from kernels.registry import kernel


@kernel("logsumexp", device="any", dtypes=())
def auto(x: Tensor) -> Tensor:
    """The online pass of float32 on CPU; else torch's."""
    return online(x) if x.dtype is torch.float32 and x.device.type == "cpu" else eager(x)

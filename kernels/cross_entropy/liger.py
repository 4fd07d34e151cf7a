"""Liger Kernel's cross-entropy (Hsu et al. 2024, arXiv:2410.10989), from its package where it is installed."""

from __future__ import annotations

from torch import Tensor

from kernels.gpu import DEVICE
from kernels.registry import kernel, required

required("liger_kernel")


@kernel("cross_entropy", device=DEVICE, dtypes=("float32", "bfloat16", "float16"), needs=("triton", "liger_kernel"))
def liger(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """``liger_cross_entropy``, which writes the gradient over the logits in the forward pass."""
    from liger_kernel.transformers.functional import liger_cross_entropy

    values: Tensor = liger_cross_entropy(
        logits, target, label_smoothing=label_smoothing, lse_square_scale=z_loss, reduction="none"
    )
    return values

"""Liger Kernel's chunks of tokens (Hsu et al. 2024, arXiv:2410.10989), from its package where it is installed."""

from __future__ import annotations

from torch import Tensor

from kernels.gpu import DEVICE
from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import Unsupported, kernel, required

required("liger_kernel")


@kernel(
    "linear_cross_entropy",
    device=DEVICE,
    dtypes=("float32", "bfloat16", "float16"),
    gradient_in_forward=True,
    needs=("triton", "liger_kernel"),
)
def liger(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, terms: Terms, *, return_lse: bool
) -> tuple[Tensor, None]:
    """``liger_fused_linear_cross_entropy``. It gives the mean alone, which every row gets as its value here.

    Raises:
        Unsupported: log-sum-exps are asked for.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    if return_lse:
        raise Unsupported("'liger' returns no log-sum-exps: use 'triton_cut'")
    mean: Tensor = liger_fused_linear_cross_entropy(
        hidden,
        weight,
        target,
        bias,
        lse_square_scale=terms.z_loss,
        label_smoothing=terms.label_smoothing,
        softcap=terms.softcap,
    )
    return mean.expand(len(target)), None

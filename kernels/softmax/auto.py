"""The fastest implementation for a size and device."""

import torch
from torch import Tensor

from kernels.caches import cache_bytes
from kernels.native import SMALL, threads
from kernels.registry import kernel, written_in_triton
from kernels.softmax.eager import eager
from kernels.softmax.online import online
from kernels.softmax.three_pass_reload import rows_in_cache, three_pass_reload
from kernels.softmax.two_pass import two_pass
from kernels.vectors import AVX512

SHORT = 2048  # such a row stays in the first cache
LONG = 1 << 15  # so many logits hide how the online pass begins, while its maximum still grows


@kernel("softmax", device="any", dtypes=("bfloat16", "float16", "float32"), needs=("numba",))
def auto(x: Tensor, out: Tensor) -> None:
    """By size: three passes that reload in cache, where arithmetic is the bound; two out of cache, where traffic is,
    and where several threads must share a row, with extended exponents where such a row is short and a running maximum
    has to be looked for. Triton's on CUDA; torch's where neither is.
    """
    size, n = x.numel(), x.shape[-1]
    if x.is_cuda or x.dtype is not torch.float32:
        (written_in_triton("softmax", "triton_auto", x) or eager)(x, out)
    elif size < SMALL:  # at once: here a call costs as much as the work
        rows_in_cache(x.data_ptr(), out.data_ptr(), size // n, n)
    elif size // n >= threads(size) and (n <= SHORT or 8 * size <= cache_bytes()):
        three_pass_reload(x, out)
    elif n < LONG and not AVX512:
        two_pass(x, out)
    else:
        online(x, out)

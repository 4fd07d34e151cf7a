"""The fastest implementation for a size."""

from torch import Tensor

from kernels.caches import cache_bytes
from kernels.native import SMALL, threads
from kernels.registry import kernel
from kernels.softmax.online import online
from kernels.softmax.three_pass_reload import three_pass_reload


@kernel("softmax", needs=("numba",))
def auto(x: Tensor, out: Tensor) -> None:
    """Three passes that reload in cache, where arithmetic is the bound; the online pass out of cache, where traffic is.

    A row that several threads must share is done online too.
    """
    size = x.numel()
    if size < SMALL or (8 * size <= cache_bytes() and size // x.shape[-1] >= threads(size)):
        three_pass_reload(x, out)
    else:
        online(x, out)

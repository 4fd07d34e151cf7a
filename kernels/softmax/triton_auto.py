"""The fastest implementation in Triton for a size."""

from torch import Tensor

from kernels.gpu import DEVICE, FLOATS, multiprocessors
from kernels.registry import kernel
from kernels.softmax.triton_online import triton_online
from kernels.softmax.triton_row import LONGEST, triton_row
from kernels.softmax.triton_split import triton_split


@kernel("softmax", device=DEVICE, dtypes=FLOATS, needs=("triton",))
def triton_auto(x: Tensor, out: Tensor) -> None:
    """In registers where a row fits; else online, or split where there are too few rows for the device."""
    if x.shape[-1] <= LONGEST:
        triton_row(x, out)
    elif x.numel() // x.shape[-1] >= multiprocessors(x):
        triton_online(x, out)
    else:
        triton_split(x, out)

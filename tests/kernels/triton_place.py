"""Where the tests of Triton kernels run: a GPU, or Triton's interpreter. Importing this skips a file elsewhere."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from kernels.gpu import DEVICE, INTERPRETED

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a GPU; test_interpreter.py runs this file with TRITON_INTERPRET=1", allow_module_level=True)

on_a_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")


def drawn(*shape, scale=3.0, seed=0, dtype=torch.float32):
    """Normal numbers, the same everywhere."""
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE, dtype)


def labels(n, classes, seed=1):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)

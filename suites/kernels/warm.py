"""Imported by the process that others are forked from: machine code is loaded once, on one thread."""

import contextlib

import torch
import torch._inductor.compile_fx

from kernels.registry import Unsupported, catalogue
from suites.kernels.operations import OPERATIONS, made, whole

SIZES = {"linear_cross_entropy": (16, 16, 4096), "linear_decoupled_softmax": (16, 16, 4096, 2)}  # of others rows

torch.set_num_threads(1)  # a process that ran several cannot be forked
for op, operation in OPERATIONS.items():
    sizes = SIZES.get(op, (2, 4096))
    for impl, kernel in catalogue(op).items():
        if kernel.device != "cuda" and impl != "compiled":
            inputs = made(op, sizes, "normal", "float32", "cpu", 0)
            with contextlib.suppress(Unsupported):
                whole(operation, operation.call(impl, {}), inputs)()

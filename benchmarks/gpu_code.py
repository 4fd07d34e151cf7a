"""What Triton's compiler makes of every kernel, without a GPU: registers, spills, shared memory, matrix instructions.

    python -m benchmarks.gpu_code                      for compute capability 9.0 (H100) and 8.0 (A100)
    python -m benchmarks.gpu_code --capability 90

Implementations are called as on a GPU, except that tensors are small and on the CPU, and that a launch only compiles:
every option, type and alignment is that of a real launch.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kernels.linear_cross_entropy import triton_cut
from kernels.linear_cross_entropy.terms import Terms
from kernels.linear_cross_entropy.triton_plan import Plans, kept_tiles
from kernels.linear_cross_entropy.triton_tiles import Tiles, tiles_of
from kernels.registry import catalogue

SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}  # that a program can have, by compute capability
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
MATRIX = re.compile(r"\b(?:wgmma\.mma_async|mma\.sync)\S*")


@dataclass(frozen=True)
class Code:
    """One kernel as compiled."""

    name: str
    options: str  # its constants, and warps
    registers: int  # of a thread
    local_bytes: int  # of a thread, beside its registers: what is spilled
    shared_bytes: int  # of a program
    matrix: frozenset[str]  # instructions that multiply matrices, as PTX has them


class _Absent:
    """Stands for the driver of a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # which keeps what is compiled for two of them apart

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


@contextmanager
def _compiling(capability: int) -> Iterator[dict[tuple[str, str], Any]]:
    """What is launched inside is compiled instead, and collected by name and options."""
    found: dict[tuple[str, str], Any] = {}
    launch = JITFunction.run

    def run(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        code = launch(self, *arguments, grid=grid, warmup=True, **options)
        kinds = sorted({str(a.dtype)[6:] for a in arguments if isinstance(a, torch.Tensor) and a.is_floating_point()})
        absent = f"{sum(a is None for a in arguments)} absent"
        constants = ", ".join(f"{name}={value}" for name, value in options.items())
        found[self.fn.__name__, f"{'+'.join(kinds)}, {absent}, {constants}"] = code
        return code

    def tiles(like: torch.Tensor) -> Tiles:
        return tiles_of(capability // 10, like.element_size(), like.shape[1])

    before = driver._active if hasattr(driver, "_active") else None
    driver.set_active(_Absent(capability))
    try:
        with (
            mock.patch.object(JITFunction, "run", run),
            mock.patch.object(triton_cut, "pinned", tiles),
            mock.patch.object(triton_cut, "kept_tiles", _as_if_filtered),
        ):
            yield found
    finally:
        driver.set_active(before)


def _softmax(dtype: torch.dtype) -> None:
    for id, found in catalogue("softmax").items():
        if "triton" in found.needs:
            for n in (128, 1 << 15) if id == "triton_row" else (40960,):
                x = torch.zeros(2, n, dtype=dtype)
                found.function(x, torch.empty_like(x))


def _logits(dtype: torch.dtype) -> None:
    x, target = torch.zeros(2, 32000, dtype=dtype).requires_grad_(), torch.zeros(2, dtype=torch.long)
    for id in ("triton_recompute", "triton_in_place"):
        catalogue("cross_entropy")[id].function(x, target, label_smoothing=0.1).sum().backward()


def _linear(dtype: torch.dtype) -> None:
    for id, depth, terms, biased in (
        ("triton_cut", 128, Terms(None, 0.0, 0.0), False),
        ("triton_cut", 144, Terms(30.0, 0.0, 0.1), True),
        ("triton_exact", 128, Terms(None, 0.0, 0.0), False),
        ("triton_exact", 120, Terms(None, 0.1, 0.0), False),  # rows of no multiple of 16 elements
    ):
        hidden, weight = (torch.zeros(n, depth, dtype=dtype).requires_grad_() for n in (256, 1000))
        bias = torch.zeros(1000, dtype=dtype).requires_grad_() if biased else None
        target = torch.zeros(256, dtype=torch.long)
        values, _ = catalogue("linear_cross_entropy")[id].function(hidden, weight, target, bias, terms)
        values.sum().backward()


def _as_if_filtered(kept: torch.Tensor, rows: int) -> Plans:
    """The plans of what is left of much: here nothing was computed from which to tell."""
    return kept_tiles((torch.arange(len(kept)) == 0)[:, None].expand_as(kept), rows)


CALLS: dict[str, Callable[[torch.dtype], None]] = {"softmax": _softmax, "logits": _logits, "linear": _linear}


def compiled(capability: int, dtype: torch.dtype, only: str | None = None) -> list[Code]:
    """All kernels of the implementations in Triton."""
    with _compiling(capability) as found:
        for name in [only] if only else CALLS:
            CALLS[name](dtype)
    return [_described(name, options, code) for (name, options), code in sorted(found.items())]


def _described(name: str, options: str, code: Any) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = (int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK", "LOCAL"))  # type: ignore[index]
    matrix = frozenset(MATRIX.findall(code.asm["ptx"]))
    return Code(name, options, registers, stack + local, code.metadata.shared, matrix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, choices=sorted(SHARED_BYTES))
    parser.add_argument("--only", choices=sorted(CALLS))
    options = parser.parse_args()
    for capability in [options.capability] if options.capability else SHARED_BYTES:
        for dtype in (torch.float32, torch.bfloat16):
            print(f"sm_{capability}, {dtype}")
            for code in compiled(capability, dtype, options.only):
                matrix = ", ".join(sorted(code.matrix)) or "-"
                memory = f"{code.local_bytes:4} B spilled {code.shared_bytes / 1024:6.1f} KiB shared"
                print(f"  {code.name:14} {code.registers:4} registers {memory}  {matrix}  ({code.options})")


if __name__ == "__main__":
    main()

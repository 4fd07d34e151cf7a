"""Linear cross-entropy on this machine: forward and backward, time, memory and error of each implementation.

    python -m benchmarks.linear_cross_entropy                            the two shapes, one thread
    python -m benchmarks.linear_cross_entropy --shapes 256x64x4096 --only eager,cut

A shape is N x D x V. The hidden states are drawn as a trained model's: near the embedding of the target, so that a few
tens of classes have nearly all of the probability. Times are medians of rounds in turn in one process, of
processor time. ``beyond`` is the peak of memory over live inputs, less the gradients themselves: it is taken by a
process of its own for each implementation, from the kernel's high-water mark. ``error`` is the largest difference of a
gradient from float64's, over its largest magnitude.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import kernels
from benchmarks.softmax import measure
from benchmarks.tracked.inputs import peaked
from benchmarks.tracked.memory import resident
from kernels.registry import catalogue
from reference.ops.linear_cross_entropy import linear_cross_entropy

SHAPES = "2048x512x32768,1024x256x128256"


def step(inputs: tuple[Tensor, Tensor, Tensor], impl: str) -> tuple[Tensor, ...]:
    """The gradients of hidden and weight."""
    loss = kernels.linear_cross_entropy(*inputs, impl=impl)
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, inputs[:2])


def beyond(shape: tuple[int, ...], impl: str) -> int:
    """Bytes at the peak beyond the live inputs and the gradients, in this process, which must be fresh."""
    inputs = peaked(*shape)
    small = peaked(8, 8, 16)
    step(small, impl)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = resident("VmRSS")
    gradients = step(inputs, impl)
    return resident("VmHWM") - before - sum(4 * g.numel() for g in gradients)


def off(inputs: tuple[Tensor, Tensor, Tensor], exact: tuple[Tensor, ...], impl: str) -> list[float]:
    """The errors of both gradients."""
    found = zip(step(inputs, impl), exact, strict=True)
    return [((g - e).abs().max() / e.abs().max()).item() for g, e in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--only", help="comma-separated implementations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="print the bytes beyond, of one shape and implementation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ids = options.only.split(",") if options.only else list(catalogue("linear_cross_entropy"))
    for text in options.shapes.split(","):
        n, d, v = map(int, text.split("x"))
        if options.memory:
            print(beyond((n, d, v), ids[0]))
            return
        inputs = peaked(n, d, v)
        loss = linear_cross_entropy(inputs[0].double(), inputs[1].double(), inputs[2])
        exact = tuple(g.double() for g in torch.autograd.grad(loss, inputs[:2]))
        with torch.no_grad():
            p = torch.softmax(inputs[0] @ inputs[1].T, -1)
            print(
                f"{text}: {(p > 2**-12).sum(1).float().mean():.0f} classes a row above 2^-12, "
                f"mean probability of the target {p.gather(1, inputs[2][:, None]).mean():.2f}"
            )
            del p
        work: dict[str, Callable[[], object]] = {id: functools.partial(step, inputs, id) for id in ids}
        taken = measure(work, options.rounds, 1, time.thread_time_ns)
        for id in ids:
            command = [
                sys.executable,
                "-m",
                "benchmarks.linear_cross_entropy",
                "--memory",
                "--shapes",
                text,
                "--only",
                id,
            ]
            extra = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            errors = " ".join(f"{e:.1e}" for e in off(inputs, exact, id))
            print(f"  {id:14} {taken[id] / 1e9:7.2f} s {extra / 2**20:8.0f} MiB beyond   errors {errors}", flush=True)


if __name__ == "__main__":
    main()

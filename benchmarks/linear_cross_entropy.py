"""Linear cross-entropy on this machine: forward and backward, time, memory and error of each implementation.

    python -m benchmarks.linear_cross_entropy                            the two shapes, one thread
    python -m benchmarks.linear_cross_entropy --shapes 256x64x4096 --only eager,cut

A shape is N x D x V. The hidden states are drawn as a trained model's: near the embedding of the target, so that a few
tens of classes have nearly all of the probability. Times are medians of rounds in turn, and ``share`` that of the
roofline measured before (above 100 % where gradients are left out). ``beyond`` is the peak of memory over live inputs,
less the gradients themselves. ``error`` is the largest difference of a gradient from float64's, over its largest
magnitude.
"""

from __future__ import annotations

import argparse
import functools

import torch
from torch import Tensor

import kernels
from benchmarks.tracked.inputs import peaked
from kernels import traffic
from kernels.products import product
from kernels.registry import on
from lossboard.measure import interleaved, peak
from lossboard.measure.roofline import Means, Roofline, measured
from lossboard.measure.timing import Call
from reference.ops import costs
from reference.ops.linear_cross_entropy import linear_cross_entropy

SHAPES = "2048x512x32768,1024x256x128256"
Shape = tuple[int, int, int]


def step(inputs: tuple[Tensor, Tensor, Tensor], impl: str) -> tuple[Tensor, ...]:
    """The gradients of hidden and weight."""
    loss = kernels.linear_cross_entropy(*inputs, impl=impl)
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, inputs[:2])


def prepared(shape: Shape, impl: str) -> Call:
    """The step on inputs of its own."""
    return functools.partial(step, peaked(*shape), impl)


def beyond(shape: Shape, impl: str) -> float:
    """Bytes at the peak, beyond the inputs and the gradients."""
    return peak(prepared, (shape, impl), warm=(shape, impl), preload=["kernels"]).beyond_bytes


def off(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> list[float]:
    """The errors of both gradients."""
    return [((g - e).abs().max() / e.abs().max()).item() for g, e in zip(found, exact, strict=True)]


def show(shape: Shape, ids: list[str], machine: Roofline, budget_s: float) -> None:
    """Print a line for each implementation."""
    inputs = peaked(*shape)
    loss = linear_cross_entropy(inputs[0].double(), inputs[1].double(), inputs[2])
    assert isinstance(loss, Tensor)
    exact = tuple(g.double() for g in torch.autograd.grad(loss, inputs[:2]))
    found = interleaved({id: functools.partial(step, inputs, id) for id in ids}, budget_s=budget_s)
    cost = costs.linear_cross_entropy(shape, 4, gradient=True)
    for id, times in found.items():
        share = machine.share(cost.bytes_read, cost.bytes_written, cost.flops, "float32", times.median_s)
        errors = " ".join(f"{e:.1e}" for e in off(step(inputs, id), exact))
        print(
            f"  {id:14} {times.median_s:7.2f} s ({times.low_s:.2f}-{times.high_s:.2f}) {share:4.0%} of the roofline "
            f"{beyond(shape, id) / 2**20:6.0f} MiB beyond   errors {errors}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--only", help="comma-separated implementations")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for the rounds of a shape")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ids = options.only.split(",") if options.only else on("linear_cross_entropy", "cpu")
    machine = measured(Means(traffic.read, traffic.copy, traffic.copy_past_caches, product), dtypes=("float32",))
    for text in options.shapes.split(","):
        n, d, v = map(int, text.split("x"))
        print(f"{text}, of at most {machine.flops['float32'] / 1e9:.0f} GFLOP/s")
        show((n, d, v), ids, machine, options.budget)


if __name__ == "__main__":
    main()

"""Linear cross-entropy on a GPU: each implementation, and the parts of ``triton_cut`` with tiles of other sizes.

    python -m benchmarks.gpu_linear_cross_entropy                        the size of table 1 of cut cross-entropy
    python -m benchmarks.gpu_linear_cross_entropy --shape 4096x1024x128256 --only triton_cut,eager
    python -m benchmarks.gpu_linear_cross_entropy --tiles                to choose tiles

What is fastest is to be pinned in ``kernels/linear_cross_entropy/triton_tiles.py``. A shape is N x D x V, in bfloat16,
drawn as in ``benchmarks.linear_cross_entropy``. Times are medians, in ms, of forward and backward; ``beyond`` is the
peak of memory over live inputs, less the gradients themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.linear_cross_entropy import peaked, step
from kernels.gpu import DEVICE
from kernels.linear_cross_entropy.blocked import EPS
from kernels.linear_cross_entropy.terms import Terms
from kernels.linear_cross_entropy.triton_backward import Factors
from kernels.linear_cross_entropy.triton_cut import by_mean_logit, plans
from kernels.linear_cross_entropy.triton_forward import Layer, log_sum_exp
from kernels.linear_cross_entropy.triton_gradients import Gradients
from kernels.linear_cross_entropy.triton_tiles import Tiles, pinned
from kernels.registry import on

SHAPE = "8192x2304x256000"
ROUNDS = 7


def synchronize() -> None:
    """Wait for the device, if there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def taken_ms(call: Callable[[], object], rounds: int) -> float:
    """The median time of a call, the first one apart, which compiles."""
    call()
    times = []
    for _ in range(rounds):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def beyond(inputs: tuple[Tensor, Tensor, Tensor], impl: str) -> int:
    """Bytes at the peak beyond the live inputs and the gradients."""
    if DEVICE != "cuda":
        return 0
    synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients = step(inputs, impl)
    synchronize()
    size = sum(g.numel() * g.element_size() for g in gradients)
    return torch.cuda.max_memory_allocated() - before - size


def candidates(first: Tiles) -> Iterator[tuple[str, Tiles]]:
    """The pinned tiles, and each with one thing changed."""
    yield "pinned", first
    for part in ("logits", "gradient", "d_weight", "d_hidden"):
        tile = getattr(first, part)
        for name, values in {"warps": (4, 8), "stages": (2, 3, 4, 5, 6), "depth": (32, 64, 128, 256)}.items():
            for value in set(values) - {getattr(tile, name)}:
                changed = dataclasses.replace(first, **{part: dataclasses.replace(tile, **{name: value})})
                yield f"{part}.{name} = {value}", changed
    for rows in (32, 128):  # of all parts of the backward pass
        parts = {p: dataclasses.replace(getattr(first, p), rows=rows) for p in ("gradient", "d_weight", "d_hidden")}
        yield f"rows of the backward pass = {rows}", dataclasses.replace(first, **parts)


def parts_ms(inputs: tuple[Tensor, Tensor, Tensor], tiles: Tiles, rounds: int) -> dict[str, float]:
    """Times of what ``triton_cut`` consists of."""
    hidden, weight, target = inputs[0].detach(), inputs[1].detach(), inputs[2]
    layer = Layer(hidden, weight, None, by_mean_logit(hidden, weight, None), None)
    lse, _, tops = log_sum_exp(layer, tiles.logits, sums=False, tops=True)
    kept = plans(layer, tiles, target, lse, tops, EPS)
    one = torch.ones_like(lse, dtype=torch.float32)
    factors = Factors.of(Terms(None, 0.0, 0.0), target, lse, one, one, None)
    both = Gradients.empty(layer, (True, True, False))
    calls: dict[str, Callable[[], object]] = {
        "order": lambda: by_mean_logit(hidden, weight, None),
        "logits": lambda: log_sum_exp(layer, tiles.logits, sums=False, tops=True),
        "plans": lambda: plans(layer, tiles, target, lse, tops, EPS),
        "d_hidden": lambda: dataclasses.replace(both, weight=None).fill_(layer, factors, kept, tiles),
        "d_weight": lambda: dataclasses.replace(both, hidden=None).fill_(layer, factors, kept, tiles),
    }
    share = len(kept.by_class.blocks) / (-(-len(hidden) // tiles.rows) * -(-len(weight) // tiles.classes))
    return {name: taken_ms(call, rounds) for name, call in calls.items()} | {"% of tiles kept": 100 * share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default=SHAPE)
    parser.add_argument("--only", help="comma-separated implementations")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tiles", action="store_true", help="time tiles of other sizes than the pinned ones")
    options = parser.parse_args()
    hidden, weight, target = peaked(*map(int, options.shape.split("x")))
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    inputs = (
        hidden.detach().to(DEVICE, dtype).requires_grad_(),
        weight.detach().to(DEVICE, dtype).requires_grad_(),
        target.to(DEVICE),
    )
    del hidden, weight
    for name, tiles in candidates(pinned(inputs[0])) if options.tiles else ():
        try:
            found = parts_ms(inputs, tiles, options.rounds)
        except Exception as error:  # too much shared memory, or what the compiler refuses: the next one may do
            print(f"{name:36} {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            print(f"{name:36} " + "  ".join(f"{part} {ms:.2f}" for part, ms in found.items()), flush=True)
    for impl in (
        options.only.split(",") if options.only else [] if options.tiles else on("linear_cross_entropy", DEVICE)
    ):
        try:
            ms, more = taken_ms(functools.partial(step, inputs, impl), options.rounds), beyond(inputs, impl)
        except torch.OutOfMemoryError:
            print(f"{impl:16} needs more memory than there is")
        else:
            print(f"{impl:16} {ms:9.2f} ms {more / 2**20:9.1f} MiB beyond", flush=True)


if __name__ == "__main__":
    main()

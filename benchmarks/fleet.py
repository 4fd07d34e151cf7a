"""How many more run-epochs a fleet does in a second of processor time than the plain loop, on the letter MLP.

Both train 16-16-16-26 on 12,800 rows in batches of 64 and evaluate 3,200 validation and 4,000 test rows after the
epoch, on one thread, interleaved in one process. The rows are random numbers of the shape of UCI Letter: arithmetic
does not care, and nothing need be fetched. The last line is ``ratio`` and the ratio for cross-entropy.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch

from lossboard.fleet import fleet
from lossboard.problem import Problem, Run, stream
from lossboard.protocol import Recipe
from lossboard.train import train
from reference.methods import Method, catalogue
from reference.models.mlp import MLP

R = 35
ROUNDS = 5
LOSSES = ("ce", "gce", "nce_rce", "aldr")
RECIPE = Recipe(epochs=1, batch=64, lr=0.1)
FEATURES, HIDDEN, CLASSES = 16, [16, 16], 26


def problem() -> Problem:
    """Rows, split and labels of UCI Letter's sizes."""
    draw = stream("benchmark")
    features = torch.randn(20_000, FEATURES, generator=draw)
    labels = torch.randint(0, CLASSES, (20_000,), generator=draw)
    rows = torch.randperm(16_000, generator=draw)
    return Problem(features, labels, rows[3_200:], rows[:3_200], torch.arange(16_000, 20_000), CLASSES)


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def rates(method: Method, runs: list[Run]) -> tuple[list[float], list[float]]:
    """Run-epochs a processor second of the plain loop and of the fleet, round by round, interleaved."""

    def network(generator: torch.Generator) -> MLP:
        return MLP(FEATURES, HIDDEN, CLASSES, generator)

    plain, stacked = [], []
    for i in range(ROUNDS + 1):
        one = processor_seconds(lambda: train(method, runs[0], network, RECIPE))
        many = processor_seconds(lambda: fleet(method, runs, HIDDEN, RECIPE))
        if i:  # the first round warms up
            plain.append(1 / one)
            stacked.append(len(runs) / many)
    return plain, stacked


def main() -> None:
    """Print a table, and last the ratio for cross-entropy."""
    data = problem()
    print(f"run-epochs a processor second, R = {R}, median of {ROUNDS} rounds (lowest and highest ratio of a round)")
    print(f"{'loss':10} {'plain':>8} {'fleet':>8} {'ratio':>7}")
    ratios = {}
    for name in LOSSES:
        method = catalogue("loss")[name]
        runs = [Run(data, {"lr": 0.1, **method.defaults}, ("benchmark", seed)) for seed in range(R)]
        plain, stacked = rates(method, runs)
        each = [b / a for a, b in zip(plain, stacked, strict=True)]
        ratios[name] = statistics.median(each)
        middle = f"{statistics.median(plain):8.1f} {statistics.median(stacked):8.1f} {ratios[name]:7.2f}"
        print(f"{name:10} {middle}  ({min(each):.2f} to {max(each):.2f})", flush=True)
    print(f"ratio {ratios['ce']:.2f}")


if __name__ == "__main__":
    main()

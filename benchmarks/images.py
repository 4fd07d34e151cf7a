"""How much faster images train than in a loop as it is first written: the same network, float32, one thread.

The plain loop keeps tensors as they come (channels first), applies ReLU before each pool, steps with
``torch.optim.SGD`` and evaluates 1,000 images at once. The fast one keeps channels last, lets the allocator hold on to
memory between steps, runs the network as it is written (ReLU after the pool; without gradients, a pool of two maxima),
steps with one call for each operation on all parameters, and evaluates 250 images at once. Memory settings are a
process's own, so each loop has a process, and the two take turns. A round is 20 batches of 128 and the evaluation of
1,536 images, as in the suite 6,000 for 10,000; the first warms up, and its loss shows that both loops do the same. The
last line is ``ratio`` and how many times less processor time the fast loop takes.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.models.cnn import CNN

STEPS, BATCH, HELD = 20, 128, 1536
ROUNDS = 9
LR, MOMENTUM = 0.02, 0.9


class Plain(CNN):
    """The same network with ReLU before each pool."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


def problem() -> tuple[Tensor, Tensor]:
    """Random images (N, 1, 28, 28) and labels (N,): arithmetic does not care."""
    draw = torch.Generator().manual_seed(0)
    rows = STEPS * BATCH + HELD
    return torch.randn(rows, 1, 28, 28, generator=draw), torch.randint(10, (rows,), generator=draw)


def plain() -> tuple[nn.Module, Callable[[Tensor, Tensor], None], int]:
    """Network, step, and how many rows to evaluate at once."""
    model = Plain(1, 28, 10, torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def step(x: Tensor, target: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimizer.step()

    return model, step, 1000


def fast() -> tuple[nn.Module, Callable[[Tensor, Tensor], None], int]:
    """Network, step, and how many rows to evaluate at once."""
    torch.empty(31 << 20, dtype=torch.uint8)  # freed at once: the allocator then keeps blocks up to this size
    model = CNN(1, 28, 10, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = list(model.parameters())
    velocity = [torch.zeros_like(p) for p in weights]

    def step(x: Tensor, target: Tensor) -> None:
        gradients = torch.autograd.grad(F.cross_entropy(model(x), target), weights)
        with torch.no_grad():
            torch._foreach_mul_(velocity, MOMENTUM)
            torch._foreach_add_(velocity, gradients)
            torch._foreach_add_(weights, velocity, alpha=-LR)

    return model, step, 250


def serve(name: str, pipe: Connection) -> None:
    """A round whenever asked: its processor seconds for training and for evaluation, and the loss after it."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model, step, at_once = {"plain": plain, "fast": fast}[name]()
    features, labels = problem()
    training, held = torch.arange(STEPS * BATCH).split(BATCH), torch.arange(STEPS * BATCH, len(labels))
    while pipe.recv():
        start = time.process_time()
        for rows in training:
            step(features[rows], labels[rows])
        middle = time.process_time()
        with torch.no_grad():
            losses = [
                F.cross_entropy(model(features[rows]), labels[rows], reduction="sum") for rows in held.split(at_once)
            ]
        pipe.send((middle - start, time.process_time() - middle, torch.stack(losses).sum().item() / HELD))


def main() -> None:
    """Print microseconds an image, and last the ratio of a round."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in ("plain", "fast"):
        pipes[name], other = context.Pipe()
        context.Process(target=serve, args=(name, other), daemon=True).start()
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pipes}
    for _ in range(ROUNDS + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            rounds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    print(f"microseconds of processor time an image, median of {ROUNDS} rounds in turns")
    print(f"{'loop':6} {'train':>7} {'eval':>7} {'loss after the first round':>28}")
    for name, ((_, _, loss), *found) in rounds.items():
        train = statistics.median(seconds for seconds, _, _ in found) / (STEPS * BATCH) * 1e6
        held = statistics.median(seconds for _, seconds, _ in found) / HELD * 1e6
        print(f"{name:6} {train:7.1f} {held:7.1f} {loss:28.6f}")
    both = zip(rounds["plain"][1:], rounds["fast"][1:], strict=True)
    each = [(a + b) / (c + d) for (a, b, _), (c, d, _) in both]
    print(f"lowest and highest ratio of a round: {min(each):.2f} to {max(each):.2f}")
    print(f"ratio {statistics.median(each):.2f}")


if __name__ == "__main__":
    main()

"""How much faster images train than in a loop as it is first written: the same network, float32, one thread.

The plain loop keeps tensors as they come (channels first), applies ReLU before each pool, steps with
``torch.optim.SGD`` and evaluates 1,000 images at once. The other is :func:`lossboard.train.train`: channels last, an
allocator that holds on to memory between steps, convolutions, pools and ReLU in kernels of our own, one call for each
operation on all parameters, 128 images evaluated at once. Memory settings are a process's own, so each loop
has a process, and the two take turns. A round is three epochs of 20 batches of 128 and the evaluation of 1,536 images
after each, as in the suite 6,000 for 10,000. Both draw the same weights and batches: the loss on test images at the end
shows that they do the same. The last line is ``ratio`` and how many times less processor time train takes.
"""

from __future__ import annotations

import functools
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

from kernels.cnn import FastCNN
from lossboard.problem import Problem, Run, stream
from lossboard.protocol import Recipe
from lossboard.train import train
from reference.methods import catalogue
from reference.models.cnn import CNN

RECIPE = Recipe(epochs=3, batch=128, lr=0.02, schedule="constant")
ROWS = (20 * RECIPE.batch, 256, 1280)  # training, validation, test
ROUNDS = 9


class Plain(CNN):
    """The same network with ReLU before each pool."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


def run() -> Run:
    """Random images and labels: arithmetic does not care."""
    draw = stream("benchmark")
    features = torch.randn(sum(ROWS), 1, 28, 28, generator=draw)
    labels = torch.randint(0, 10, (sum(ROWS),), generator=draw)
    train, val, test = torch.arange(sum(ROWS)).split(ROWS)
    problem = Problem(features, labels, train, val, test, 10, labels, torch.eye(10))
    return Run(problem, {"lr": RECIPE.lr}, ("benchmark",))


def plain(run: Run) -> float:
    """Train and evaluate; returns the loss on test images."""
    torch.set_num_threads(1)
    data = run.problem
    model, order = Plain(1, 28, 10, run.stream("weights")), run.stream("batches")
    optimizer = torch.optim.SGD(model.parameters(), lr=RECIPE.lr, momentum=RECIPE.momentum)
    for _ in range(RECIPE.epochs):
        model.train()
        for at in data.train[torch.randperm(len(data.train), generator=order)].split(RECIPE.batch):
            optimizer.zero_grad()
            F.cross_entropy(model(data.features[at]), data.labels[at]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for rows in (data.val, data.test):
                logits = torch.cat([model(data.features[part]) for part in rows.split(1000)])
                (logits.argmax(1) == data.labels[rows]).double().mean().item()
    return F.cross_entropy(logits, data.labels[data.test]).item()


def ours(run: Run) -> float:
    """The same through the suite's own loop, which measures more at the end."""
    outcome = train(catalogue("loss")["ce"], run, functools.partial(FastCNN, 1, 28), RECIPE)
    return outcome.metrics()["nll"]


LOOPS: dict[str, Callable[[Run], float]] = {"plain": plain, "train": ours}


def serve(name: str, pipe: Connection) -> None:
    """A round whenever asked: its processor seconds and the loss after it."""
    one = run()
    while pipe.recv():
        start = time.process_time()
        loss = LOOPS[name](one)
        pipe.send((time.process_time() - start, loss))


def main() -> None:
    """Print milliseconds a step with its share of evaluation, and last the ratio of a round."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in LOOPS:
        pipes[name], other = context.Pipe()
        context.Process(target=serve, args=(name, other), daemon=True).start()
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in pipes}
    for _ in range(ROUNDS + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            rounds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    steps = RECIPE.epochs * (ROWS[0] // RECIPE.batch)
    print(f"milliseconds of processor time a step, evaluation included; median of {ROUNDS} rounds in turns")
    print(f"{'loop':6} {'step':>7} {'test loss':>10}")
    for name, found in rounds.items():
        seconds = statistics.median(seconds for seconds, _ in found[1:])  # the first round warms up
        print(f"{name:6} {seconds / steps * 1000:7.1f} {found[0][1]:10.6f}")
    each = [a / b for (a, _), (b, _) in zip(rounds["plain"][1:], rounds["train"][1:], strict=True)]
    print(f"lowest and highest ratio of a round: {min(each):.2f} to {max(each):.2f}")
    print(f"ratio {statistics.median(each):.2f}")


if __name__ == "__main__":
    main()

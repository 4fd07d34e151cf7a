"""How much faster adversarial training is than in a loop as it is first written: the MNIST network, PGD-10, one thread.

The usual loop keeps tensors as they come (channels first), applies ReLU before each pool, takes the gradient of the
attack with ``backward`` through network and parameters alike, and steps with ``torch.optim.SGD``; ``usual-grad`` takes
the gradient of the attack with ``torch.autograd.grad`` of the input. ``at`` is the suite's own,
:class:`lossboard.defend.Loop` with :class:`kernels.cnn.FastCNN`: gradients of the input only, convolutions, pools and
ReLU in kernels that keep and compute no more than that needs, memory that is kept between steps. It descends the same
loss at inputs from the same search. The others are faster and not the same: ``at-3`` takes 3 steps of eps / 2, ``fat``
stops a sample's search once it is misclassified, ``fast`` takes one step of 1.25 eps from a random start (Wong et al.,
ICLR 2020). Memory settings are a process's own, so each loop has a process, and they take turns. A round is 8 steps on
batches of 128 from MNIST, after 40 in which eps grows to 0.3. The last line is ``ratio`` and how many times less
processor time ``at`` takes than ``usual``.

``--effect SEEDS`` trains with each of them on 10,000 images of MNIST (eps 0.3, 10 epochs) and prints accuracy on 500
test images, without attack and under Auto-PGD and PGD on the margin, for so many seeds: what the speed costs.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.images import Plain
from kernels.cnn import FastCNN
from lossboard.data import load
from lossboard.defend import Loop, defend
from lossboard.problem import Problem, Run, divided, scaled, stream
from lossboard.protocol import Recipe, Split
from lossboard.threat import Threat
from lossboard.train import one_thread
from reference.attacks.apgd import apgd_ce
from reference.attacks.objectives import right
from reference.attacks.pgd import pgd_margin
from reference.methods import catalogue

RECIPE = Recipe(epochs=10, batch=128, lr=0.1)
SPLIT = Split("official", val=1 / 6, train=10_000, held_out=1_000, scale="unit")
EPS, RAMP = 0.3, 0.5  # eps grows in a line over this share of the training; without it no network begins to learn
WARM, STEPS, ROUNDS = 40, 8, 7
EVALUATED = 500  # test images
OURS = {  # loop -> defence and how it searches
    "at": ("at", Threat(EPS, ramp=RAMP)),
    "at-3": ("at", Threat(EPS, ramp=RAMP, steps=3, step=0.5)),
    "fat": ("fat", Threat(EPS, ramp=RAMP)),
    "fast": ("at", Threat(EPS, ramp=RAMP, steps=1, step=1.25)),
}


@functools.cache
def problem(seed: int) -> Problem:
    """MNIST as the suite has it: 10,000 training, 1,000 validation and 1,000 test images in [0, 1]."""
    features, labels, own = scaled(load("mnist"), SPLIT)
    train, val, test = divided(SPLIT, len(labels), own, stream("mnist", seed, "split"))
    return Problem(features, labels, train, val, test, 10, labels, torch.eye(10))


class Usual:
    """The loop as it is first written."""

    def __init__(self, run: Run, inputs_only: bool) -> None:
        torch.set_num_threads(1)
        self.data, self.inputs_only = run.problem, inputs_only
        self.model, self.attack = Plain(1, 28, 10, run.stream("weights")), run.stream("attack")
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RECIPE.lr, momentum=RECIPE.momentum)

    def step(self, batches: Sequence[Tensor], progress: float) -> None:
        (rows,) = batches
        x, y = self.data.features[rows], self.data.labels[rows]
        eps = EPS * min(1.0, progress / RAMP)
        x_adv = (x + torch.empty_like(x).uniform_(-eps, eps, generator=self.attack)).clamp(0, 1)
        self.model.eval()
        for _ in range(10):
            x_adv = x_adv.detach().requires_grad_()
            loss = F.cross_entropy(self.model(x_adv), y)
            if self.inputs_only:
                (gradient,) = torch.autograd.grad(loss, x_adv)
            else:
                loss.backward()
                assert x_adv.grad is not None
                gradient = x_adv.grad
            x_adv = x_adv.detach() + eps / 4 * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - eps), x + eps).clamp(0, 1)
        self.model.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(x_adv.detach()), y).backward()
        self.optimizer.step()


def loop(name: str) -> Usual | Loop:
    """The loop of this name at the first step of a run."""
    run = Run(problem(0), {"lr": RECIPE.lr}, ("benchmark", 0))
    if name.startswith("usual"):
        return Usual(run, inputs_only=name == "usual-grad")
    id, threat = OURS[name]
    one_thread()
    method = catalogue("defence")[id]
    run = Run(run.problem, {"lr": RECIPE.lr, **method.defaults}, run.purpose)
    return Loop(method, [run], network, RECIPE, threat, [{}], torch.device("cpu"))


def network(rows: Problem, generator: torch.Generator) -> nn.Module:
    return FastCNN(1, 28, rows.classes, generator)


def serve(name: str, pipe: Connection) -> None:
    """A round whenever asked: its processor seconds, and the loss on a fixed batch after it."""
    one = loop(name)
    train = _data(one).train
    first = train.split(RECIPE.batch)[:WARM]
    for i, rows in enumerate(first):  # how long fat searches depends on the network
        one.step([rows], RAMP * i / len(first))
    while pipe.recv():
        start = time.process_time()
        for rows in train.split(RECIPE.batch)[:STEPS]:
            one.step([rows], 0.6)
        seconds = time.process_time() - start
        pipe.send((seconds, _loss(one)))


def _data(one: Usual | Loop) -> Problem:
    return one.problems[0] if isinstance(one, Loop) else one.data


@torch.no_grad()
def _loss(one: Usual | Loop) -> float:
    data, model = _data(one), one.models[0] if isinstance(one, Loop) else one.model
    rows = data.val[:256]
    return F.cross_entropy(model(data.features[rows]), data.labels[rows]).item()


def speed() -> None:
    """Print milliseconds of processor time a step, and how many times less than the usual loop's."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in ("usual", "usual-grad", *OURS):
        pipes[name], other = context.Pipe()
        context.Process(target=serve, args=(name, other), daemon=True).start()
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in pipes}
    for _ in range(ROUNDS + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            rounds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    print(f"milliseconds of processor time a training step; median of {ROUNDS} rounds in turns")
    print(f"{'loop':14} {'step':>7} {'ratio':>6} {'lowest':>7} {'highest':>8} {'clean loss':>11}")
    for name, found in rounds.items():
        each = [a / b for (a, _), (b, _) in zip(rounds["usual"][1:], found[1:], strict=True)]  # the first warms up
        step = statistics.median(seconds for seconds, _ in found[1:]) / STEPS * 1000
        ratios = f"{statistics.median(each):6.2f} {min(each):7.2f} {max(each):8.2f}"
        print(f"{name:14} {step:7.1f} {ratios} {found[0][1]:11.4f}")
        if name == "at":
            own = statistics.median(each)
    print(f"ratio {own:.2f}")


def effect(seeds: int) -> None:
    """Print accuracy on test images after training with each of the loops, without and under attack."""
    print(f"percent of {EVALUATED} test images; seconds of processor time of 10 epochs")
    print(f"{'loop':14} {'seed':>4} {'clean':>6} {'attack':>6} {'seconds':>8}")
    for seed in range(seeds):
        for name, (id, threat) in OURS.items():
            method = catalogue("defence")[id]
            run = Run(problem(seed), {"lr": RECIPE.lr, **method.defaults}, ("benchmark", seed))
            start = time.process_time()
            (done,) = defend(method, [run], network, RECIPE, threat)
            seconds = time.process_time() - start
            found = [attacked(done.model, run.problem, rows, seed) for rows in run.problem.test[:EVALUATED].split(100)]
            share = " ".join(f"{100 * torch.cat(part).double().mean():6.1f}" for part in zip(*found, strict=True))
            print(f"{name:14} {seed:4} {share} {seconds:8.1f}", flush=True)


def attacked(model: nn.Module, data: Problem, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Whether each is classified correctly as it is, and under both attacks."""
    x, y, draw = data.features[rows], data.labels[rows], stream("benchmark", seed, "evaluation")
    with torch.no_grad():
        clean = right(model(x), y)
    robust = clean.clone()
    for attack in (apgd_ce, pgd_margin):
        left = robust.nonzero()[:, 0]
        x_adv = attack(model, x[left], y[left], eps=EPS, norm="linf", generator=draw)
        with torch.no_grad():
            robust[left] = right(model(x_adv), y[left])
    return clean, robust


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effect", type=int, metavar="SEEDS", help="train, and measure what the faster ones cost")
    options = parser.parse_args()
    what: Callable[[], None] = functools.partial(effect, options.effect) if options.effect else speed
    what()


if __name__ == "__main__":
    main()

"""How many run-epochs a second of processor time: fleets, a tight loop, and a script of the usual form.

All train the tanh MLP of a tabular task on rows of its sizes in batches of 64 and evaluate validation and test rows
after every epoch, on one thread, interleaved in one process. The rows are random numbers: arithmetic does not care,
and nothing need be fetched. The *script* is what papers publish: a Dataset of arrays whose items are a sample, its
label and its number; DataLoaders in this process with the default collation; ``.to(device)``; a module, the loss as a
module, ``torch.optim.SGD`` and ``backward()``; after every batch, in training and evaluation, running means of the loss
and of top-1 and top-5 accuracy, each by ``.item()``. It has none of what some scripts have beside: transforms, worker
processes, a pass over the training rows to evaluate them, a progress bar. The *tight loop* indexes tensors and measures
accuracy in evaluation alone. Both use torch's own cross-entropy.

    python -m benchmarks.fleet                      letter, cross-entropy
    python -m benchmarks.fleet --losses all         letter, every loss of logits and labels alone
    python -m benchmarks.fleet --shape digits
    python -m benchmarks.fleet --shape yeast        sets of labels, binary cross-entropy, mean average precision

The last line is ``ratio`` with the lowest ratio to the tight loop, that of cross-entropy, and that of cross-entropy to
the script. Fleets train for as many epochs as in the suite, and what they measure once at the end is in their time. Of
label sets the tight loop and the fleet measure mean average precision every ten epochs, as the suite does, and there is
no script. (The suite of label sets runs its fleets eagerly; see there.)
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lossboard import compiler
from lossboard.fleet import fleet
from lossboard.metrics import mean_average_precision
from lossboard.problem import MultiLabel, Problem, Run, stream
from lossboard.protocol import Recipe
from lossboard.train import one_thread
from reference.methods import Method, catalogue, named, supply


@dataclass(frozen=True)
class Shape:
    """Sizes of a tabular task as the suite trains it."""

    features: int
    width: int
    classes: int
    rows: tuple[int, int, int]  # training, validation, test
    layers: int = 2
    batch: int = 64
    sets: bool = False  # whether rows have sets of labels
    epochs: int = 100
    every: int = 1  # epochs from one evaluation to the next


SHAPES = {
    "letter": Shape(16, 16, 26, (12_800, 3_200, 4_000)),
    "digits": Shape(64, 10, 10, (1_079, 359, 359), epochs=40),
    "pendigits": Shape(16, 10, 10, (5_995, 1_499, 3_498)),
    "satimage": Shape(36, 6, 6, (3_548, 887, 2_000)),
    "usps": Shape(256, 10, 10, (5_833, 1_458, 2_007)),
    "vowel": Shape(10, 10, 11, (422, 106, 462)),
    "dna": Shape(180, 3, 3, (1_600, 400, 1_186)),
    "shuttle": Shape(9, 7, 7, (34_800, 8_700, 14_500)),
    "yeast": Shape(103, 32, 14, (1_200, 300, 917), layers=1, batch=32, sets=True, epochs=30, every=10),
}


def problem(shape: Shape) -> Problem:
    """Random rows of these sizes."""
    draw = stream("benchmark")
    total = sum(shape.rows)
    features = torch.randn(total, shape.features, generator=draw)
    if shape.sets:
        labels = (torch.rand(total, shape.classes, generator=draw) < 0.3).to(torch.uint8)
        train, val, test = torch.randperm(total, generator=draw).split(shape.rows)
        new = torch.ones(len(test), dtype=torch.bool)
        return MultiLabel(features, labels, train, val, test, shape.classes, labels, new=new)
    labels = torch.randint(0, shape.classes, (total,), generator=draw)
    train, val, test = torch.randperm(total, generator=draw).split(shape.rows)
    return Problem(features, labels, train, val, test, shape.classes, labels, torch.eye(shape.classes))


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def module(shape: Shape) -> nn.Sequential:
    widths = [shape.features, *[shape.width] * shape.layers, shape.classes]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def tight(data: Problem, shape: Shape, loss: Callable[[Tensor, Tensor], Tensor], epochs: int) -> None:
    """A loop over index tensors."""
    model = module(shape)
    labels = data.labels.float() if shape.sets else data.labels
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(epochs):
        for at in data.train[torch.randperm(len(data.train))].split(shape.batch)[: len(data.train) // shape.batch]:
            value = loss(model(data.features[at]), labels[at])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        with torch.no_grad():
            for rows in (data.val, data.test):
                if shape.sets:
                    if epoch == epochs - 1:
                        mean_average_precision(model(data.features[rows]), data.labels[rows])
                    continue
                (model(data.features[rows]).argmax(1) == data.labels[rows]).double().mean().item()


class Rows(Dataset[tuple[Tensor, int, int]]):
    """Some rows of a problem, kept as arrays."""

    def __init__(self, data: Problem, rows: Tensor) -> None:
        self.features, self.labels = data.features[rows].numpy(), data.labels[rows].numpy()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        return torch.from_numpy(self.features[i]), int(self.labels[i]), i


class Mean:
    """A running mean, each value with its number of samples."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, value: float, samples: int) -> None:
        self.sum, self.count = self.sum + value * samples, self.count + samples


def topk(logits: Tensor, target: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Percent of the targets (N,) among the k largest logits (N, C), for each k."""
    _, predicted = logits.topk(max(ks), 1, True, True)
    right = predicted.t().eq(target.view(1, -1).expand_as(predicted.t()))
    return [right[:k].reshape(-1).float().sum(0).mul_(100 / len(target)) for k in ks]


def script(data: Problem, shape: Shape, epochs: int) -> None:
    """Cross-entropy as papers publish it."""
    device, ks = torch.device("cpu"), (1, min(5, shape.classes))
    model, criterion = module(shape).to(device), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    training, *held = (
        DataLoader(Rows(data, rows), batch_size=shape.batch, shuffle=shuffle)
        for rows, shuffle in ((data.train, True), (data.val, False), (data.test, False))
    )

    def follow(meters: Sequence[Mean], loss: Tensor, logits: Tensor, y: Tensor) -> None:
        for meter, value in zip(meters, (loss, *topk(logits, y, ks)), strict=True):
            meter.update(value.item(), len(y))

    for _ in range(epochs):
        model.train()
        meters = Mean(), Mean(), Mean()
        for x, y, _ in training:
            x, y = x.to(device), y.to(device)
            logits = model(x)
            loss = criterion(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            follow(meters, loss, logits, y)
        model.eval()
        with torch.no_grad():
            for loader in held:
                meters = Mean(), Mean(), Mean()
                for x, y, _ in loader:
                    x, y = x.to(device), y.to(device)
                    logits = model(x)
                    follow(meters, criterion(logits, y), logits, y)


def as_criterion(method: Method) -> Callable[[Tensor, Tensor], Tensor]:
    """The method's mean loss, as a script would call it; cross-entropies are torch's own."""
    if method.id in ("ce", "bce"):
        return nn.functional.cross_entropy if method.id == "ce" else nn.functional.binary_cross_entropy_with_logits
    values = {key: torch.tensor(value) for key, value in method.defaults.items()}

    def mean(logits: Tensor, target: Tensor) -> Tensor:
        found: Tensor = method.function(logits, target, **supply(named(method.function), values))
        return found.mean()

    return mean


def simple(method: Method) -> bool:
    """A loss of logits and labels alone: what a tight loop can call."""
    return not (method.supplied or method.correction or method.outputs)


def measure(method: Method, shape: Shape, runs: int, rounds: int) -> Mapping[str, list[float]]:
    """Run-epochs a processor second, round by round, interleaved."""
    data = problem(shape)
    many = [Run(data, {"lr": 0.1, **method.defaults}, ("benchmark", seed)) for seed in range(runs)]
    steps = shape.rows[0] // shape.batch
    epochs = max(shape.every, -(-200 // steps))  # of the loops, enough to be timed
    recipe = Recipe(epochs=shape.epochs, batch=shape.batch, lr=0.1, schedule="constant", every=shape.every)
    compiles = compiler.available()
    work = {
        "tight": lambda: tight(data, shape, as_criterion(method), epochs),
        "fleet": lambda: fleet(method, many, [shape.width] * shape.layers, recipe, compiles=compiles),
    }
    if method.id == "ce":
        work["script"] = lambda: script(data, shape, epochs)
    found: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds + 1):
        for name, function in work.items():
            seconds = processor_seconds(function)
            if i:  # the first round warms up and compiles
                found[name].append((shape.epochs * runs if name == "fleet" else epochs) / seconds)
    return found


def main() -> None:
    """Print a table, and last the ratios."""
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    ask.add_argument("--losses", default="", help="ids with commas between them, or 'all' without memory")
    ask.add_argument("--shape", default="letter", choices=SHAPES)
    ask.add_argument("--runs", type=int, default=70)
    ask.add_argument("--rounds", type=int, default=3)
    given = ask.parse_args()
    one_thread()
    shape = SHAPES[given.shape]
    control, known = ("bce", catalogue("multilabel")) if shape.sets else ("ce", catalogue("loss"))
    ids = [id for id in known if simple(known[id])] if given.losses == "all" else given.losses.split(",")
    odd = [id for id in ids if id and (id not in known or not simple(known[id]))]
    if odd:
        ask.error(f"{', '.join(odd)}: a tight loop is written for losses of logits and target alone, of the catalogue")
    print(f"{given.shape}: run-epochs a processor second, R = {given.runs}, compiler {compiler.described()};")
    print(f"medians of {given.rounds} rounds (lowest and highest ratio of a round)")
    print(f"{'loss':20} {'script':>8} {'tight':>8} {'fleet':>8} {'ratio':>7}", flush=True)
    ratios, script_ratio = {}, float("nan")
    for id in [control, *(id for id in ids if id not in ("", control))]:
        found = measure(known[id], shape, given.runs, given.rounds)
        each = [b / a for a, b in zip(found["tight"], found["fleet"], strict=True)]
        ratios[id] = statistics.median(each)
        middle = {name: statistics.median(values) for name, values in found.items()}
        if "script" in middle:
            script_ratio = statistics.median(b / a for a, b in zip(found["script"], found["fleet"], strict=True))
        shown = f"{middle['script']:8.1f}" if "script" in middle else " " * 8
        print(
            f"{id:20} {shown} {middle['tight']:8.1f} {middle['fleet']:8.1f} {ratios[id]:7.1f}"
            f"  ({min(each):.1f} to {max(each):.1f})",
            flush=True,
        )
    lowest = min(ratios, key=lambda id: ratios[id])
    own = f"{ratios[control]:.1f} {control}"
    if math.isfinite(script_ratio):
        own += f", {script_ratio:.0f} {control} to the script"
    print(f"ratio {ratios[lowest]:.1f} lowest ({lowest}), {own}")


if __name__ == "__main__":
    main()

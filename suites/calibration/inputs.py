"""What a cell of the calibration suite trains on and predicts: rows, their labels, shifted test inputs, copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lossboard.data import Dataset
from lossboard.problem import Problem, divided, observed, scaled, stream
from lossboard.protocol import Split, Task
from reference.noise import corrupt

Change = Callable[[Tensor, Generator], Tensor]  # inputs (N, ...) -> changed inputs

SHIFT, COPY = 0.5, 0.1  # standard deviation of noise over that of all inputs: of a shifted test set, of a copy
TURN, TILT = 30.0, 15.0  # degrees, likewise
BLUR = 1.0  # standard deviation in pixels
FAINT = 0.7  # contrast of a copy


def noisy(x: Tensor, generator: Generator, *, size: float) -> Tensor:
    """Inputs with normal noise, ``size`` times the standard deviation of all of them."""
    return x + size * x.std() * torch.randn(x.shape, generator=generator)


def turned(x: Tensor, generator: Generator, *, degrees: float) -> Tensor:
    """Images (N, c, h, w) turned by up to so many degrees either way, bilinear; what comes in from outside is dark."""
    angle = (2 * torch.rand(len(x), generator=generator) - 1) * torch.pi / 180 * degrees
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    dark = x.amin()
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x - dark, grid, align_corners=False) + dark


def blurred(x: Tensor, generator: Generator) -> Tensor:
    """Images (N, c, h, w) under a Gaussian filter of 5 x 5 pixels; borders are continued."""
    weight = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * BLUR**2))
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(padded, weight, groups=x.shape[1])
    return F.conv2d(across, weight.mT, groups=x.shape[1])


def fainter(x: Tensor, generator: Generator) -> Tensor:
    """Inputs nearer to their own mean: images of less contrast."""
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    return mean + FAINT * (x - mean)


def shifts(images: bool) -> dict[str, Change]:
    """How test inputs are shifted, by name."""
    pictures: dict[str, Change] = {"rotation": functools.partial(turned, degrees=TURN), "blur": blurred}
    return {"noise": functools.partial(noisy, size=SHIFT), **(pictures if images else {})}


def copies(images: bool) -> list[Change]:
    """The transformed copies by which a calibrator may tell how sure a prediction is."""
    slightly = functools.partial(noisy, size=COPY)
    return [functools.partial(turned, degrees=TILT), fainter, slightly] if images else [slightly] * 3


def sets(images: bool, with_copies: bool) -> dict[str, tuple[str, tuple[Change, ...]]]:
    """Name of a set of rows -> the part whose rows they are, and what is done to their inputs in turn."""
    found: dict[str, tuple[str, tuple[Change, ...]]] = {"val": ("val", ()), "test": ("test", ())}
    found |= {name: ("test", (change,)) for name, change in shifts(images).items()}
    if with_copies:
        found |= {
            f"{name}-copy{k}": (part, (*changes, copy))
            for name, (part, changes) in found.items()
            for k, copy in enumerate(copies(images))
        }
    return found


@dataclass(frozen=True)
class Rows:
    """A task's rows for one seed; ``features`` are shared by all seeds where networks train in fleets."""

    features: Tensor
    labels: Tensor  # as they are seen
    clean: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    classes: int


@functools.lru_cache(maxsize=64)
def rows(task: Task, seed: int, data: Callable[[str], Dataset]) -> Rows:
    """Split by seed, then labels corrupted in the rows that the corruption names."""
    features, labels, own, classes = _scaled(task.dataset, task.split, data)
    train, val, test = divided(task.split, len(labels), own, stream(task.dataset, seed, "split"))
    how = task.corruption
    parts = {"train": (train,), "": (train, val), "all": (train, val, test)}[how.rows]
    chosen = torch.cat(parts).sort().values  # noise does not depend on who is held out
    seen = labels.clone()
    seen[chosen] = corrupt(
        how.kind,
        labels[chosen],
        classes,
        rate=how.rate,
        dataset=task.dataset,
        generator=stream(task.dataset, seed, "noise", how.kind, how.rate),
        features=features[chosen].flatten(1),
        people=None,
    )
    return Rows(features, seen, labels, train, val, test, classes)


@functools.lru_cache(maxsize=2)
def _scaled(dataset: str, split: Split, data: Callable[[str], Dataset]) -> tuple[Tensor, Tensor, int, int]:
    found = data(dataset)
    return (*scaled(found, split), found.classes)


def problem(task: Task, seed: int, data: Callable[[str], Dataset], with_copies: bool) -> Problem:
    """What the harness trains on: the rows, and behind them the changed inputs whose predictions are kept."""
    found = rows(task, seed, data)
    parts = {"train": found.train, "val": found.val, "test": found.test}
    if found.features.ndim == 4:  # images are many: those of this run, which trains alone
        every = torch.cat(list(parts.values()))
        ends = torch.tensor([len(part) for part in parts.values()]).cumsum(0).tolist()
        parts = {name: torch.arange(end - len(parts[name]), end) for name, end in zip(parts, ends, strict=True)}
        x, places = _changed(found.features[every], parts, task.dataset, True, with_copies)
        at = {name: torch.arange(len(part)) for name, part in parts.items()}
    else:
        every = torch.arange(len(found.features))
        x, places = _table(task, data, with_copies)
        at = parts
    kept = {name: parts[part] if start is None else start + at[part] for name, (part, start) in places.items()}
    matrix = observed(found.clean[found.train], found.labels[found.train], found.classes)
    labels, clean = found.labels[every], found.clean[every]
    return Problem(x, labels, parts["train"], parts["val"], parts["test"], found.classes, clean, matrix, kept=kept)


Places = dict[str, tuple[str, int | None]]  # of a set: its part, and where its changed rows begin


@functools.lru_cache(maxsize=2)
def _table(task: Task, data: Callable[[str], Dataset], with_copies: bool) -> tuple[Tensor, Places]:
    """All rows of a table, and behind them all rows changed, whatever their part: shared by every seed."""
    x = _scaled(task.dataset, task.split, data)[0]
    every = torch.arange(len(x))
    return _changed(x, {"val": every, "test": every}, task.dataset, False, with_copies)


def _changed(
    x: Tensor, parts: dict[str, Tensor], dataset: str, images: bool, with_copies: bool
) -> tuple[Tensor, Places]:
    found, places, end = [x], Places(), len(x)
    for name, (part, changes) in sets(images, with_copies).items():
        places[name] = (part, end if changes else None)
        if changes:
            inputs = x[parts[part]]
            for i, change in enumerate(changes):  # a shifted set and its copies begin alike
                purpose = name if i == len(changes) - 1 else name.split("-")[0]
                inputs = change(inputs, stream(dataset, "inputs", purpose))
            found.append(inputs)
            end += len(inputs)
    return torch.cat(found), places

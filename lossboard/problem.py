"""What one run learns from and how it is told: data with its split and labels, hyperparameters, random streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossboard.data import Dataset
from lossboard.protocol import Split


def stream(*purpose: object) -> torch.Generator:
    """A random stream of its own for each purpose (dataset, seed, stream name, ...): seeded from their hash.

    Nothing that names a method, a trial or a slot belongs in a purpose: methods are compared paired.
    """
    seed = int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Problem:
    """The data of one run. ``features`` (rows, ...) may be shared by many; the index sets are rows of it.

    ``labels`` (rows,) are what training sees: corrupted in the training and validation rows, clean in the test rows;
    ``clean`` (rows,) are the true ones. ``transition`` (C, C) is the probability of each noisy label given the true
    one, as the noise has it or, where the noise has none, as the training and validation labels do. What is measured
    after an epoch is the accuracy or, of a ``balanced`` problem, the mean recall of the classes. What the
    trained network says of the rows ``kept`` is returned with its outcome.
    """

    features: Tensor
    labels: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    classes: int
    clean: Tensor
    transition: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    balanced: bool = False
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    def told(self, name: str) -> Tensor:
        """What a loss may ask to be told of the training rows: their ``transition``, or the ``counts`` of labels."""
        if name == "counts":
            return self.labels[self.train].bincount(minlength=self.classes)
        return self.transition

    def to(self, device: torch.device) -> Problem:
        """The same on a device."""
        tensors: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True)
class MultiLabel(Problem):
    """The data of one run where a row has any number of labels. What is measured after an epoch is the mean average
    precision of the labels that some row has.

    ``labels`` and ``clean`` are (rows, L), 0 or 1 in bytes; training and validation rows have a 1 in ``labels`` where a
    label holds and was seen to. ``seen`` (rows, L) is 1 where a label is known, present or absent; None: all are.
    ``new`` (test rows,) is true for those whose features no row of training or validation has.
    """

    seen: Tensor | None = None
    new: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    def told(self, name: str) -> Tensor:
        """``counts`` (L,) of the training rows have each label, of all ``rows``; ``cardinality`` is how many labels a
        training row truly has in the mean."""
        if name == "rows":
            return torch.tensor(len(self.train))
        if name == "cardinality":
            return self.clean[self.train].sum() / len(self.train)
        return self.labels[self.train].sum(0)


@dataclass(frozen=True)
class Run:
    """One training: its problem, its hyperparameters (the learning rate is ``lr``) and what its streams are for."""

    problem: Problem
    params: Mapping[str, float]
    purpose: tuple[object, ...]

    def stream(self, name: str) -> torch.Generator:
        return stream(*self.purpose, name)


@dataclass(frozen=True)
class Outcome:
    """What a run gave: its score after each epoch that is evaluated, on (corrupted) validation and (clean) test rows.

    The score is the accuracy, or what the problem says.
    """

    status: str  # "ok", or "diverged": a parameter is not finite
    val: tuple[float, ...]
    test: tuple[float, ...]
    bits: str  # first 12 hex of the SHA-256 of the trained parameters
    seconds: float  # processor time
    measured: Mapping[str, float] = field(default_factory=dict)  # of the trained network's probabilities
    outputs: Mapping[str, Tensor] = field(default_factory=dict)  # (N, C) of the problem's ``kept`` rows, on the CPU

    def metrics(self) -> dict[str, float]:
        """``last`` and ``val``: after the last epoch; ``best_val``: where validation peaks; ``oracle``: the best."""
        if self.status != "ok":
            return {}
        best = max(range(len(self.val)), key=lambda epoch: self.val[epoch])
        curves = {"last": self.test[-1], "val": self.val[-1], "best_val": self.test[best], "oracle": max(self.test)}
        return {**curves, **self.measured}


def fingerprint(parameters: Iterable[Tensor]) -> str:
    """12 hex digits over the bytes of these parameters."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def scaled(dataset: Dataset, split: Split) -> tuple[Tensor, Tensor, int]:
    """All rows of a dataset in one tensor, scaled: features, labels, and the number of rows not set aside for test.

    Statistics come from the features of the rows that are not test rows (of all rows where the split is random).
    Images become (rows, channels, height, width) with one mean and deviation a channel.
    """
    names = [name for name in dataset.features if name != "test"] + (["test"] if "test" in dataset.features else [])
    x = np.concatenate([np.asarray(dataset.features[name], dtype=np.float32) for name in names])
    y = np.concatenate([np.asarray(dataset.labels[name]) for name in names])  # (rows,), or (rows, L)
    own = len(y) - len(dataset.labels.get("test", ()))
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    if split.scale == "unit":
        x = x / np.abs(x[:own]).max()
    else:
        axes = (0,) if x.ndim == 2 else (0, 2, 3)
        mean = x[:own].mean(axes, keepdims=True, dtype=np.float64)
        deviation = x[:own].std(axes, keepdims=True, dtype=np.float64)
        x = (x - mean) / np.where(deviation > 0, deviation, 1.0)
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), torch.from_numpy(y.astype(np.int64)), own


def divided(
    split: Split, rows: int, own: int, generator: torch.Generator, fold: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers for training, validation and test. ``own`` rows come before the dataset's own test rows."""
    if split.kind == "folds":
        edges = [round(i * own / split.folds) for i in range(split.folds + 1)]
        held, test = torch.arange(edges[fold], edges[fold + 1]), torch.arange(own, rows)
        train = torch.cat([torch.arange(edges[fold]), torch.arange(edges[fold + 1], own)])
    else:
        if split.kind == "official":
            order, test = torch.randperm(own, generator=generator), torch.arange(own, rows)
        else:
            order = torch.randperm(rows, generator=generator)
            cut = round(split.test * rows)
            order, test = order[cut:], order[:cut]
        val = round(split.val * (own if split.kind == "official" else rows))
        train, held = order[val:], order[:val]
    return train[: split.train or None], held[: split.held_out or None], spread(test, split.held_out)


def spread(rows: Tensor, count: int) -> Tensor:
    """So many of these rows (0: all), evenly spaced: test sets are often sorted by writer or difficulty.

    >>> spread(torch.arange(10), 4)
    tensor([0, 2, 5, 7])
    """
    if not 0 < count < len(rows):
        return rows
    return rows[torch.arange(count) * len(rows) // count]


def observed(clean: Tensor, noisy: Tensor, classes: int) -> Tensor:
    """How often each noisy label stands for each true one: (C, C), a row for each true label, in float64."""
    counts = (clean * classes + noisy).bincount(minlength=classes**2).view(classes, classes).double()
    return torch.where(counts.sum(1, keepdim=True) > 0, counts, torch.eye(classes)) / counts.sum(1, keepdim=True).clamp(
        min=1
    )

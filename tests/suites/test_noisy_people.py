"""Labels of people in the noisy suite: those of the rows that a run trains on, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import suites.noisy as noisy
from lossboard import protocol
from lossboard.data import Dataset, load
from lossboard.errors import UsageError
from lossboard.protocol import Corruption, Split

TASK = next(iter(protocol.load("noisy").tasks.values()))
OFFICIAL = Split("official", val=0.2, train=700)


def digits(name: str) -> Dataset:
    """Digits with test rows of their own."""
    whole = load("digits")
    parts = {"train": slice(0, 1300), "test": slice(1300, None)}
    features, labels = (
        {part: arrays["all"][rows] for part, rows in parts.items()} for arrays in (whole.features, whole.labels)
    )
    return replace(whole, name=name, features=features, labels=labels)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What people said of the training rows: each row another way of being wrong."""
    labels = digits("").labels["train"]
    said = (labels + 1 + np.arange(1300) % 9) % 10

    def human(dataset: Dataset, name: str, rate: float) -> np.ndarray:
        assert (dataset.name, name, rate) == ("cifar10", "worst", 0.4)
        return said

    monkeypatch.setattr("lossboard.data.human", human)
    return said


def test_rows_keep_their_own_labels(said: np.ndarray) -> None:
    task = replace(TASK, dataset="cifar10").having(corruption=Corruption("human_worst", 0.4), split=OFFICIAL)
    problem = noisy.problem(task, 0, digits)
    assert len(problem.train) == 700
    for rows in (problem.train, problem.val):
        assert torch.equal(problem.labels[rows], torch.from_numpy(said)[rows])
    assert torch.equal(problem.labels[problem.test], torch.tensor(digits("").labels["test"])[problem.test - 1300])


def test_test_rows_were_not_labelled(said: np.ndarray) -> None:
    split = Split("random", val=0.2, test=0.2)
    task = replace(TASK, dataset="cifar10").having(corruption=Corruption("human_worst", 0.4), split=split)
    with pytest.raises(UsageError, match="people labelled the training rows alone; use a split of kind 'official'"):
        noisy.problem(task, 0, digits)

"""The metrics of a trained network, against scikit-learn's and torchmetrics'."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from lossboard.metrics import calibration_error, metrics, score
from lossboard.problem import Problem, stream

Array = npt.NDArray[np.generic]


def problem(classes: int, rows: int = 400) -> Problem:
    """Unbalanced classes; a third of the training labels wrong."""
    draw = stream("metrics", classes)
    clean = (torch.rand(rows, generator=draw) ** 2 * classes).long()
    train, val, test = torch.arange(rows).split((rows // 2, rows // 8, rows - rows // 2 - rows // 8))
    labels = clean.clone()
    labels[train[::3]] = (labels[train[::3]] + 1) % classes
    return Problem(torch.zeros(rows, 1), labels, train, val, test, classes, clean, torch.eye(classes))


def predicted(data: Problem, sharpness: float = 2.0) -> dict[str, Tensor]:
    """Log-probabilities that know something of the labels that training saw."""
    logits = torch.randn(len(data.labels), data.classes, generator=stream("logits"), dtype=torch.float64)
    logits[torch.arange(len(logits)), data.labels] += 1
    log_p = (sharpness * logits).log_softmax(1)
    return {"train": log_p[data.train], "test": log_p[data.test]}


def test_a_score_that_is_no_number_is_wrong_whosever_it_is() -> None:
    data, nan = problem(3), math.nan
    scores = torch.tensor([[2.0, 1.0, 0.0], [2.0, nan, 0.0], [nan, 1.0, 0.0], [2.0, 2.0, 0.0]])
    target = torch.zeros(4, dtype=torch.int64)
    assert score(data, scores, target) == 0.25
    log_p = predicted(data)
    log_p["test"][:, 0] = nan
    assert metrics(data, log_p.__getitem__)["balanced"] == 0


def confidence_and_right(p: Array, target: Array) -> tuple[Tensor, Tensor]:
    """For the binary error of torchmetrics, which keeps float64: its multiclass one counts these in float32."""
    return torch.tensor(p.max(1)), torch.tensor(p.argmax(1) == target).long()


@pytest.mark.parametrize("classes", [2, 3, 6, 10])
def test_they_are_the_libraries(classes: int) -> None:
    data = problem(classes)
    log_p = predicted(data)
    found = metrics(data, log_p.__getitem__)
    target, p = data.labels[data.test].numpy(), log_p["test"].exp().numpy()
    names = list(range(classes))
    expected = {
        "nll": log_loss(target, p, labels=names),
        "balanced": balanced_accuracy_score(target, p.argmax(1)),
        "ece": float(binary_calibration_error(*confidence_and_right(p, target), n_bins=15)),
    }
    for k in range(2, min(5, classes - 1) + 1):
        expected[f"top{k}"] = top_k_accuracy_score(target, p, k=k, labels=names)
    memorised = found.pop("memorised")
    assert found == pytest.approx(expected, rel=1e-9)
    wrong = data.labels[data.train] != data.clean[data.train]
    assert memorised == pytest.approx(
        float((log_p["train"][wrong].argmax(1) == data.labels[data.train][wrong]).double().mean())
    )
    assert 0 < memorised < 1


def test_nothing_is_memorised_where_nothing_is_wrong() -> None:
    data = problem(4)
    clean = Problem(data.features, data.clean, data.train, data.val, data.test, 4, data.clean, data.transition)
    assert "memorised" not in metrics(clean, predicted(data).__getitem__)


def test_ties_count_against_the_label() -> None:
    data = problem(3)
    flat = torch.full((len(data.labels), 3), math.log(1 / 3), dtype=torch.float64)
    found = metrics(data, lambda part: flat[getattr(data, part)])
    assert found["balanced"] == 0
    assert found["top2"] == 0
    assert found["memorised"] == 0
    assert found["nll"] == pytest.approx(math.log(3))


def test_calibration_error_of_the_sure_and_wrong() -> None:
    log_p = torch.tensor([[0.0, -1e9], [0.0, -1e9]], dtype=torch.float64)
    assert calibration_error(log_p, torch.tensor([1, 1])) == 1
    assert calibration_error(log_p, torch.tensor([0, 0])) == 0
    assert calibration_error(log_p, torch.tensor([0, 1])) == 0.5

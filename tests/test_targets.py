"""Fleets whose rows have label sets, or classes of very different size: held to the plain loop and to themselves."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from lossboard.fleet import fleet
from lossboard.metrics import mean_average_precision, score
from lossboard.problem import MultiLabel, Problem, Run, stream
from lossboard.protocol import Recipe
from lossboard.train import train
from reference import partial
from reference.methods import Method, catalogue
from reference.models.mlp import MLP

RECIPE = Recipe(epochs=4, batch=32, lr=0.1, weight_decay=1e-4, every=2)
METHODS = [*catalogue("multilabel").values(), *catalogue("longtail").values()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.kind}-{method.id}")


def label_sets(seed: int, kind: str, labels: int = 11, dtype: torch.dtype = torch.float32) -> MultiLabel:
    """Rows whose labels hang on their features, the later ones rarer; features and true labels are shared by all."""
    draw = stream("sets", labels)
    x = torch.randn(250, 10, generator=draw)
    way = torch.randn(10, labels, generator=draw)
    clean = (x @ way / 3 - torch.linspace(0, 1.2, labels) > 0).to(torch.uint8)
    own = stream("split", seed)
    order = torch.randperm(250, generator=own)
    train_rows, val, test = order.split((150, 50, 50))
    rows = torch.cat([train_rows, val])
    seen = torch.ones_like(clean)
    seen[rows] = partial.observed(kind, clean[rows], rate=0.5, generator=own)
    new = torch.arange(50) % 7 > 0
    return MultiLabel(x.to(dtype), clean * seen, train_rows, val, test, labels, clean, seen=seen, new=new)


def classes(seed: int, dtype: torch.dtype = torch.float32) -> Problem:
    draw = stream("classes")
    size = torch.tensor([120, 60, 30, 15, 10, 8, 7])
    labels = torch.arange(7).repeat_interleave(size)
    x = torch.randn(7, 10, generator=draw)[labels] + torch.randn(250, 10, generator=draw)
    train_rows, val, test = torch.randperm(250, generator=stream("split", seed)).split((150, 50, 50))
    return Problem(x.to(dtype), labels, train_rows, val, test, 7, labels, balanced=True)


def runs_of(method: Method, count: int, dtype: torch.dtype = torch.float32) -> list[Run]:
    """Runs that differ in data, in what is seen of it, weights, order, learning rate and hyperparameters."""
    made = []
    for i in range(count):
        params = {key: space.at((i % 5 + 0.5) / 5) for key, space in method.search.items()}
        kind = sorted(partial.KINDS)[i % 4]
        problem = classes(i, dtype) if method.kind == "longtail" else label_sets(i, kind, dtype=dtype)
        made.append(Run(problem, {"lr": 0.05 * (1 + i % 3), **method.defaults, **params}, ("test", i)))
    return made


@every_method
def test_a_run_has_the_same_bits_alone_and_in_company(method: Method) -> None:
    runs = runs_of(method, 40)
    together = fleet(method, runs, [20], RECIPE, compiles=False)
    some = list(range(39, 22, -3))
    backwards = fleet(method, [runs[slot] for slot in some], [20], RECIPE, compiles=False)
    assert [one.bits for one in backwards] == [together[slot].bits for slot in some]
    for slot in (0, 17, 39):
        (alone,) = fleet(method, [runs[slot]], [20], RECIPE, compiles=False)
        assert alone.bits == together[slot].bits, slot
        assert str(alone.metrics()) == str(together[slot].metrics()), slot
    assert len({outcome.bits for outcome in together}) == 40, "the runs do differ"


@every_method
def test_a_fleet_does_what_the_plain_loop_does(method: Method) -> None:
    """In float64, so that rounding stays far below what an order of scores hangs on."""
    runs = runs_of(method, 4, torch.float64)

    def network(outputs: int, generator: torch.Generator) -> MLP:
        return MLP(10, [20], outputs, generator).double()

    for one, run in zip(fleet(method, runs, [20], RECIPE), runs, strict=True):
        plain = train(method, run, network, RECIPE)
        assert len(one.val) == 2, "every second epoch is evaluated"
        assert one.val == pytest.approx(plain.val, abs=1e-12)
        assert one.test == pytest.approx(plain.test, abs=1e-12)
        assert one.measured == pytest.approx(dict(plain.measured), rel=1e-6)


def test_rare_labels_and_classes_are_learnt() -> None:
    for method in (catalogue("multilabel")["bce"], catalogue("longtail")["logit_adjusted"]):
        (run,) = runs_of(method, 1)
        (outcome,) = fleet(method, [run], [20], Recipe(epochs=30, batch=32, lr=0.1), compiles=False)
        assert outcome.val[-1] > outcome.val[0] + 0.05


def test_what_a_loss_is_told() -> None:
    problem = label_sets(0, "single_positive")
    shown, true = problem.labels[problem.train], problem.clean[problem.train]
    assert torch.equal(problem.told("counts"), shown.sum(0))
    assert int(problem.told("rows")) == 150
    assert float(problem.told("cardinality")) == pytest.approx(float(true.float().sum(1).mean()))
    assert float(problem.told("cardinality")) > float(shown.float().sum(1).mean()) == pytest.approx(1, abs=0.2)
    tail = classes(0)
    assert torch.equal(tail.told("counts"), torch.bincount(tail.labels[tail.train], minlength=7))


def test_mean_average_precision_is_that_of_scikit_learn() -> None:
    draw = stream("scores")
    scores = torch.randn(60, 9, generator=draw).round(decimals=1)  # some are tied
    target = (torch.rand(60, 9, generator=draw) < 0.2).to(torch.uint8)
    target[:, 3] = 0
    own = [k for k in range(9) if k != 3]
    expected = np.mean([average_precision_score(target[:, k].numpy(), scores[:, k].numpy()) for k in own])
    assert mean_average_precision(scores, target) == pytest.approx(expected, abs=1e-12)
    assert mean_average_precision(scores, torch.zeros_like(target)) == 0
    broken = torch.where(target > 0, torch.nan, scores)
    assert mean_average_precision(broken, target) < 0.5, "NaN is the lowest score"


def test_the_score_of_a_balanced_problem_is_the_mean_recall() -> None:
    problem = classes(0)
    scores = torch.randn(50, 7, generator=stream("scores"))
    target = problem.labels[problem.test]
    expected = balanced_accuracy_score(target.numpy(), scores.argmax(1).numpy())
    assert score(problem, scores, target) == pytest.approx(expected, abs=1e-12)


def test_metrics_are_of_the_true_labels_and_of_new_rows_beside() -> None:
    (outcome,) = fleet(catalogue("multilabel")["bce"], runs_of(catalogue("multilabel")["bce"], 1), [20], RECIPE)
    found = outcome.metrics()
    assert {"last", "val", "map_new", "macro_auc", "fixed_cf1", "tuned_of1", "p5", "psp5"} <= found.keys()
    assert found["map_new"] != found["last"]
    assert 1 <= found["coverage"] <= 11, "a depth, not a share"
    assert all(0 <= value <= 1 for name, value in found.items() if name != "coverage")

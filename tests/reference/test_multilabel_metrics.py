"""Multi-label metrics against scikit-learn and torchmetrics: random, tied, degenerate and large inputs."""

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional.classification as tm
from torchmetrics.functional.retrieval import retrieval_precision

from reference.metrics.multilabel import frequency_groups, multilabel_metrics, ranking_metrics
from reference.metrics.multilabel_decisions import (
    common_threshold,
    decision_metrics,
    first,
    label_thresholds,
)
from reference.metrics.multilabel_ranking import (
    aucs,
    average_precisions,
    coverage,
    entries,
    expected_weights,
    label_ranking_average_precision,
    labels_of_rows,
    ndcg_at,
    precision_at,
    propensities,
    propensity_scored_precision_at,
    ranking_loss,
    rows_of_labels,
)


def make(n, labels, seed=0, share=0.3):
    random = np.random.default_rng(seed)
    target = (random.random((n, labels)) < share).astype(np.int64)
    return torch.from_numpy(random.normal(size=(n, labels)) + target), torch.from_numpy(target)


def tied():
    scores, target = make(60, 7)
    return scores.round(), target


def one_sided_labels():
    """A label that no row has and one that all have."""
    scores, target = make(40, 6, share=0.2)
    target[:, 0], target[:, 1] = 0, 1
    return scores, target


def one_sided_rows():
    """Rows without labels and rows with all."""
    scores, target = make(40, 6, share=0.2)
    target[:3], target[3:5] = 0, 1
    return scores, target


def as_probabilities(scores):
    """In the same order, strictly between 0 and 1: libraries would make them so themselves, and lose the order."""
    return torch.sigmoid(scores / scores.abs().max().clamp(min=1))


def all_right():
    _, target = make(30, 5)
    return (2 * target - 1).double(), target


def at_the_ends():
    """Probabilities of 0 and 1 alone, right or wrong."""
    scores, target = make(50, 5)
    return (scores > 0.5).double(), target


def constant():
    _, target = make(20, 4)
    return torch.zeros(20, 4, dtype=torch.float64), target


def huge():
    scores, target = make(50, 5)
    return 1e4 * scores, target


CASES = {
    "random": make(80, 9),
    "tied": tied(),
    "one_sided_labels": one_sided_labels(),
    "one_sided_rows": one_sided_rows(),
    "all_right": all_right(),
    "at_the_ends": at_the_ends(),
    "constant": constant(),
    "huge": huge(),
    "large": make(5000, 200, share=0.02),
    "two_labels": make(50, 2),
}
every_case = pytest.mark.parametrize(("scores", "target"), CASES.values(), ids=list(CASES))


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(
        torch.as_tensor(found, dtype=torch.float64),
        torch.as_tensor(np.asarray(expected), dtype=torch.float64),
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
    )


def by_label(metric, scores, target, defined):
    """A scikit-learn metric of each label, NaN where it is not defined."""
    columns = zip(target.T.numpy(), scores.T.numpy(), strict=True)
    return [metric(y, s) if defined(y) else np.nan for y, s in columns]


@every_case
def test_average_precision(scores, target):
    expected = by_label(sk.average_precision_score, scores, target, lambda y: y.any())
    found = average_precisions(rows_of_labels(scores, target))
    close(found, expected)
    present = target.sum(0) > 0
    own = tm.multilabel_average_precision(as_probabilities(scores), target, target.shape[1], average=None)
    close(found[present], own[present], 1e-6)


@every_case
def test_auc(scores, target):
    expected = by_label(sk.roc_auc_score, scores, target, lambda y: 0 < y.sum() < len(y))
    found = aucs(rows_of_labels(scores, target))
    close(found, expected)
    pooled = aucs(entries(scores, target))
    close(pooled, [sk.roc_auc_score(target.reshape(-1), scores.reshape(-1))])
    probabilities = as_probabilities(scores)
    own = tm.multilabel_auroc(probabilities, target, target.shape[1], average=None)
    close(found[~found.isnan()], own[~found.isnan()], 1e-6)
    close(pooled[0], tm.multilabel_auroc(probabilities, target, target.shape[1], average="micro"), 1e-6)


@every_case
def test_order_of_labels(scores, target):
    y, s = target.numpy(), scores.numpy()
    close(
        label_ranking_average_precision(labels_of_rows(scores, target)), sk.label_ranking_average_precision_score(y, s)
    )
    close(ranking_loss(labels_of_rows(scores, target)), sk.label_ranking_loss(y, s))
    close(coverage(labels_of_rows(scores, target)), sk.coverage_error(y, s))
    probabilities, labels = as_probabilities(scores), target.shape[1]
    own = tm.multilabel_ranking_average_precision(probabilities, target, labels)
    close(label_ranking_average_precision(labels_of_rows(scores, target)), own, 1e-6)
    if len(np.unique(s)) == s.size:  # torchmetrics breaks ties here
        close(
            ranking_loss(labels_of_rows(scores, target)),
            tm.multilabel_ranking_loss(probabilities, target, labels),
            1e-6,
        )


@every_case
@pytest.mark.parametrize("k", [1, 2, 5])
def test_first_labels(scores, target, k):
    k = min(k, target.shape[1])
    close(ndcg_at(k, labels_of_rows(scores, target)), sk.ndcg_score(target.numpy(), scores.numpy(), k=k))


@pytest.mark.parametrize("name", ["random", "one_sided_rows", "huge", "two_labels"])
def test_precision_at(name):
    """Where there are no ties, which torchmetrics breaks as they come."""
    scores, target = CASES[name]
    for k in (1, 2):
        each = [
            retrieval_precision(s, y, top_k=k) if y.any() else torch.tensor(0.0)
            for s, y in zip(
                as_probabilities(scores), target, strict=True
            )  # it takes no label with a score of 0 or less
        ]
        close(precision_at(k, labels_of_rows(scores, target)), torch.stack(each).double().mean(), 1e-6)


def test_ties_take_the_mean_over_all_orders():
    """By shuffling: a label's mean weight over 20,000 random orders of its ties, within 5 standard errors."""
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 1.0]])
    weights = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.0, 0.0])
    random = torch.Generator().manual_seed(0)
    jitter = 0.1 * torch.rand(20000, 6, generator=random)
    rank = (-(scores + jitter)).argsort(-1).argsort(-1)
    shuffled = weights[rank]
    ordered = labels_of_rows(scores, torch.zeros_like(scores))
    found = torch.zeros(6, dtype=torch.float64).scatter(0, ordered.order[0], expected_weights(ordered, weights)[0])
    bound = 5 * shuffled.std(0) / 20000**0.5 + 1e-9
    assert ((shuffled.mean(0) - found).abs() <= bound).all()
    close(found, [0.25, 3.0, 3.0, 0.0, 3.0, 0.25])


@every_case
def test_decisions(scores, target):
    decided, y = scores > 0.4, target.numpy()
    found = decision_metrics(decided, target)
    guess = decided.long().numpy()
    args = {"zero_division": 0}
    precision = sk.precision_score(y, guess, average="macro", **args)
    recall = sk.recall_score(y, guess, average="macro", **args)
    expected = {
        "cp": precision,
        "cr": recall,
        "cf1": 2 * precision * recall / (precision + recall) if precision + recall else 0,
        "op": sk.precision_score(y, guess, average="micro", **args),
        "or": sk.recall_score(y, guess, average="micro", **args),
        "of1": sk.f1_score(y, guess, average="micro", **args),
        "macro_f1": sk.f1_score(y, guess, average="macro", **args),
        "hamming": sk.hamming_loss(y, guess),
        "subset": sk.accuracy_score(y, guess),
    }
    assert found == pytest.approx(expected, abs=1e-9)
    labels = target.shape[1]
    own = {
        "op": tm.multilabel_precision(decided.long(), target, labels, average="micro"),
        "or": tm.multilabel_recall(decided.long(), target, labels, average="micro"),
        "of1": tm.multilabel_f1_score(decided.long(), target, labels, average="micro"),
        "cp": tm.multilabel_precision(decided.long(), target, labels, average=None).mean(),
        "cr": tm.multilabel_recall(decided.long(), target, labels, average=None).mean(),
        "hamming": 1 - tm.multilabel_accuracy(decided.long(), target, labels, average="micro"),
        "subset": tm.multilabel_exact_match(decided.long(), target, labels),
    }
    assert {key: found[key] for key in own} == pytest.approx({k: float(v) for k, v in own.items()}, abs=1e-6)


def test_decisions_by_hand():
    target = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]])
    decided = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]]).bool()
    found = decision_metrics(decided, target)
    # label 0: tp 2, fp 1, fn 0; label 1: tp 1, fp 1, fn 1
    assert found["cp"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["cr"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["cf1"] == pytest.approx(2 * (7 / 12) * (3 / 4) / (7 / 12 + 3 / 4))
    assert found["of1"] == pytest.approx(6 / 9)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 / 2) / 2)


def test_the_first_labels_are_as_many_as_asked_for():
    scores, target = CASES["tied"]
    assert (first(3, scores).sum(-1) == 3).all()
    lowest = torch.where(first(3, scores), scores, torch.inf).amin(-1)
    assert (torch.where(first(3, scores), -torch.inf, scores).amax(-1) <= lowest).all()
    assert first(9, scores).all()
    assert target.shape == scores.shape


@pytest.mark.parametrize("name", ["random", "tied", "one_sided_labels", "at_the_ends", "constant", "all_right"])
def test_thresholds_are_the_best_of_all(name):
    """No other threshold, of all those that decide otherwise, has a greater F1."""
    scores, target = CASES[name]
    tuned = label_thresholds(scores, target)
    for k in range(scores.shape[1]):
        y, s = target[:, k].numpy(), scores[:, k].numpy()
        every = [sk.f1_score(y, s > t, zero_division=0) for t in [-np.inf, *np.unique(s)]]
        if y.any():
            assert sk.f1_score(y, s > tuned[k].item(), zero_division=0) == pytest.approx(max(every), abs=1e-12)
        else:
            assert tuned[k] == common_threshold(scores, target)
    y, s = target.reshape(-1).numpy(), scores.reshape(-1).numpy()
    every = [sk.f1_score(y, s > t, zero_division=0) for t in [-np.inf, *np.unique(s)]]
    found = sk.f1_score(y, s > common_threshold(scores, target).item(), zero_division=0)
    assert found == pytest.approx(max(every), abs=1e-12)


def test_a_threshold_between_neighbouring_numbers():
    low = np.float64(1.0)
    scores = torch.tensor([[low], [np.nextafter(low, 2)]])
    target = torch.tensor([[0], [1]])
    assert (scores > label_thresholds(scores, target))[:, 0].tolist() == [False, True]


def test_propensities():
    """The formula at its defaults; more frequent labels are noticed more surely."""
    counts = torch.tensor([0, 1, 10, 1000, 100000])
    c = (np.log(15539) - 1) * 2.5**0.55
    expected = 1 / (1 + c * np.exp(-0.55 * np.log(counts.numpy() + 1.5)))
    close(propensities(counts, 15539), expected)
    assert (propensities(counts, 15539).diff() > 0).all()


def test_propensity_scored_precision():
    scores, target = CASES["random"]
    propensity = propensities(target.sum(0), 80)
    ideal = target / propensity
    for k in (1, 3, 5):
        assert propensity_scored_precision_at(k, labels_of_rows(ideal, target), propensity) == pytest.approx(1)
        found = propensity_scored_precision_at(k, labels_of_rows(scores, target), propensity)
        assert 0 < found < 1
        top = first(k, scores)
        best = np.sort((target / propensity).numpy(), axis=1)[:, ::-1][:, :k].sum()
        assert found == pytest.approx(float((top * target / propensity).sum() / best))
    even = torch.full((9,), 0.4, dtype=torch.float64)
    reached = (target.sum(1).clamp(max=3) / 3).mean().item()  # of a plain precision at 3
    assert propensity_scored_precision_at(3, labels_of_rows(scores, target), even) * reached == pytest.approx(
        precision_at(3, labels_of_rows(scores, target))
    )


def test_frequency_groups_part_the_labels():
    counts = torch.tensor([0, 19, 20, 100, 101, 5000])
    groups = frequency_groups(counts)
    assert {name: mask.nonzero()[:, 0].tolist() for name, mask in groups.items()} == {
        "head": [4, 5],
        "medium": [2, 3],
        "tail": [0, 1],
    }


def test_both_means_of_average_precision():
    scores, target = CASES["one_sided_labels"]
    counts = torch.tensor([0, 500, 50, 50, 3, 0])
    found = ranking_metrics(scores, target, counts, 1000)
    ap = average_precisions(rows_of_labels(scores, target))
    assert ap.isnan().tolist() == [True] + [False] * 5
    assert found["map"] == pytest.approx(ap[1:].mean().item())
    assert found["map_all"] == pytest.approx(ap[1:].sum().item() / 6)
    assert found["map_head"] == pytest.approx(ap[1].item())
    assert found["map_medium"] == pytest.approx(ap[2:4].mean().item())
    assert found["map_tail"] == pytest.approx(ap[4:].mean().item())
    assert found["one_error"] == pytest.approx(1 - found["p1"])


def test_summary_of_decisions_and_of_what_is_not_defined():
    scores, target = CASES["random"]
    counts = torch.full((9,), 30)  # neither head nor tail
    tuned = label_thresholds(scores, target)
    found = multilabel_metrics(scores, target, counts=counts, rows=80, fixed=0.5, tuned=tuned)
    assert not {"map_head", "map_tail"} & set(found)
    assert found["map_medium"] == found["map"]
    assert found["fixed_of1"] == decision_metrics(scores > 0.5, target)["of1"]
    assert found["tuned_macro_f1"] == decision_metrics(scores > tuned, target)["macro_f1"]
    assert found["tuned_macro_f1"] > found["fixed_macro_f1"]
    assert found["top3_or"] == decision_metrics(first(3, scores), target)["or"]
    assert np.isfinite(list(found.values())).all()


def test_float32_scores_are_compared_in_float64():
    scores, target = CASES["random"]
    single = scores.float()
    for metric in (average_precisions, aucs):
        assert torch.equal(
            metric(rows_of_labels(single, target)), metric(rows_of_labels(single.double(), target.double()))
        )

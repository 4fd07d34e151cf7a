"""The calibration suite: methods, rows and labels, networks that are shared, and golden cells."""

import math
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import suites.calibration as calibration
from lossboard import artifacts, board, environment, protocol, run, sources
from lossboard.data import Dataset, load, pins
from lossboard.problem import Outcome, stream
from reference.methods import MethodError, UnknownMethod, calibrated, catalogue, find
from reference.metrics.predictions import top_label
from suites.calibration import charts, inputs, judging, networks, predictions, rejecting

SUITE = protocol.load("calibration")
METHODS = run.suite_methods(SUITE)
QUICK = SUITE.track("quick")
GOLDEN = Path(__file__).parent / "golden.toml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts of the tests lie in a folder of their own."""
    monkeypatch.setattr("lossboard.artifacts.folder", lambda: tmp_path / "artifacts")


def cells(ids: list[str], seeds: list[int], corruption: str = "clean", trial: int = 0) -> list[protocol.Cell]:
    methods = {id: find(METHODS, id) for id in ids}
    every = SUITE.cells(QUICK, methods, seeds)
    return [cell for cell in every if cell.task.name == f"digits/{corruption}" and cell.trial == trial]


def measured(wanted: list[protocol.Cell], **more: object) -> list[run.Record]:
    methods = {cell.method: find(METHODS, cell.method) for cell in wanted}
    return list(calibration.run(protocol.Unit(tuple(wanted), 1.0), run.Context(methods, load)))


# -- methods ----------------------------------------------------------------------------------------------------------


def test_methods_are_losses_calibrators_and_both() -> None:
    fitted, own = catalogue("calibrator").keys() - {"none"}, catalogue("calibration").keys()
    assert METHODS.keys() >= {*calibration.LOSSES, *fitted, *own}
    losses = {*calibration.LOSSES, *own}
    assert METHODS.keys() == losses | fitted | {f"temperature-{id}" for id in losses - {"ce"}}
    assert {method.kind for method in METHODS.values()} == {"calibration"}
    assert not losses & fitted


@pytest.mark.parametrize(
    ("id", "calibrator", "loss"),
    [
        ("isotonic-focal", "isotonic", "focal"),
        ("temperature-mixup", "temperature", "mixup"),
        ("bbq-mixup-gce", "bbq", "mixup-gce"),
    ],
)
def test_any_calibrator_stands_behind_any_loss(id: str, calibrator: str, loss: str) -> None:
    found = find(METHODS, id)
    assert (found.id, found.calibrator.id, found.base.id) == (id, calibrator, loss)  # type: ignore[union-attr]
    assert calibration.trained_with(id) == loss
    parts = [find(METHODS, loss).module, catalogue("calibrator")[calibrator].module]
    assert sources.source(found.module) not in {None, *map(sources.source, parts)}
    assert set(found.module.split("+")) == {part for each in parts for part in each.split("+")}


def test_what_cannot_be_composed() -> None:
    with pytest.raises(MethodError, match="one calibrator is enough"):
        find(METHODS, "isotonic-temperature-focal")
    with pytest.raises(UnknownMethod, match="no method 'focl'; did you mean focal"):
        find(METHODS, "isotonic-focl")
    both = replace(METHODS["focal"], id="other", defaults={"prior": 1.0})
    with pytest.raises(MethodError, match="both have a hyperparameter 'prior'"):
        calibrated(catalogue("calibrator")["beta"], both)


def test_given_predictions_are_for_what_needs_nothing_else() -> None:
    track = SUITE.track("predictions")
    entered = {cell.method for cell in SUITE.cells(track, METHODS)}
    need_copies = {"correctness_aware", "correctness_aware_plain"}
    assert entered == catalogue("calibrator").keys() - {"none"} - need_copies | {"ce"}
    assert all(cell.params.keys() == set(METHODS[cell.method].defaults) for cell in SUITE.cells(track, METHODS))


# -- rows and labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "noisy"), [("clean", ""), ("train-0.3", "train"), ("everywhere-0.5", "train val test")]
)
def test_labels_are_wrong_in_the_rows_that_are_named(name: str, noisy: str) -> None:
    how = next(task.corruption for task in SUITE.tasks.values() if task.name.endswith(name))
    task = QUICK.tasks[0].having(corruption=how)
    found = inputs.rows(task, 0, load)
    for part in ("train", "val", "test"):
        rows = getattr(found, part)
        wrong = float((found.labels != found.clean)[rows].double().mean())
        assert wrong == (pytest.approx(how.rate * 0.9, abs=0.08) if part in noisy.split() else 0)


def test_a_problem_keeps_what_calibrators_ask_for() -> None:
    """Shifts and copies are of the rows that they are named after, and the same for every seed."""
    task = QUICK.tasks[0]
    problem, other = (inputs.problem(task, seed, load, True) for seed in (0, 1))
    assert problem.features is other.features
    names = {"val", "test", "noise"}
    assert problem.kept.keys() == names | {f"{name}-copy{k}" for name in names for k in range(3)}
    x = problem.features
    far = {
        name: float((x[rows] - x[problem.kept["val" if "val" in name else "test"]]).std() / x[:1797].std())
        for name, rows in problem.kept.items()
    }
    assert far["val"] == far["test"] == 0
    assert far["noise"] == pytest.approx(inputs.SHIFT, rel=0.02)
    assert [far["test-copy1"], far["val-copy2"]] == pytest.approx([inputs.COPY] * 2, rel=0.02)
    near = (x[problem.kept["noise-copy0"]] - x[problem.kept["noise"]]).std() / x[:1797].std()
    assert float(near) == pytest.approx(inputs.COPY, rel=0.2), "a copy of a shifted set begins at the shifted set"
    assert inputs.problem(task, 0, load, False).kept.keys() == names


def test_images_are_turned_and_blurred() -> None:
    draw = stream("test")
    flat = torch.full((2, 3, 8, 8), 0.7)
    torch.testing.assert_close(inputs.blurred(flat, draw), flat)
    torch.testing.assert_close(inputs.turned(flat, draw, degrees=0.0), flat)
    torch.testing.assert_close(inputs.fainter(flat, draw), flat)
    picture = torch.rand(4, 1, 8, 8, generator=draw)
    blurred = inputs.blurred(picture, draw)
    assert blurred.std() < 0.6 * picture.std()
    assert float(blurred.mean()) == pytest.approx(float(picture.mean()), abs=0.05)
    turned = inputs.turned(picture, draw, degrees=30.0)
    assert turned.shape == picture.shape
    assert not torch.equal(turned, picture)


def pictures(name: str) -> Dataset:
    """Digits as 8 by 8 images with test rows of their own."""
    digits = load("digits")
    parts = {"train": slice(0, 1300), "test": slice(1300, None)}
    features = {part: digits.features["all"][rows].reshape(-1, 8, 8, 1) for part, rows in parts.items()}
    return replace(digits, name=name, features=features, labels={p: digits.labels["all"][r] for p, r in parts.items()})


def image_task() -> protocol.Task:
    task = next(task for task in SUITE.tasks.values() if task.name == "mnist/train-0.3")
    recipe = protocol.Recipe(epochs=2, batch=32, lr=0.02)
    split = protocol.Split("official", val=0.2, train=600, held_out=200)
    return replace(task, dataset="pictures").having(recipe=recipe, split=split)


def test_images_keep_their_own_rows_alone() -> None:
    problem = inputs.problem(image_task(), 0, pictures, True)
    assert len(problem.train) == 600
    assert len(problem.features) == 600 + 200 + 200 + 3 * 200 + 3 * 200 + 4 * 3 * 200
    assert problem.kept.keys() >= {"noise", "rotation", "blur", "blur-copy2", "val-copy0"}
    assert torch.cat(list(problem.kept.values())).sort().values.tolist() == list(range(600, len(problem.features)))


def test_the_readme_says_how_wide_networks_are() -> None:
    text = Path(calibration.__file__).with_name("README.md").read_text("utf-8")
    for name in ("digits", "letter", "satimage"):
        task = next(task for task in SUITE.tasks.values() if task.dataset == name)
        assert (task.model.kind, task.model.layers, task.model.width) == ("mlp", 2, 0)
        assert f"{min(math.prod(pins()[name].shape), pins()[name].classes)} on {name}" in text


# -- units, networks, records -----------------------------------------------------------------------------------------


def test_units_have_one_training_loss_and_every_calibrator_behind_it() -> None:
    every = SUITE.cells(QUICK, METHODS)
    units = list(calibration.group(every))
    assert Counter(cell.key for unit in units for cell in unit.cells) == Counter(cell.key for cell in every)
    for unit in units:
        assert len({calibration.trained_with(cell.method) for cell in unit.cells}) == 1
    biggest = max(units, key=lambda unit: len(unit.cells))
    assert {cell.method for cell in biggest.cells} == catalogue("calibrator").keys() - {"none"} | {"ce"}
    images = [cell for cell in SUITE.cells(SUITE.track("cpu"), {"ce": METHODS["ce"]}) if cell.task.model.kind == "cnn"]
    assert all(len(unit.cells) == 1 for unit in calibration.group(images))


def test_a_network_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(cells(["ce", "temperature"], [0, 1]))
    assert artifacts.kept().files == 2
    monkeypatch.setattr("suites.calibration.networks.fleet", lambda *_: pytest.fail("it was trained again"))
    again = measured(cells(["ce", "temperature", "isotonic"], [0, 1]))
    assert artifacts.kept().files == 2
    found = {record.key: record for record in again}
    for record in first:
        assert (record.metrics, record.bits) == (found[record.key].metrics, found[record.key].bits)


def test_a_cell_has_the_same_numbers_in_any_company() -> None:
    alone = measured(cells(["temperature-focal"], [1]))[0]
    for kept in artifacts.folder().glob("*.safetensors"):
        kept.unlink()
    among = measured(cells(["focal", "temperature-focal", "isotonic-focal"], [0, 1, 2]))
    beside = next(record for record in among if record.key == alone.key)
    assert (alone.metrics, alone.bits) == (beside.metrics, beside.bits)


def test_calibrators_change_what_they_say_they_change() -> None:
    found = {record.method: record.metrics for record in measured(cells(["ce", "temperature", "isotonic"], [0]))}
    assert found["temperature"]["accuracy"] == found["ce"]["accuracy"]
    assert found["ce"]["changed"] == found["temperature"]["changed"] == 0
    assert found["temperature"]["nll"] != found["ce"]["nll"]
    assert len({each["val"] for each in found.values()}) == 1, "networks are chosen before a calibrator"
    ours = {name for name in found["ce"] if not name.startswith(("bin", "reject_"))}
    assert ours == SUITE.metrics.columns.keys()
    for each in found.values():
        assert sum(each[f"bin{k:02}_n"] for k in range(1, 11)) == 359
        assert sum(each[f"bin{k:02}_right"] for k in range(1, 11)) == pytest.approx(359 * each["accuracy"])


def test_bins_of_diagrams_have_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confidences at the edges of bins too, where a mean of a bin may round past its edge."""
    confidence = torch.tensor([k / 10 for k in range(1, 11) for _ in range(7)] + [0.35, 0.61], dtype=torch.float64)
    right = (torch.arange(72) % 3 == 0).double()
    monkeypatch.setattr(judging, "top_label", lambda log_p, target: (confidence, right))
    p = torch.rand(72, 4, dtype=torch.float64, generator=stream("test"))
    log_p, target = (p / p.sum(1, keepdim=True)).log(), torch.zeros(72, dtype=torch.int64)
    found = judging.judged({"val": log_p, "test": log_p}, {"test": log_p}, target, target)
    counts = [found[f"bin{k:02}_n"] for k in range(1, 11)]
    assert counts == [7, 7, 7, 8, 7, 7, 8, 7, 7, 7]
    assert sum(found[f"bin{k:02}_right"] for k in range(1, 11)) == right.sum()
    assert sum(found[f"bin{k:02}_conf"] for k in range(1, 11)) == pytest.approx(float(confidence.sum()))


def test_outputs_that_are_no_numbers_are_a_diverged_network() -> None:
    outputs = {"val": torch.tensor([[0.0, float("inf")]]), "test": torch.zeros(1, 2)}
    outcome = Outcome("ok", (0.5,), (0.5,), "0" * 12, 1.0, {}, outputs)
    kept = networks._tensors(outcome)
    assert kept.keys() == {"bits", "seconds"}
    assert networks._tensors(replace(outcome, outputs={"val": torch.zeros(1, 2)})).keys() == {"bits", "seconds", "val"}


def test_the_correctness_aware_calibrators_see_copies() -> None:
    weighted, plain = measured(cells(["correctness_aware", "correctness_aware_plain"], [0]))
    assert weighted.status == plain.status == "ok"
    assert weighted.metrics["changed"] == plain.metrics["changed"] == 0
    assert plain.metrics["ece"] < weighted.metrics["ece"] / 2, "nine in ten predictions are right"


def test_a_diverged_network_is_a_result_of_all_its_methods() -> None:
    wanted = [replace(cell, params={**cell.params, "lr": 3e38}) for cell in cells(["ce", "temperature"], [0])]
    found = measured(wanted)
    assert [record.status for record in found] == ["diverged"] * 2
    shown = board.build(SUITE, QUICK, [], "tuned")
    assert shown.scale.worst == 1
    assert [board.ranked_value(SUITE, record) for record in found] == [1, 1]


def test_shifted_metrics_are_those_of_the_summary() -> None:
    log_p = torch.log_softmax(torch.randn(200, 5, generator=stream("test"), dtype=torch.float64), 1)
    target = torch.arange(200) % 5
    found, whole = judging.main(log_p, target), judging.summary(log_p, target)
    assert found == pytest.approx({name: whole[name] for name in found}, abs=1e-12)


def test_rejectors_are_measured_for_the_control_alone() -> None:
    ce, focal = (measured(cells([id], [0], "train-0.3"))[0].metrics for id in ("ce", "focal"))
    assert not any(name.startswith("reject_") for name in focal)
    assert {name.split("_")[1] for name in ce if name.startswith("reject_")} == set(rejecting.SCORES)
    assert ce["reject_confidence_aurc"] == pytest.approx(ce["aurc"])
    for score in rejecting.SCORES:
        assert ce[f"reject_{score}_at100"] == pytest.approx(1 - ce["accuracy"])
        assert 0 < ce[f"reject_{score}_accepted"] <= 1
    assert (charts.SCORES, charts.COVERAGES, charts.BINS) == (rejecting.SCORES, rejecting.COVERAGES, judging.BINS)


# -- given predictions ------------------------------------------------------------------------------------------------


def answers(name: str) -> Dataset:
    """Twelve images, three classes: what a network says, and what people do."""
    draw = np.random.RandomState(0)
    p = draw.dirichlet([1, 1, 1], 12).astype(np.float32)
    counts = draw.multinomial(20, [0.5, 0.3, 0.2], 12).astype(np.float32)
    features = p if name == "cifar10_cvprobs" else counts
    return Dataset(name, {"test": features}, {"test": np.arange(12) % 3}, 3, ("a", "b", "c"), "tabular", "made")


def test_people_judge_with_every_answer() -> None:
    """The NLL is the cross-entropy of people's distribution, and the accuracy the share who agree."""
    wanted = SUITE.cells(SUITE.track("predictions"), {"ce": METHODS["ce"]}, [0])
    context = run.Context(METHODS, answers)
    by_labels, by_people = (next(iter(predictions.records(protocol.Unit((cell,), 1), context))) for cell in wanted)
    _, val, test = predictions.divided(wanted[0].task.split, 12, 12, stream("cifar10_cvprobs", 0, "split"))
    assert sorted([*val.tolist(), *test.tolist()]) == list(range(12))
    p = torch.from_numpy(answers("cifar10_cvprobs").features["test"]).double()[test]
    p = p / p.sum(1, keepdim=True)
    shares = torch.from_numpy(answers("cifar10h").features["test"]).double()[test] / 20
    assert by_people.metrics["nll"] == pytest.approx(float(-(shares * p.log()).sum(1).mean()), abs=1e-9)
    agree = shares.gather(1, p.argmax(1)[:, None]).mean()
    assert by_people.metrics["accuracy"] == pytest.approx(float(agree), abs=1e-9)
    right = top_label(p.log(), torch.arange(12)[test] % 3)[1]
    assert by_labels.metrics["accuracy"] == pytest.approx(float(right.mean()), abs=1e-9)
    assert by_labels.metrics["val"] == by_people.metrics["val"], "both are fitted to the labels"


# -- charts -----------------------------------------------------------------------------------------------------------


def test_charts_and_their_tables() -> None:
    from lossboard.entries import entries_of

    ids = ["ce", "temperature", "focal", "isotonic"]
    header = run.records.Header("calibration", "m", "s", None, False, {}, {}, "2026-01-01T00:00:00+00:00")
    found = [
        replace(record, header=header)
        for name in ("clean", "train-0.3")
        for i in ids
        for record in measured(cells([i], [0, 1], name))
    ]
    tuned = board.build(SUITE, QUICK, found, "default")
    entries = entries_of(QUICK, tuned, tuned, found)
    figures = charts.figures(QUICK, tuned, entries)
    drawn = {figure.name for figure in figures}
    biases = [figure.caption for figure in figures if "-bias-" in figure.name]
    assert len(biases) == 2
    assert all("beyond 1,000 samples by that of as many quantiles" in caption for caption in biases)
    assert drawn >= {"quick-reliability-digits-clean", "quick-reliability-digits-train-0.3", "quick-risk"}
    tables = {table.name: table for table in charts.tables(QUICK, tuned, entries)}
    assert len(tables["quick-risks"].rows) == 50
    for row in tables["quick-risks"].rows:
        assert row["low"] <= row["risk"] <= row["high"]
    bins = [row for row in tables["quick-reliability"].rows if (row["task"], row["method"]) == ("digits/clean", "ce")]
    assert sum(row["samples"] for row in bins) == pytest.approx(359)
    assert {row["estimator"] for row in tables["quick-estimators"].rows} >= {"ece", "smooth_ece"}


# -- golden cells -----------------------------------------------------------------------------------------------------


def golden(id: str, corruption: str) -> dict[str, object]:
    """A cell's bits, and those of its metrics that a suite shows, as records have them."""
    (record,) = measured(cells([id], [0], corruption))
    shown = {
        key: float(f"{record.metrics[key]:.6g}") for key in ("smooth_ece", "accuracy", "nll", "val", "shifted_nll")
    }
    return {"bits": record.bits, **shown}


def golden_image() -> dict[str, object]:
    cell = protocol.Cell("vector-mmce", image_task(), 0, 0, {"lr": 0.02, **find(METHODS, "vector-mmce").defaults})
    context = run.Context({cell.method: find(METHODS, cell.method)}, pictures)
    (record,) = calibration.run(protocol.Unit((cell,), 1.0), context)
    shown = {
        key: float(f"{record.metrics[key]:.6g}") for key in ("smooth_ece", "accuracy", "nll", "val", "shifted_nll")
    }
    return {"bits": record.bits, **shown}


GOLDEN_CELLS = {
    "calibration-ce": lambda: golden("ce", "train-0.3"),
    "calibration-isotonic-adafocal": lambda: golden("isotonic-adafocal", "clean"),
    "calibration-image": golden_image,
}


@pytest.mark.parametrize("name", GOLDEN_CELLS)
def test_golden_cells(name: str) -> None:
    """Bits where processor and torch are those they were made with, metrics within the tolerance elsewhere.

    If a change of yours moved them and means to: raise ``version`` in suite.toml and write the new numbers.
    """
    known = tomllib.loads(GOLDEN.read_text())
    found = GOLDEN_CELLS[name]()
    here = environment.environment()
    if all(here[key] == known["env"][key] for key in known["env"]):
        assert found == known[name]
    for metric, value in known[name].items():
        if metric != "bits":
            assert found[metric] == pytest.approx(value, abs=SUITE.metrics.tolerance)


def test_networks_are_found_by_what_made_them() -> None:
    """Another seed, rate, loss or source is another artifact."""
    context = run.Context({id: METHODS[id] for id in ("ce", "focal")}, load)
    ce, focal = cells(["ce", "focal"], [0])
    other = [replace(ce, seed=1), replace(ce, params={"lr": 0.5}), focal]
    addresses = [networks._address(cell, context, False) for cell in (ce, *other)]
    addresses.append(networks._address(ce, context, True))
    assert len({artifacts.canonical(made_of) for _, made_of in addresses}) == 5

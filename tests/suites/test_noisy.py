"""The noisy suite: what a cell trains on, and one golden cell whose numbers tell when the harness has moved them."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import suites.noisy as noisy
from lossboard import environment, protocol, run
from lossboard.data import load
from reference import noise

SUITE = protocol.load("noisy")
QUICK = SUITE.track("quick")
GOLDEN = Path(__file__).parent / "golden.toml"


def task(name: str) -> protocol.Task:
    return next(task for task in QUICK.tasks if task.name == name)


def test_quick_is_as_large_as_it_says() -> None:
    methods = run.suite_methods(SUITE)
    assert len(methods) >= 28
    assert len(QUICK.tasks) == 7
    assert len(SUITE.cells(QUICK, methods)) == len(methods) * 7 * 10 * 3


def test_every_corruption_names_a_noise_model() -> None:
    kinds = {task.corruption.kind for task in SUITE.tasks.values()}
    assert kinds <= set(noise.KINDS)


def test_training_and_validation_labels_are_noisy_and_test_labels_are_not() -> None:
    clean, dirty = (noisy.problem(task(f"digits/{name}"), 0, load) for name in ("clean", "uniform-0.6"))
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(clean, part), getattr(dirty, part)), "the split is paired"
    wrong = {
        part: (clean.labels != dirty.labels)[getattr(clean, part)].float().mean().item()
        for part in ("train", "val", "test")
    }
    assert wrong["test"] == 0
    assert wrong["train"] == pytest.approx(0.54, abs=0.05)
    assert wrong["val"] == pytest.approx(0.54, abs=0.09)
    rows = torch.cat([clean.train, clean.val, clean.test])
    assert torch.equal(rows.sort().values, torch.arange(1797)), "every row is in one part"


def test_seeds_draw_their_own_split_and_noise() -> None:
    one, two = (noisy.problem(task("digits/uniform-0.6"), seed, load) for seed in (0, 1))
    assert not torch.equal(one.test, two.test)
    assert not torch.equal(one.labels, two.labels)


def test_units_are_fleets_of_one_method() -> None:
    methods = run.suite_methods(SUITE)
    cells = SUITE.cells(QUICK, {key: methods[key] for key in ("ce", "gce")})
    units = list(noisy.group(cells))
    assert sorted(cell.key for unit in units for cell in unit.cells) == sorted(cell.key for cell in cells)
    assert all(len({cell.method for cell in unit.cells}) == 1 and len(unit.cells) <= noisy.FLEET for unit in units)


def measured(seed: int, trial: int = 0, beside: int = 0) -> dict[str, object]:
    """The golden cell, alone or beside others."""
    methods = run.suite_methods(SUITE)
    cells = [c for c in SUITE.cells(QUICK, {"gce": methods["gce"]}) if c.task.name == "digits/uniform-0.3"]
    wanted = next(c for c in cells if (c.seed, c.trial) == (seed, trial))
    others = [c for c in cells if c is not wanted][:beside]
    unit = protocol.Unit((*others, wanted), 1.0)
    *_, record = noisy.run(unit, run.Context(methods, load))
    return {"bits": record.bits, **{key: float(f"{value:.6g}") for key, value in record.metrics.items()}}


def test_the_golden_cell() -> None:
    """Bits where processor and torch are those it was made with, metrics within the tolerance elsewhere.

    If a change of yours moved them and means to: raise ``version`` in suite.toml and write the new numbers.
    """
    golden = tomllib.loads(GOLDEN.read_text())
    found = measured(seed=0)
    here = environment.environment()
    if all(here[key] == golden["env"][key] for key in golden["env"]):
        assert found == golden["cell"]
    for name in SUITE.metrics.columns:
        assert found[name] == pytest.approx(golden["cell"][name], abs=SUITE.metrics.tolerance)


def test_a_cell_has_the_same_bits_beside_others_and_in_any_order() -> None:
    assert measured(seed=3) == measured(seed=3, beside=11)


def test_hidden_layers_have_the_smaller_of_features_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("lossboard.fleet.fleet", lambda method, runs, hidden, recipe: asked.append(hidden) or [])
    with pytest.raises(ValueError, match="zip"):
        measured(seed=0)
    assert asked == [[10, 10]]


def test_a_convolutional_network_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of digits as 8 by 8 pictures, through the path that MNIST takes."""
    digits = load("digits")
    pictures = {"all": digits.features["all"].reshape(-1, 8, 8, 1)}
    images = replace(digits, name="digits", features=pictures, kind="image")
    recipe = protocol.Recipe(epochs=2, batch=64, lr=0.05)
    small = replace(task("digits/uniform-0.3"), model=protocol.Model("cnn"), recipe=recipe)
    methods = run.suite_methods(SUITE)
    cells = [protocol.Cell("aldr", small, seed, 0, {"lr": 0.05, **methods["aldr"].defaults}) for seed in (0, 1)]
    units = list(noisy.group(cells))
    assert [len(unit.cells) for unit in units] == [1, 1]
    noisy._scaled.cache_clear()
    noisy.problem.cache_clear()
    first = [record for unit in units for record in noisy.run(unit, run.Context(methods, lambda name: images))]
    again = [record for unit in units[::-1] for record in noisy.run(unit, run.Context(methods, lambda name: images))][
        ::-1
    ]
    assert [r.bits for r in first] == [r.bits for r in again]
    assert all(r.status == "ok" and 0 < r.metrics["last"] <= 1 for r in first)

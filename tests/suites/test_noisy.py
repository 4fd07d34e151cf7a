"""The noisy suite: what a cell trains on, and one golden cell whose numbers tell when the harness has moved them."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import suites.noisy as noisy
from lossboard import environment, protocol, run
from lossboard.data import Dataset, load
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
    return result((*others, wanted), load)


def result(cells: tuple[protocol.Cell, ...], data: Callable[[str], Dataset]) -> dict[str, object]:
    """Metrics and bits of the last cell, as records show them."""
    *_, record = noisy.run(protocol.Unit(cells, 1.0), run.Context(run.suite_methods(SUITE), data))
    return {"bits": record.bits, **{key: float(f"{value:.6g}") for key, value in record.metrics.items()}}


def pictures(name: str) -> Dataset:
    """Digits as 8 by 8 images with test rows of their own: the paths of larger datasets, without a download."""
    digits = load("digits")
    x, y = digits.features["all"], digits.labels["all"]
    shape = (-1, 8, 8, 1) if name == "images" else (-1, 64)
    parts = {"train": slice(0, 1300), "test": slice(1300, None)}
    features = {part: x[rows].reshape(shape) for part, rows in parts.items()}
    return replace(digits, name=name, features=features, labels={part: y[rows] for part, rows in parts.items()})


def official(name: str, method: str, model: protocol.Model, schedule: str) -> protocol.Cell:
    """A cell on standardised official splits with class-dependent noise, weight decay and a schedule."""
    recipe = protocol.Recipe(epochs=4, batch=32, lr=0.02, weight_decay=1e-3, schedule=schedule)
    split = protocol.Split("official", val=0.2, train=900, held_out=400)
    noise = protocol.Corruption("class_dependent", 0.3)
    task = replace(QUICK.tasks[0], dataset=name).having(split=split, model=model, recipe=recipe, corruption=noise)
    return protocol.Cell(method, task, 0, 0, {"lr": 0.02, **run.suite_methods(SUITE)[method].defaults})


GOLDEN_CELLS = {
    "mlp": lambda: measured(seed=0),
    "official": lambda: result((official("tables", "tgce", protocol.Model("mlp", layers=2), "step"),), pictures),
    "cnn": lambda: result((official("images", "aldr", protocol.Model("cnn"), "cosine"),), pictures),
}


@pytest.mark.parametrize("name", GOLDEN_CELLS)
def test_golden_cells(name: str) -> None:
    """Bits where processor and torch are those they were made with, metrics within the tolerance elsewhere.

    If a change of yours moved them and means to: raise ``version`` in suite.toml and write the new numbers.
    """
    golden = tomllib.loads(GOLDEN.read_text())
    found = GOLDEN_CELLS[name]()
    here = environment.environment()
    if all(here[key] == golden["env"][key] for key in golden["env"]):
        assert found == golden[name]
    for metric in SUITE.metrics.columns:
        assert found[metric] == pytest.approx(golden[name][metric], abs=SUITE.metrics.tolerance)


def test_a_cell_has_the_same_bits_beside_others_and_in_any_order() -> None:
    assert measured(seed=3) == measured(seed=3, beside=11)


def test_hidden_layers_have_the_smaller_of_features_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("lossboard.fleet.fleet", lambda method, runs, hidden, recipe: asked.append(hidden) or [])
    with pytest.raises(ValueError, match="zip"):
        measured(seed=0)
    assert asked == [[10, 10]]


def test_a_convolutional_network_trains_alone_and_repeats_its_bits() -> None:
    cells = [replace(official("images", "aldr", protocol.Model("cnn"), "step"), seed=seed) for seed in (0, 1)]
    assert [len(unit.cells) for unit in noisy.group([replace(c, task=QUICK.tasks[0]) for c in cells])] == [2]
    images = [replace(cell, task=replace(cell.task, dataset="mnist")) for cell in cells]
    assert [len(unit.cells) for unit in noisy.group(images)] == [1, 1]
    first = [result((cell,), pictures)["bits"] for cell in cells]
    again = [result((cell,), pictures)["bits"] for cell in cells[::-1]][::-1]
    assert first == again
    assert first[0] != first[1]

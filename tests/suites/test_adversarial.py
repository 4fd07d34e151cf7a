"""The adversarial suite: methods, networks that are shared and resumed, records of masked defences, golden cells."""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suites.adversarial as adversarial
from lossboard import artifacts, board, defend, environment, protocol, reproduction, run, sources
from lossboard.data import Dataset, load
from lossboard.data.made import PLANE_HALF
from lossboard.entries import entries_of, remarks
from lossboard.errors import UsageError
from lossboard.problem import Run
from lossboard.records import Header, Record
from reference.corruptions import corruptions
from reference.methods import Method, catalogue, find
from suites.adversarial import charts, judging, networks, pictures
from suites.adversarial.claims import CLAIMS, LINF, TAUS

SUITE = protocol.load("adversarial")
METHODS = run.suite_methods(SUITE)
QUICK = SUITE.track("quick")
GOLDEN = Path(__file__).parent / "golden_adversarial.toml"
CONTEXT = run.Context(METHODS, load)
FOLDER = artifacts.folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts of the tests lie in a folder of their own."""
    monkeypatch.setattr("lossboard.artifacts.folder", lambda: tmp_path / "artifacts")


def short(task: protocol.Task, epochs: int = 2) -> protocol.Task:
    """The same, trained and attacked briefly."""
    threat, how = (
        replace(task.parts["threat"], steps=3),
        adversarial.Judging(steps=3, auto_steps=5, targets=2, queries=10, checked=30),
    )
    return task.having(recipe=replace(task.recipe, epochs=epochs), threat=threat, judging=how)


def cell(id: str, task: protocol.Task, seed: int = 0, **params: float) -> protocol.Cell:
    return protocol.Cell(id, task, seed, 0, {"lr": task.recipe.lr, **find(METHODS, id).defaults, **params})


def task(name: str) -> protocol.Task:
    return next(task for task in SUITE.tasks.values() if task.name == name)


DIGITS, PLANE, LENGTH = task("digits/linf-0.1"), task("plane/linf-0.04"), task("digits/l2-0.6")


# -- methods ----------------------------------------------------------------------------------------------------------


def test_methods_are_all_defences_and_those_that_the_question_is_about() -> None:
    assert METHODS.keys() >= catalogue("defence").keys() | {"at-gce", "at-sqen", "at-poly1"}
    taus = {METHODS[id].defaults["tau"]: id for id in TAUS.values()}
    assert {f"{tau:g}": id for tau, id in taus.items()} == TAUS
    assert all("tau" not in METHODS[id].search for id in TAUS.values())
    assert find(METHODS, "trades-gce").id == "trades-gce"


def test_a_defence_that_needs_others_is_stale_when_they_change() -> None:
    parts = set(METHODS["mtard"].module.split("+"))
    assert {catalogue("defence")[id].module.split("+")[0] for id in ("mtard", "standard", "at")} <= parts
    assert sources.source(METHODS["mtard"].module) is not None


def test_bounds_of_a_box_stay_out_of_tasks_with_lengths() -> None:
    length = {cell.method for cell in SUITE.cells(SUITE.track("cpu"), METHODS) if cell.task.id == LENGTH.id}
    assert METHODS.keys() - length == {"ibp"}
    assert [part.name for part in SUITE.track("cpu").divisions] == ["cpu-linf", "cpu-l2"]


def test_units_are_a_defence_and_a_task_and_of_images_a_seed() -> None:
    cells = [c for track in SUITE.tracks.values() for c in SUITE.cells(track, METHODS)]
    units = list(adversarial.group(cells))
    assert sorted(c.key for unit in units for c in unit.cells) == sorted(c.key for c in cells)
    for unit in units:
        assert len({(c.method, c.task.id) for c in unit.cells}) == 1
        seeds = {c.seed for c in unit.cells}
        assert len(seeds) > 1 if unit.cells[0].task.model.kind == "mlp" else len(seeds) == 1
        assert unit.cost > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": 0.0},
        {"eps": float("nan")},
        {"eps": 0.1, "step": float("inf")},
        {"eps": 0.1, "norm": "l1"},
        {"eps": 0.1, "ramp": 2.0},
    ],
)
def test_a_threat_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        adversarial.Threat(**wrong)  # type: ignore[arg-type]


def test_claims_are_about_tasks_methods_and_metrics_that_there_are() -> None:
    for claim in CLAIMS:
        for part in claim.parts:
            assert any(part.on.holds(task) for task in SUITE.tasks.values()), claim.id
            assert {part.ours, part.other} <= METHODS.keys(), claim.id
            assert part.metric in SUITE.metrics.columns, claim.id
    assert not LINF.holds(LENGTH)


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "shape"), [(DIGITS, (1, 8, 8)), (PLANE, (2, 1, 1))])
def test_rows_are_images_in_the_unit_box(where: protocol.Task, shape: tuple[int, ...]) -> None:
    rows = networks.problem(where, 0, load)
    assert rows.features.shape[1:] == shape
    assert rows.features.min() >= 0
    assert rows.features.max() == pytest.approx(1, abs=0.03)
    parts = [set(part.tolist()) for part in (rows.train, rows.val, rows.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


def test_classes_of_the_plane_are_squares_that_are_apart() -> None:
    data = load("plane")
    for split in ("train", "test"):
        x, y = data.features[split], data.labels[split]
        place = np.floor(3 * x).astype(int)
        assert (np.abs(x - (2 * place + 1) / 6) <= PLANE_HALF + 1e-6).all()
        around = {(0, 0): 0, (1, 0): 1, (2, 0): 2, (2, 1): 3, (2, 2): 0, (1, 2): 1, (0, 2): 2, (0, 1): 3}
        assert [around[a, b] for a, b in place.tolist()] == y.tolist()


def test_corruptions_change_images_and_stay_in_the_box() -> None:
    rows = networks.problem(DIGITS, 0, load)
    x = rows.features[rows.test[:20]]
    known = corruptions(x.shape)
    assert len(known) == 5
    for name, corrupt in known.items():
        one, two = (corrupt(x, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(one, two), name
        assert one.shape == x.shape
        assert one.min() >= 0
        assert one.max() <= 1
        assert 0.01 < (one - x).abs().mean() < 0.4, name
    assert corruptions(torch.Size((5, 2, 1, 1))).keys() == {"noise"}


# -- networks ---------------------------------------------------------------------------------------------------------


def test_networks_that_others_need_are_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    whole = defend.defend

    def watched(method: Method, *given: Any, **named: Any) -> list[defend.Defended]:
        trained.append(method.id)
        return whole(method, *given, **named)

    monkeypatch.setattr(defend, "defend", watched)
    where = short(PLANE)
    ids = ("crossmax", "at", "mtard", "adaptive_smoothing", "trades")
    found = {id: networks.network(cell(id, where), CONTEXT) for id in ids}
    assert sorted(trained) == ["at", "mart", "mtard", "standard", "trades"]
    assert found["mtard"].passes > found["at"].passes
    again = networks.network(cell("at", where), CONTEXT)
    assert trained.count("at") == 1
    assert again.bits == found["at"].bits
    x = networks.problem(where, 0, load).features[:7]
    assert torch.equal(again.model(x), found["at"].model(x))
    assert found["crossmax"].model(x).shape == (7, 4)


def test_small_networks_are_trained_at_once_and_each_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that they learn from; a cell has the same network alone."""
    counts: list[tuple[str, int]] = []
    whole = defend.defend

    def watched(method: Method, runs: Sequence[Run], *given: Any, **named: Any) -> list[defend.Defended]:
        counts.append((method.id, len(runs)))
        return whole(method, runs, *given, **named)

    monkeypatch.setattr(defend, "defend", watched)
    where = short(PLANE)
    first = networks.network(cell("at", where, seed=1), CONTEXT)
    cells = [cell("mtard", where, seed) for seed in range(3)]
    cells.append(cell("mtard", where, 1, lr=0.05))
    found = networks.networks(cells, CONTEXT)
    assert counts == [("at", 1), ("standard", 3), ("at", 2), ("mtard", 4)]
    assert networks.network(cell("at", where, seed=1), CONTEXT).bits == first.bits
    assert len({one.bits for one in found}) == 4
    for file in artifacts.folder().glob("*.safetensors"):
        file.unlink()
    assert networks.network(cells[1], CONTEXT).bits == found[1].bits


def test_a_run_that_was_killed_goes_on_at_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = short(DIGITS, epochs=3).having(model=replace(DIGITS.model, kind="cnn", width=2))
    where = cell("trades", images, seed=1)
    whole = networks.network(where, CONTEXT)
    for file in artifacts.folder().glob("*.safetensors"):
        file.unlink()
    epoch, done, dies = defend.Loop.epoch, list[int](), [True]

    def watched(loop: defend.Loop) -> None:
        if loop.done == 2 and dies:
            dies.clear()
            raise KeyboardInterrupt
        done.append(loop.done)
        epoch(loop)

    monkeypatch.setattr(defend.Loop, "epoch", watched)
    with pytest.raises(KeyboardInterrupt):
        networks.network(where, CONTEXT)
    assert len(list(artifacts.folder().glob("*.checkpoint"))) == 1
    resumed = networks.network(where, CONTEXT)
    assert done == [0, 1, 2]
    assert (resumed.bits, resumed.passes, resumed.robust_val) == (whole.bits, whole.passes, whole.robust_val)
    assert not list(artifacts.folder().glob("*.checkpoint"))


def test_how_a_network_is_judged_does_not_decide_it() -> None:
    one = short(PLANE)
    other = one.having(judging=adversarial.Judging(4))
    assert one.id != other.id
    made = [networks._made_of(cell("at", where), METHODS["at"]) for where in (one, other)]
    assert made[0] == made[1]
    assert made[0] != networks._made_of(cell("at", one.having(recipe=replace(one.recipe, lr=0.1))), METHODS["at"])


def test_passes_count_the_search() -> None:
    """Standard training has one pass of a row an epoch, adversarial training with three steps four."""
    where = short(PLANE)
    seen = 9 * 64 / 600 * 2  # whole batches, two epochs
    assert networks.network(cell("standard", where), CONTEXT).passes == pytest.approx(seen)
    assert networks.network(cell("at", where), CONTEXT).passes == pytest.approx(4 * seen)
    assert networks.network(cell("trades", where), CONTEXT).passes == pytest.approx(5 * seen)


# -- records ----------------------------------------------------------------------------------------------------------


def measured(where: protocol.Cell) -> Record:
    (found,) = adversarial.run(protocol.Unit((where,), 1.0), CONTEXT)
    assert found.status == "ok"
    return found


def test_what_is_reproduced_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its network is kept."""
    epoch, trained = defend.Loop.epoch, list[int]()
    monkeypatch.setattr(defend.Loop, "epoch", lambda loop: trained.append(loop.done) or epoch(loop))
    monkeypatch.setattr(artifacts, "folder", FOLDER)
    monkeypatch.setattr("lossboard.paths.local", lambda: tmp_path)
    where = cell("standard", short(PLANE))
    assert measured(where).bits == measured(where).bits
    assert trained == [0, 1]
    again = reproduction._again("adversarial", tmp_path / "again", where)
    assert trained == [0, 1, 0, 1]
    assert again.bits == measured(where).bits
    assert len(trained) == 4


@pytest.mark.parametrize("id", ["ibp", "crossmax"])
def test_no_attack_leaves_less_than_their_worst_and_bounds_prove_no_more(id: str) -> None:
    found = measured(cell(id, short(PLANE, epochs=8))).metrics
    assert all(found["robust"] <= found[name] for name in ("clean", "fgsm", "pgd", "apgd", "square"))
    assert found["worst_class"] <= found["robust"]
    assert ("certified" in found) is (id == "ibp")
    assert ("transfer" in found) is (id == "crossmax")
    assert found["robust"] <= found.get("transfer", 1.0)
    assert found.get("certified", 0.0) <= found["robust"]
    curve = [found["clean"], *(found[f"robust_at_{size:g}"] for size in judging.SIZES)]
    assert id == "ibp" or curve == sorted(curve, reverse=True), "what fools a row in a ball does in larger ones"
    assert all(0 <= found[name] <= 1 for name in ("power_fit", "corrupted", "robust_val", "tightness") if name in found)


class Masked(nn.Module):
    """A network behind a mask."""

    def __init__(self, network: networks.Model, mask: Callable[[networks.Model, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.mask = network, mask

    def forward(self, x: Tensor) -> Tensor:
        return self.mask(self.network, x)


MASKS: dict[str, tuple[Callable[[networks.Model, Tensor], Tensor], str]] = {
    "quantised input": (lambda network, x: network((5 * x).round() / 5), "the loss does not rise along its gradient"),
    "tiny logits": (lambda network, x: 1e-10 * network(x), "the loss does not rise along its gradient"),
    "random noise": (lambda network, x: network(x + 0.3 * torch.randn_like(x)), "predictions are random"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_defence_that_masks_its_gradients_is_flagged_with_the_reason(name: str) -> None:
    torch.manual_seed(0)
    where = cell("standard", short(DIGITS, epochs=6))
    network, rows = networks.network(where, CONTEXT), networks.problem(where.task, 0, load)
    honest = judging.judged(where, network, rows)
    assert honest["reliable"] == 1
    assert adversarial.remark(honest) == ""
    mask, reason = MASKS[name]
    found = judging.judged(where, replace(network, model=Masked(network.model, mask)), rows)
    assert found["reliable"] == 0
    assert adversarial.remark(found).startswith("unreliable: ")
    assert reason in adversarial.remark(found)


def test_a_combination_that_hides_its_members_is_flagged() -> None:
    """Behind rounded scores no gradient leads anywhere; attacks on the members do."""
    where = cell("crossmax", short(DIGITS, epochs=6))
    network, rows = networks.network(where, CONTEXT), networks.problem(where.task, 0, load)

    def rounded(x: Tensor) -> Tensor:
        return network.model(x).mul(4).round()

    found = judging.judged(where, replace(network, model=rounded), rows)
    assert found["transfer"] < found["apgd"]
    assert "an attack on the networks that it combines" in adversarial.remark(found)


def test_attacks_through_others_leave_out_what_is_fooled_already() -> None:
    """Of the rows that are given, and of those the ones that the first of two attacks left."""
    seen: list[int] = []
    rows = networks.problem(PLANE, 0, load)
    x, y = rows.features[rows.test[:40]], rows.labels[rows.test[:40]]
    own = torch.eye(rows.classes)

    def model(at: Tensor) -> Tensor:  # always right
        seen.append(len(at))
        return own[y[: len(at)]]

    among = torch.arange(40) < 30
    test = judging.Target(model, x, y, PLANE.parts["threat"], lambda name: torch.Generator().manual_seed(0), 1024)
    surrogate = networks.network(cell("standard", short(PLANE)), CONTEXT).model
    left = judging.through(test, [surrogate, surrogate], 0.04, among)
    assert torch.equal(left, among), "nothing fools it"
    assert set(seen) == {30}
    fooled = judging.Target(lambda at: -own[y[: len(at)]], x, y, test.threat, test.stream, 1024)
    calls: list[int] = []

    def noted(at: Tensor) -> Tensor:
        calls.append(len(at))
        return surrogate(at)

    assert not judging.through(fooled, [surrogate, noted], 0.04, among).any()
    assert calls == [], "no row is left for the second"


def test_an_attack_on_another_network_keeps_the_point_that_fools_this_one() -> None:
    """Also one that it passes by: the model is wrong within a thin shell around each input, and nowhere else."""
    where = cell("standard", short(PLANE))
    surrogate, rows = networks.network(where, CONTEXT).model, networks.problem(where.task, 0, load)
    x, y = rows.features[rows.test[:50]], rows.labels[rows.test[:50]]
    eps, own = 0.1, torch.eye(rows.classes)[y]

    def model(at: Tensor) -> Tensor:
        length = (at - x).flatten(1).abs().amax(1)
        shell = (length > 0.9 * eps) & (length < eps - 1e-4)
        return torch.where(shell[:, None], -own, own)

    how: dict[str, Any] = {"surrogate": surrogate, "eps": eps, "norm": "linf"}
    found = judging.transfer(model, x, y, generator=torch.Generator().manual_seed(0), **how)
    assert (found - x).abs().max() <= eps + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    fooled = model(found).argmax(1) != y
    assert fooled.float().mean() > 0.5
    assert torch.equal(found[~fooled], x[~fooled])


def test_what_is_unreliable_is_said_on_the_board() -> None:
    header = Header("adversarial", METHODS["at"].module, "", None, False, {}, {}, "2026-01-01T00:00:00Z", "x")
    made = replace(header, source=sources.source(METHODS["at"].module) or "")
    part = QUICK.divisions[0]
    metrics = {"robust": 0.5, "robust_val": 0.5, "masked_black_box": 1.0}
    found = [
        Record("at", task.name, task.id, seed, 0, {"lr": 0.3}, "ok", metrics, header=made)
        for task in part.tasks
        for seed in range(5)
    ]
    shown = board.build(SUITE, part, found)
    said = remarks("adversarial", entries_of(part, shown, shown, found))
    words = "unreliable: an attack without gradients beats the one with them (digits/linf-0.1, plane/linf-0.04)"
    assert said == {"at": words}


def test_power_laws() -> None:
    assert judging.power_law({eps: 0.3 * eps**1.5 for eps in judging.SMALL}) == pytest.approx((1, 1.5))
    assert judging.power_law({0.1: 0.0, 0.2: 0.1, 0.4: 0.2}) is None
    assert judging.power_law({0.1: 0.1, 0.2: 0.1, 0.4: 0.1}) is None
    bent = judging.power_law({0.1: 0.1, 0.2: 0.3, 0.4: 0.1})
    assert bent is not None
    assert bent[0] < 0.1


def test_pictures_survive_a_record() -> None:
    digits = [int(x) for x in torch.randint(10, (196,), generator=torch.Generator().manual_seed(0))]
    kept = {name: float(f"{value:.6g}") for name, value in pictures.packed("a", digits).items()}
    assert pictures.unpacked("a", kept, 196) == digits
    assert pictures.unpacked("a", kept, 300) == []
    assert charts.SIZES == judging.SIZES


@pytest.mark.parametrize("kind", ["preact_resnet18", "cnn"])
def test_images_of_the_long_tracks_are_loaded_trained_on_and_attacked(kind: str) -> None:
    """Networks of their kinds, narrow, on made images in their form."""
    channels, side = (3, 32) if kind == "preact_resnet18" else (1, 28)
    random = np.random.RandomState(0)
    labels = {"train": np.arange(80) % 10, "test": np.arange(20) % 10}
    pixels = {
        name: (random.randint(0, 100, (len(y), side, side, channels)) + 15 * y[:, None, None, None]).astype(np.uint8)
        for name, y in labels.items()
    }
    where = next(task for task in SUITE.tasks.values() if task.model.kind == kind)

    def data(name: str) -> Dataset:
        return replace(load("digits"), name=name, features=pixels, labels=labels, classes=10)

    recipe = replace(where.recipe, epochs=1, batch=16)
    small = short(where).having(model=replace(where.model, width=2), recipe=recipe)
    unit = protocol.Unit((cell("trades", small, seed=1),), 1.0)
    (found,) = adversarial.run(unit, run.Context(METHODS, data))
    assert found.status == "ok"
    assert found.metrics["robust"] <= found.metrics["clean"]
    assert ("certified" in found.metrics) is (kind == "cnn")
    rows = networks.problem(small, 1, data)
    assert rows.features.shape == (100, channels, side, side)
    assert rows.features.min() >= 0
    assert rows.features.max() <= 1


# -- golden -----------------------------------------------------------------------------------------------------------

GOLDEN_CELLS = {"plane": ("trades", PLANE.name), "digits": ("mart", LENGTH.name)}


@pytest.mark.parametrize("name", GOLDEN_CELLS)
def test_golden_cells(name: str) -> None:
    """Bits where processor and torch are those they were made with, metrics within the tolerance elsewhere.

    If a change of yours moved them and means to: raise ``version`` in suite.toml and write the new numbers.
    """
    golden = tomllib.loads(GOLDEN.read_text())
    id, where = GOLDEN_CELLS[name]
    record = measured(cell(id, task(where), seed=1))
    found = {"bits": record.bits, **{key: float(f"{value:.6g}") for key, value in record.metrics.items()}}
    assert found.keys() <= {"bits", *SUITE.metrics.columns}, "every metric has its words"
    here = environment.environment()
    if all(here[key] == golden["env"][key] for key in golden["env"]):
        assert found == golden[name]
    assert found.keys() == golden[name].keys()
    for metric in ("clean", "robust", "corrupted"):
        assert found[metric] == pytest.approx(golden[name][metric], abs=SUITE.metrics.tolerance)

"""The multi-label suite: what a cell trains on, and golden cells whose numbers tell when the harness has moved them."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import suites.multilabel as multilabel
from lossboard import environment, protocol, run
from lossboard.data import load, pins
from lossboard.problem import MultiLabel, Problem
from reference.partial import KINDS
from reference.tails import exponential, sizes
from suites.multilabel.claims import CLAIMS, DENSE, SPARSE
from suites.multilabel.density import DENSITY

SUITE = protocol.load("multilabel")
METHODS = run.suite_methods(SUITE)
QUICK, CPU = SUITE.track("quick"), SUITE.track("cpu")
GOLDEN = Path(__file__).parent / "golden_multilabel.toml"
PARTIAL = {"single-positive", "partial"}


def task(name: str) -> protocol.Task:
    return next(task for task in QUICK.tasks if task.name == name)


def label_sets(name: str, seed: int = 0) -> MultiLabel:
    found = multilabel.problem(task(name), seed, load)
    assert isinstance(found, MultiLabel)
    return found


def tail(name: str, seed: int = 0) -> Problem:
    return multilabel.problem(task(name), seed, load)


def test_boards_and_who_stands_on_them() -> None:
    assert [part.title for part in QUICK.divisions] == ["quick, multilabel", "quick, partial", "quick, longtail"]
    assert [part.name for part in CPU.divisions] == ["cpu-multilabel", "cpu-many", "cpu-partial", "cpu-longtail"]
    entered = {}
    for part in CPU.divisions:
        entered[part.name] = {cell.method for cell in SUITE.cells(part, METHODS, [0])}
    tagged = {id for id, method in METHODS.items() if PARTIAL & set(method.tags)}
    every = {id for id, method in METHODS.items() if method.kind == "multilabel"}
    assert entered["cpu-multilabel"] == every - tagged
    assert entered["cpu-many"] == every - tagged - {"neural_ndcg"}
    assert entered["cpu-partial"] == tagged | {"bce", "wbce", "asl", "mlfocal", "dsm"}
    assert entered["cpu-longtail"] == METHODS.keys() - every
    assert len(every) >= 25


def test_the_thirteen_sets_of_mulan_are_on_track_cpu() -> None:
    published = {name for name, pin in pins().items() if pin.kind == "multilabel" and not pin.bundled}
    assert len(published) == 13
    assert published == {task.dataset for task in CPU.tasks if task.corruption.kind == "everything"}
    assert all(len(block.seeds) == 5 and block.budget != protocol.Budget() for block in CPU.blocks)


def test_every_kind_of_corruption_is_known() -> None:
    assert {task.corruption.kind for task in SUITE.tasks.values()} <= {*KINDS, multilabel.TAIL}


@pytest.mark.parametrize("name", ["documents", "digit_pairs"])
def test_one_label_of_each_row_is_seen_and_test_rows_show_all(name: str) -> None:
    full, single = label_sets(f"{name}/full"), label_sets(f"{name}/single-positive")
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(full, part), getattr(single, part)), "the split is paired"
    rows = torch.cat([full.train, full.val])
    assert full.seen is None
    assert torch.equal(full.labels, full.clean)
    assert torch.equal(single.labels[rows].sum(1), full.labels[rows].any(1).long()), "one of each row that has any"
    assert ((single.labels == 1) <= (single.clean == 1)).all()
    assert torch.equal(single.labels[full.test], full.clean[full.test])
    assert single.seen is not None
    assert torch.equal(single.seen[rows], single.labels[rows])
    assert single.seen[full.test].all()


def test_hidden_entries_are_hidden_whatever_they_are() -> None:
    found = label_sets("documents/hidden-0.5")
    rows = torch.cat([found.train, found.val])
    assert found.seen is not None
    for value in (0, 1):
        assert found.seen[rows][found.clean[rows] == value].float().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(found.labels, found.clean * found.seen)


def test_rows_that_training_has_seen_are_told_from_new_ones() -> None:
    """Against sets of rows' bytes, and pairs of digits of which a half is blank."""
    found = label_sets("digit_pairs/full")
    x = found.features.numpy()
    seen = {x[row].tobytes() for row in torch.cat([found.train, found.val]).tolist()}
    assert found.new.tolist() == [x[row].tobytes() not in seen for row in found.test.tolist()]
    assert 0.5 < found.new.float().mean() < 1, "blank halves repeat"


def test_a_long_tail_is_of_one_size_for_every_seed() -> None:
    shapes = set()
    for seed in range(3):
        found = tail("digits/tail-0.03", seed)
        counts = found.labels[torch.cat([found.train, found.val])].bincount(minlength=10)
        assert counts.tolist() == sizes(int(counts[0]), 10, 0.03)
        assert not set(found.test.tolist()) & set(torch.cat([found.train, found.val]).tolist())
        shapes.add((len(found.train), len(found.val), len(found.test)))
    assert len(shapes) == 1
    assert torch.equal(tail("digits/tail-1").test, tail("digits/tail-0.03").test), "tails are judged on the same rows"


def test_a_steeper_tail_leaves_rows_of_the_other() -> None:
    labels = torch.arange(4).repeat(50)
    kept = [exponential(labels, 4, ratio, torch.Generator().manual_seed(0)) for ratio in (1.0, 0.1, 0.02)]
    assert [len(rows) for rows in kept] == [sum(sizes(50, 4, ratio)) for ratio in (1.0, 0.1, 0.02)]
    assert set(kept[2].tolist()) < set(kept[1].tolist()) < set(kept[0].tolist())
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        exponential(labels, 4, 0.0, torch.Generator())
    with pytest.raises(ValueError, match="no row"):
        exponential(labels, 5, 0.1, torch.Generator())


@pytest.mark.parametrize("name", [name for name in DENSITY if pins()[name].bundled])
def test_densities_of_the_chart(name: str) -> None:
    labels = np.concatenate([rows for _, rows in sorted(load(name).labels.items())])
    assert labels.mean() == pytest.approx(DENSITY[name], abs=0.0006)


def test_units_are_fleets_whose_runs_have_rows_alike() -> None:
    cells = SUITE.cells(QUICK, {key: METHODS[key] for key in ("bce", "ce")})
    units = list(multilabel.group(cells))
    assert sorted(cell.key for unit in units for cell in unit.cells) == sorted(cell.key for cell in cells)
    for unit in units:
        problems = [multilabel.problem(cell.task, cell.seed, load) for cell in unit.cells]
        assert len({(len(one.train), len(one.val), len(one.test), id(one.features)) for one in problems}) <= 2
        assert len({len(one.train) for one in problems}) == 1
        assert len({cell.method for cell in unit.cells}) == 1


def test_claims_are_about_tasks_and_methods_that_there_are() -> None:
    for claim in CLAIMS:
        for part in claim.parts:
            for on in (part.on, part.beyond or part.on):
                assert any(on.holds(task) for task in SUITE.tasks.values()), claim.id
            assert {part.ours, part.other} <= METHODS.keys(), claim.id
            assert not part.metric or part.metric in SUITE.metrics.columns, claim.id


def test_sets_whose_rows_have_few_labels_are_told_apart_by_their_densities() -> None:
    board = [task.dataset for task in SUITE.track("cpu-multilabel").tasks]
    sparse, dense = ({*on.datasets} & {*board} for on in (SPARSE, DENSE))
    assert sparse == {"birds", "enron", "medical", "genbase", "tmc2007_500"}
    assert sparse | dense == {*board}, "a difference of gains is judged on the one board that has both"


def test_the_claim_of_decoupled_softmax_is_about_many_labels() -> None:
    (part,) = next(claim for claim in CLAIMS if claim.id == "dsm-over-softmax").parts
    judged = {task.dataset for task in SUITE.tasks.values() if part.on.holds(task)}
    assert judged == {"cal500", "bibtex", "corel5k", "delicious"}


def measured(method: str, name: str, seed: int, beside: int = 0) -> dict[str, object]:
    """Metrics and bits of a cell at the author's defaults, alone or beside others, as records show them."""
    cells = [c for c in SUITE.cells(QUICK, {method: METHODS[method]}) if c.task.name == name]
    wanted = next(c for c in cells if (c.seed, c.trial) == (seed, 0))
    others = [c for c in cells if c is not wanted][:beside]
    *_, record = multilabel.run(protocol.Unit((*others, wanted), 1.0), run.Context(METHODS, load))
    assert record.status == "ok"
    return {"bits": record.bits, **{key: float(f"{value:.6g}") for key, value in record.metrics.items()}}


GOLDEN_CELLS = {
    "documents": ("db", "documents/full"),
    "pairs": ("role", "digit_pairs/single-positive"),
    "tail": ("logit_adjusted", "digits/tail-0.03"),
}


@pytest.mark.parametrize("name", GOLDEN_CELLS)
def test_golden_cells(name: str) -> None:
    """Bits where processor and torch are those they were made with, metrics within the tolerance elsewhere.

    If a change of yours moved them and means to: raise ``version`` in suite.toml and write the new numbers.
    """
    golden = tomllib.loads(GOLDEN.read_text())
    found = measured(*GOLDEN_CELLS[name], seed=0)
    assert found.keys() <= {"bits", *SUITE.metrics.columns}, "every metric has its words"
    here = environment.environment()
    if all(here[key] == golden["env"][key] for key in golden["env"]):
        assert found == golden[name]
    assert found.keys() == golden[name].keys()
    for metric in found.keys() - {"bits"}:
        assert found[metric] == pytest.approx(golden[name][metric], abs=SUITE.metrics.tolerance, rel=0.03)


def test_a_cell_has_the_same_bits_beside_others() -> None:
    assert measured("em_apl", "documents/hidden-0.5", 3) == measured("em_apl", "documents/hidden-0.5", 3, beside=11)

"""Batches that came with a pull request are held to what they must be; each way to tamper with one is refused."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy

from lossboard import protocol, records

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that publishes the control and others on main, and method "two" on a branch."""
    made = toy.make(tmp_path_factory.mktemp("published") / "checkout")
    _git(made, "init", "--quiet", "--initial-branch", "main")
    (made / ".gitignore").write_text(".lossboard/\n__pycache__/\n*-[0-9]\n")
    _commit(made, "code")
    assert toy.call(made, "run", "toy", "--no-page", "--only", "one,three").returncode == 0
    assert toy.call(made, "submit", "toy", "--only", "one,three").returncode == 0
    _commit(made, "records")
    _git(made, "checkout", "--quiet", "-b", "mine")
    assert toy.call(made, "run", "toy", "--no-page", "--only", "one,two", "--fresh").returncode == 0
    assert toy.call(made, "submit", "toy", "--only", "one,two").returncode == 0
    _commit(made, "my records")
    return made


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "checkout", symlinks=True)


def _git(root: Path, *args: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True, text=True).stdout


def _commit(root: Path, message: str) -> None:
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "--message", message)


def _batch(root: Path, method: str = "two") -> Path:
    (path,) = (root / "results" / "toy" / method).glob("*.jsonl")
    return path


def _tampered(root: Path, change: Callable[[dict[str, Any], list[dict[str, Any]]], None], method: str = "two") -> Path:
    """The batch changed, and renamed to what its content hashes to now."""
    path = _batch(root, method)
    top, *rows = map(json.loads, path.read_text().splitlines())
    change(top, rows)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (top, *rows))
    path.unlink()
    renamed = records.batch_path(root / "results", "toy", method, text)
    renamed.write_text(text)
    return renamed


def _inspected(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return toy.call(root, "inspect", *args)


def test_what_was_sealed_as_it_should_passes(root: Path) -> None:
    found = _inspected(root, "--since", "main")
    assert found.returncode == 0, found.stderr
    assert "2 batches: nothing wrong" in found.stdout


def _drop_a_seed(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[:] = [row for row in rows if row["seed"] != 3]


def _drop_the_worst_trial(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[:] = [row for row in rows if row["trial"] == 1]


def _impossible(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[0]["last"] = 1.2


def _other_rate(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[0]["params"]["lr"] = 0.3


TAMPERED = {
    "seeds dropped": (_drop_a_seed, "a block is published whole"),
    "trials dropped": (_drop_the_worst_trial, "a block is published whole"),
    "an impossible value": (_impossible, "last = 1.2"),
    "another learning rate": (_other_rate, "the budget says"),
    "another dataset": (lambda top, rows: top["data"].update(digits="0" * 12), "made with other data"),
    "another source": (lambda top, rows: top.update(source="0" * 12), "another source"),
    "uncommitted changes": (lambda top, rows: top.update(dirty=True), "uncommitted changes"),
    "no control": (lambda top, rows: top.update(control="0" * 12), "no batch of the control"),
    "a control elsewhere": (lambda top, rows: top.update(control="../../one"), "no batch of the control"),
    "an unknown task": (lambda top, rows: rows[0].update(id="0" * 12), "does not pin"),
    "a task's name": (lambda top, rows: rows[0].update(task="<script>alert(1)</script>"), "has the id of"),
    "a metric of its own": (lambda top, rows: rows[0].update(best=0.5), "no metric 'best'"),
    "rows in another order": (lambda top, rows: rows.reverse(), "not in the canonical form"),
    "more digits": (lambda top, rows: rows[0].update(last=0.12345678), "not in the canonical form"),
    "negative time": (lambda top, rows: rows[0].update(seconds=-1.0), "took -1.0 seconds"),
    "a script for a method": (lambda top, rows: top.update(method="<script>"), "an id is letters"),
    "a script for a module": (lambda top, rows: top.update(module="os; import x"), "must be a dotted module name"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_batch_is_refused_with_the_reason(root: Path, case: str) -> None:
    change, said = TAMPERED[case]
    found = _inspected(root, str(_tampered(root, change)))
    assert found.returncode == 1
    assert said in found.stderr


def test_a_batch_in_another_methods_folder_is_refused(root: Path) -> None:
    path = _batch(root)
    moved = path.parent.parent / "three" / path.name
    shutil.move(path, moved)
    assert "move it back" in _inspected(root, str(moved)).stderr


def test_an_edited_batch_keeps_its_name_no_longer(root: Path) -> None:
    path = _batch(root)
    path.write_text(path.read_text().replace('"last":0.2', '"last":0.9', 1))
    assert "a batch is never edited" in _inspected(root, str(path)).stderr


def test_a_control_that_is_off_is_refused(root: Path) -> None:
    def better(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["last"] = round(row["last"] + 0.2, 6)

    old = {path.stem for path in (root / "results" / "toy" / "one").glob("*.jsonl")}
    new = set(_git(root, "diff", "--name-only", "main", "--", "results/toy/one").split())
    (mine,) = (root / name for name in new)
    top, *rows = map(json.loads, mine.read_text().splitlines())
    better(top, rows)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (top, *rows))
    mine.unlink()
    control = records.batch_path(root / "results", "toy", "one", text)
    control.write_text(text)
    path = _tampered(root, lambda top, rows: top.update(control=control.stem))
    assert control.stem not in old
    found = _inspected(root, str(path), str(control))
    assert found.returncode == 1
    assert "the control is off on digits/clean" in found.stderr


def test_published_records_are_neither_edited_nor_deleted(root: Path) -> None:
    _batch(root, "three").write_text("{}\n")
    (root / "results" / "toy" / "three" / "note.txt").write_text("hello")
    _commit(root, "edited")
    found = _inspected(root, "--since", "main")
    assert "never edited" in found.stderr
    assert "holds batches alone" in found.stderr
    _batch(root, "three").unlink()
    _commit(root, "deleted")
    assert "never deleted" in _inspected(root, "--since", "main").stderr


def test_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    path = _batch(root)
    elsewhere = shutil.move(path, tmp_path / path.name)
    path.symlink_to(elsewhere)
    assert "no plain file" in _inspected(root, str(path)).stderr


def test_a_single_forged_value_is_found_by_measuring_again(root: Path) -> None:
    def forged(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[0]["last"] = 0.9

    path = _tampered(root, forged)
    assert _inspected(root, str(path)).returncode == 0, "it looks like any other"
    found = toy.call(root, "reproduce", "toy", "--only", "two", "--sample", "100")
    assert found.returncode == 1
    assert "1 of 20 cells differ" in found.stderr


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CHECKOUT.glob("suites/*/suite.toml")))
def test_every_number_that_is_published_is_one_that_its_suite_names(name: str) -> None:
    metrics = protocol.load(name).metrics
    paths = {path.parent: path for path in (CHECKOUT / "results" / name).rglob("*.jsonl")}  # one of each method
    found = {each for path in paths.values() for record in records.read_batch(path).records for each in record.metrics}
    assert not [each for each in found if not metrics.known(each)]

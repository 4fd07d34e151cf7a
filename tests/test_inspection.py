"""Batches that came with a pull request are held to what they must be; each way to tamper with one is refused."""

import hashlib
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
    "a seed that nobody asks for": (lambda top, rows: rows.append({**rows[-1], "seed": 99}), "asks for seed 99"),
    "a trial that nobody asks for": (
        lambda top, rows: rows.append({**rows[-1], "trial": 7}),
        "asks for seed 4, trial 7",
    ),
    "a commit that is not here": (lambda top, rows: top.update(commit="a" * 40), "no commit of this branch"),
    "a start before its commit": (lambda top, rows: top.update(started="1970-01-01T00:00:00Z"), "before its commit"),
    "a start on no calendar": (lambda top, rows: top.update(started="2026-99-99T99:99:99Z"), "before its commit"),
    "a start to come": (lambda top, rows: top.update(started="2999-01-01T00:00:00Z"), "still to come"),
    "a machine of its own": (lambda top, rows: top["env"].update(machine="mine"), "has no 'machine'"),
    "no processor": (lambda top, rows: top["env"].pop("cpu"), "lacks cpu"),
    "codes of terminals": (lambda top, rows: top["env"].update(cpu="\x1b]0;x\x07"), "cannot be shown"),
    "half a character": (lambda top, rows: top["env"].update(cpu="\ud800"), "cannot be shown"),
    "unknown data": (lambda top, rows: top["data"].update(secret="0" * 12), "not pinned here: secret"),
    "endless time": (lambda top, rows: rows[0].update(seconds="inf"), "took inf seconds"),
    "bits that are none": (lambda top, rows: rows[0].update(bits="<b>"), "bits are 12 hex digits"),
    "codes in an error": (lambda top, rows: rows[0].update(status="error", error="\x1b[2J"), "that cannot be shown"),
    "lines in a task's name": (lambda top, rows: rows[0].update(task="a\n::error::b"), "a?::error::b has the id of"),
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


def test_a_control_has_no_control(root: Path) -> None:
    new = _git(root, "diff", "--name-only", "main", "--", "results/toy/one").split()
    (mine,) = (root / name for name in new)
    top, *rows = map(json.loads, mine.read_text().splitlines())
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (top | {"control": "<script>"}, *rows))
    path = records.batch_path(root / "results", "toy", "one", text)
    path.write_text(text)
    assert "the control has no control" in _inspected(root, str(path)).stderr


def test_rows_of_another_method_are_refused(root: Path) -> None:
    others = [json.loads(line) for line in _batch(root, "three").read_text().splitlines()[1:]]

    def copied(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[:] = others

    path = _tampered(root, copied)
    assert f"20 rows are those of {_batch(root, 'three').stem}, of three" in _inspected(root, str(path)).stderr


def _retract(root: Path, batch: str) -> None:
    (root / "results" / "retracted").mkdir(exist_ok=True)
    (root / "results" / "retracted" / f"{batch}.toml").write_text('reason = "wrong"\n')


def test_what_was_retracted_does_not_come_back_and_makes_nothing_whole(root: Path) -> None:
    old, text = _batch(root), _batch(root).read_text()
    _retract(root, old.stem)

    def part(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        top["started"] = f"{top['started'][:-3]}{(int(top['started'][-3:-1]) + 1) % 60:02}Z"
        _drop_a_seed(top, rows)

    path = _tampered(root, part)
    old.write_text(text)
    found = _inspected(root, str(path)).stderr
    assert f"16 rows are those of {old.stem}, which was retracted" in found
    assert "a block is published whole" in found


def test_a_retracted_control_controls_nothing(root: Path) -> None:
    control = json.loads(_batch(root).read_text().splitlines()[0])["control"]
    _retract(root, control)
    assert f"its control, {control}, was retracted" in _inspected(root, str(_batch(root))).stderr


def test_what_else_is_put_under_results_is_refused(root: Path) -> None:
    deep = root / "results" / "more" / "toy" / "two"
    deep.mkdir(parents=True)
    shutil.copy(_batch(root), deep)
    again = root / "results" / "reproductions" / "toy"
    again.mkdir(parents=True)
    (again / "aaaaaaaaaaaa.jsonl").write_text("{}\n")
    assert toy.call(root, "reproduce", "toy/two/digits/clean", "--keep").returncode == 0
    (kept,) = (path for path in again.glob("*.jsonl") if path.stem != "aaaaaaaaaaaa")
    text = kept.read_text().replace(_batch(root).stem, "0" * 12)
    forged = again / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    forged.write_text(text)
    _retract(root, "b" * 12)
    _commit(root, "more")
    found = _inspected(root, "--since", "main").stderr
    assert "results/more/toy/two" in found
    assert "holds batches alone" in found
    assert "aaaaaaaaaaaa.jsonl: the content hashes to" in found
    assert f"{forged}: two/000000000000 is no published batch" in found
    assert kept.name not in found
    assert f"results/retracted/{'b' * 12}.toml: no such batch is published" in found


def test_a_link_for_all_results_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "results", tmp_path / "elsewhere")
    (root / "results").symlink_to(tmp_path / "elsewhere")
    _commit(root, "link")
    found = _inspected(root, "--since", "main")
    assert found.returncode == 1
    assert "results: results/ holds batches alone" in found.stderr


def test_an_archive_without_history_can_be_inspected(root: Path) -> None:
    shutil.rmtree(root / ".git")
    found = _inspected(root, str(_batch(root)))
    assert found.returncode == 0, found.stderr


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


@pytest.mark.parametrize(("cpu", "said"), [(None, "20 of 20 cells have other bits"), ("other", "is off by -0.008")])
def test_numbers_that_are_all_a_little_too_good_are_found_by_measuring_again(
    root: Path, cpu: str | None, said: str
) -> None:
    def better(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["last"] = round(row["last"] + 0.008, 6)  # the tolerance is 0.01
        if cpu:
            top["env"]["cpu"] = cpu

    _tampered(root, better)
    found = toy.call(root, "reproduce", "toy", "--only", "two", "--sample", "100")
    assert "20 within tolerance" in found.stdout
    assert found.returncode == 1
    assert said in found.stderr


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CHECKOUT.glob("suites/*/suite.toml")))
def test_every_number_that_is_published_is_one_that_its_suite_names(name: str) -> None:
    metrics = protocol.load(name).metrics
    paths = {path.parent: path for path in (CHECKOUT / "results" / name).rglob("*.jsonl")}  # one of each method
    found = {each for path in paths.values() for record in records.read_batch(path).records for each in record.metrics}
    assert not [each for each in found if not metrics.known(each)]

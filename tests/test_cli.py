"""The command line as a person meets it: listings, messages, exit codes, submitting, explaining."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
import typer
from typer.testing import CliRunner

from lossboard import cli

CHECKOUT = Path(__file__).parents[1]


def lossboard(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line on this checkout."""
    environ = os.environ | {"COLUMNS": "160"} | more
    return subprocess.run(
        [sys.executable, "-m", "lossboard", *args],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_list_losses_for_programs() -> None:
    rows = json.loads(lossboard("list", "losses", "--json").stdout)
    assert len(rows) >= 50
    gce = next(row for row in rows if row["id"] == "gce")
    assert gce["defaults"] == {"q": 0.7}
    assert gce["search"] == {"q": [0.05, 0.95, "uniform"]}
    assert "bounded" in gce["flags"]
    assert "1805.07836" in gce["paper"]
    assert len(gce["source"]) == 12


@pytest.mark.parametrize("what", ["losses", "suites", "tasks", "datasets"])
def test_listings(what: str) -> None:
    result = lossboard("list", what)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) >= 1
    assert json.loads(lossboard("list", what, "--json").stdout)


USAGE = [  # call, what the message must say
    (("plan", "noisy", "--only", "gcee"), "no method 'gcee'; did you mean gce"),
    (("run", "noisi"), "did you mean noisy"),
    (("plan", "noisy", "--track", "quik"), "did you mean quick"),
    (("plan", "noisy", "--seeds", "0,99"), "no seed 99"),
    (("board", "noisy", "--seeds", "99"), "no seed 99"),
    (("plan", "noisy", "--seeds", "a"), "whole numbers separated by commas"),
    (("plan", "noisy", "--tasks", "digit"), "did you mean digits"),
    (("list", "loses"), "did you mean losses"),
    (("why", "noisy/gce"), "a cell is suite/method/dataset/corruption"),
    (("why", "noisy/gce/digits/uniform"), "no task 'digits/uniform'"),
    (("data", "fetch", "lettre"), "letter"),
    (("plan",), "Missing argument"),
    (("plan", "noisy", "--tracks", "quick"), "No such option"),
]


@pytest.mark.parametrize(("call", "message"), USAGE)
def test_a_wrong_call_is_one_message_and_exit_code_2(call: tuple[str, ...], message: str) -> None:
    result = lossboard(*call)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_wrong_data_stops_the_run_before_it_trains(tmp_path: Path) -> None:
    folder = tmp_path / "fashion_mnist"  # the first of the track
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.parquet").write_bytes(b"PAR1 not really")
    result = lossboard("run", "noisy", "--track", "cpu", "--only", "ce", "--no-page", LOSSBOARD_DATA=str(tmp_path))
    assert result.returncode in (1, 3)
    assert "fashion_mnist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return toy.make(tmp_path / "checkout")


def git(root: Path, *args: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text(".lossboard/\n__pycache__/\n*-[0-9]\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "all")


def test_submit_needs_git_and_says_so(root: Path) -> None:
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    result = toy.call(root, "submit", "toy", GIT_CEILING_DIRECTORIES=str(root.parent))
    assert result.returncode == 1
    assert "submit needs git" in result.stderr


def test_submit_publishes_and_the_published_board_is_the_local_one(root: Path) -> None:
    commit(root)
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    result = toy.call(root, "submit", "toy")
    assert result.returncode == 0, result.stderr
    *sealed, said = result.stdout.splitlines()
    assert len(sealed) == 5
    assert said == "inspected, nothing wrong: commit these files as they are"
    headers = {
        path.parent.name: json.loads(path.read_text().splitlines()[0]) for path in (root / "results").rglob("*.jsonl")
    }
    one = next((root / "results" / "toy" / "one").iterdir()).stem
    assert headers["one"]["control"] is None
    assert {headers[name]["control"] for name in ("two", "three")} == {one}
    assert len({header["run"] for header in headers.values()}) == 1
    assert headers["two"]["commit"] == git(root, "rev-parse", "HEAD").strip()
    assert headers["two"]["dirty"] is False
    local, published = (
        json.loads(toy.call(root, "board", "toy", "--json", *more).stdout) for more in (["--local"], [])
    )
    for a, b in zip(local["rows"], published["rows"], strict=True):
        assert {**a, "batches": 0} == {**b, "batches": 0}
    assert toy.call(root, "submit", "toy").returncode == 1, "nothing new"
    again = toy.call(root, "run", "toy", "--no-page")
    assert f"published: {toy.CELLS} cells compared" in again.stdout
    assert "largest difference of a mean 0.00 points" in again.stdout
    assert f"all {toy.CELLS} cells are done" in again.stdout
    filled = toy.call(root, "run", "toy", "--no-page", "--fresh", "--fill")
    assert f"all {toy.CELLS} cells are done or published" in filled.stdout, "--fill leaves out what is published"


def test_mended_cells_are_published_and_a_retracted_batch_is_not_again(root: Path) -> None:
    commit(root)
    (root / "two-1").write_text("memory")
    assert toy.call(root, "run", "toy", "--no-page", "--only", "one,two").returncode == 1
    alone = toy.call(root, "submit", "toy", "--only", "two")
    assert alone.returncode == 1
    assert "no record of one, the control, from the same run as two" in alone.stderr.replace("\n", " ")
    first = toy.call(root, "submit", "toy", "--only", "one,two")
    assert first.returncode == 0
    assert "4 cells failed" in first.stderr
    (root / "two-1").unlink()
    assert toy.call(root, "run", "toy", "--no-page", "--only", "one,two").returncode == 0
    assert "4 cells" in toy.call(root, "submit", "toy", "--only", "two").stdout
    row = next(r for r in json.loads(toy.call(root, "board", "toy", "--json").stdout)["rows"] if r["id"] == "two")
    assert (row["id"], row["coverage"], row["failures"]) == ("two", 1, 0)
    batch = next((root / "results" / "toy" / "one").iterdir())
    (root / "results" / "retracted").mkdir()
    (root / "results" / "retracted" / f"{batch.stem}.toml").write_text('reason = "a broken disk"')
    again = toy.call(root, "submit", "toy", "--only", "one")
    assert again.returncode == 1
    assert "was retracted (a broken disk): measure again with --fresh" in again.stderr.replace("\n", " ")
    assert batch.exists(), "a retracted batch is never deleted"


def test_uncommitted_changes_are_not_published(root: Path) -> None:
    commit(root)
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(code.read_text().replace('"two": 0.2', '"two": 0.25'))
    warned = toy.call(root, "run", "toy", "--no-page")
    assert warned.returncode == 0
    assert "not committed (M suites/toy/__init__.py): what is measured cannot be published" in warned.stdout
    refused = toy.call(root, "submit", "toy")
    assert refused.returncode == 1
    assert "commit them and measure again" in refused.stderr.replace("\n", " ")
    assert not (root / "results").exists()


def test_only_current_cells_that_were_asked_for_are_compared(root: Path) -> None:
    commit(root)
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    assert toy.call(root, "submit", "toy").returncode == 0
    some = toy.call(root, "run", "toy", "--no-page", "--only", "two", "--seeds", "0,1")
    assert "published: 8 cells compared" in some.stdout
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(code.read_text().replace('"two": 0.2', '"two": 0.25'))
    changed = toy.call(root, "run", "toy", "--no-page", "--only", "two")
    assert "no record of these cells to compare with" in changed.stdout


def test_another_budget_is_measured_once_and_ranked(root: Path) -> None:
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    pins = root / "suites" / "toy" / "suite.toml"
    pins.write_text(pins.read_text().replace("rates = [0.2]", "rates = [0.3]"))
    assert f"{toy.CELLS // 2} stale" in toy.call(root, "plan", "toy").stdout
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    assert f"{toy.CELLS} done" in toy.call(root, "plan", "toy").stdout
    rows = json.loads(toy.call(root, "board", "toy", "--local", "--json").stdout)["rows"]
    assert all(row["coverage"] == 1 and not row["stale"] for row in rows)


def test_a_source_edited_during_a_run_is_never_given_to_old_numbers(root: Path) -> None:
    environ = toy.environ(root, TOY_SECONDS="1.5")
    process = subprocess.Popen(toy.command(root, "run", "toy", "--no-page", "--jobs", "1"), env=environ)
    locks = root / ".lossboard" / "units" / "toy" / "locks"
    while not list(locks.glob("*.lock")):
        time.sleep(0.05)
    time.sleep(1)
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(code.read_text().replace('"one": 0.1', '"one": 0.7'))
    process.wait(timeout=120)
    rows = json.loads(toy.call(root, "board", "toy", "--local", "--json").stdout)["rows"]
    assert rows
    assert all(row["stale"] for row in rows)


def test_a_fresh_clone_really_runs(root: Path, tmp_path: Path) -> None:
    commit(root)
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    assert toy.call(root, "submit", "toy").returncode == 0
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "results")
    clone = tmp_path / "clone"
    git(root, "clone", "--quiet", str(root), str(clone))
    assert f"{toy.CELLS} missing" in toy.call(clone, "plan", "toy").stdout
    result = toy.call(clone, "run", "toy", "--no-page", "--only", "two")
    assert "20 cells in" in result.stdout
    assert "published" in result.stdout


def test_why_tells_done_stale_superseded_failed_and_retracted(root: Path) -> None:
    commit(root)
    (root / "three-0").write_text("raise")
    assert toy.call(root, "run", "toy", "--no-page").returncode == 1
    (root / "three-0").unlink()
    failed = toy.call(root, "why", "toy/three/digits/clean/0/1").stdout
    assert "failed, error: ValueError: a bad cell" in failed
    assert toy.call(root, "submit", "toy").returncode == 0
    both = toy.call(root, "why", "toy/two/digits/clean/0/0").stdout
    assert "(counts; " in both
    assert "(superseded; " in both
    batch = next((root / "results" / "toy" / "two").iterdir()).stem
    (root / "results" / "retracted").mkdir()
    (root / "results" / "retracted" / f"{batch}.toml").write_text('reason = "a broken disk"')
    assert "does not count; retracted: a broken disk" in toy.call(root, "why", "toy/two/digits/clean/0/0").stdout
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(code.read_text() + "\nX = 1\n")
    assert (
        "stale, the method's source or the trial has changed"
        in toy.call(root, "why", "toy/two/digits/clean/0/0").stdout
    )
    assert f"{toy.CELLS} stale" in toy.call(root, "plan", "toy").stdout
    code.write_text(code.read_text().replace("X = 1", ""))
    assert "missing: no such record" in toy.call(root, "why", "toy/two/digits/clean/99").stdout
    unknown = toy.call(root, "why", "toy/too/digits/clean/0/0")
    assert unknown.returncode == 2
    assert "did you mean two" in unknown.stderr


def test_words_keep_records_current_and_formulas_do_not(root: Path) -> None:
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    code = root / "suites" / "toy" / "__init__.py"
    text = code.read_text()
    code.write_text(text.replace("Constants, compared.", "Other words."))
    assert f"{toy.CELLS} done" in toy.call(root, "plan", "toy").stdout
    code.write_text(text.replace('"one": 0.1', '"one": 0.15'))
    assert f"{toy.CELLS} stale" in toy.call(root, "plan", "toy").stdout


def test_a_hand_edited_batch_is_named_and_left_out(root: Path) -> None:
    commit(root)
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    assert toy.call(root, "submit", "toy").returncode == 0
    batch = next((root / "results" / "toy" / "two").iterdir())
    batch.write_text(batch.read_text().replace('"last":0.2', '"last":0.9'))
    result = toy.call(root, "board", "toy", "--json")
    assert batch.name in result.stderr.replace("\n", "")
    assert "never edited" in result.stderr.replace("\n", " ")
    assert "two" not in {row["id"] for row in json.loads(result.stdout)["rows"]}


def test_what_would_be_refused_is_told_when_it_is_sealed_and_may_be_left_out(root: Path) -> None:
    commit(root)
    assert toy.call(root, "run", "toy", "--no-page", "--only", "one").returncode == 0
    assert toy.call(root, "run", "toy", "--no-page", "--only", "two", "--seeds", "0,1").returncode == 0
    whole = toy.call(root, "submit", "toy", "--only", "one,two", "--whole")
    assert whole.returncode == 0, whole.stderr
    assert {path.parent.name for path in (root / "results" / "toy").glob("*/*.jsonl")} == {"one"}
    none = toy.call(root, "submit", "toy", "--only", "one,two", "--whole")
    assert (none.returncode, none.stdout) == (0, "no task is whole that is not published\n")
    part = toy.call(root, "submit", "toy", "--only", "two")
    assert part.returncode == 1
    assert "seeds and trials are missing, such as (2, 0): a block is published whole" in part.stderr.replace("\n", " ")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, own in getattr(command, "commands", {}).items():
        yield from _commands(own, (*path, name))


@pytest.mark.parametrize("path", list(_commands(typer.main.get_command(cli.app))), ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli.app, [*path, "--help"])
    assert shown.exit_code == 0, shown.exception
    assert "Usage" in shown.stdout

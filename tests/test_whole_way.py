"""A made-up loss from the idea to a pull request that would be taken, and tampered copies of its records that are not.

In a clone of this checkout, by the commands that CONTRIBUTING names, with the records that are published.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lossboard import records

CHECKOUT = Path(__file__).parents[1]
ID = "made_up"

pytestmark = pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not a clone")


def _git(root: Path, *args: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True, text=True).stdout


def _commit(root: Path, message: str) -> None:
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "--message", message)


def _lossboard(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LOSSBOARD_ROOT": str(root), "PYTHONPATH": str(root), "COLUMNS": "200"}
    command = [sys.executable, "-W", "ignore", "-m", "lossboard", *args]
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=900)


def _done(root: Path, *args: str) -> str:
    found = _lossboard(root, *args)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone at the end of the way: a branch with the loss and its records."""
    root = tmp_path_factory.mktemp("way") / "lossboard"
    _git(CHECKOUT, "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(root))
    _git(root, "branch", "--quiet", "--force", "base")
    _git(root, "checkout", "--quiet", "-b", "mine")
    assert f"reference/losses/{ID}.py" in _done(root, "new", "loss", ID)
    path = root / "reference" / "losses" / f"{ID}.py"
    text = path.read_text().replace("(Authors, Venue Year, arXiv:0000.00000)", "(Me & You, Nowhere 2026)")
    path.write_text(text.replace("/ q\n", "/ (1.5 * q)\n").replace("{q}", "{1.5 q}"))
    assert "memory" in _done(root, "check", ID), "the last line of the card"
    _commit(root, "Made-up loss")
    assert ID in _done(root, "run", "noisy", "--only", f"ce,{ID}", "--no-page")
    assert "inspected, nothing wrong" in _done(root, "submit", "noisy", "--only", f"ce,{ID}")
    _commit(root, "Records of the made-up loss")
    return root


def test_what_came_the_whole_way_is_taken(root: Path) -> None:
    assert "2 batches: nothing wrong" in _done(root, "inspect", "--since", "base")
    assert "4 of 420 cells: 4 bitwise" in _done(root, "reproduce", "noisy", "--since", "base", "--sample", "4")
    rows = {row["id"]: row for row in json.loads(_done(root, "board", "noisy", "--json"))["rows"]}
    assert rows[ID]["coverage"] == 1


Change = Callable[[dict[str, Any], list[dict[str, Any]]], None]


@contextlib.contextmanager
def _tampered(root: Path, method: str, change: Change) -> Iterator[Path]:
    """The branch's batch of a method, changed and named by its content, in the place of the one that it was."""
    (name,) = _git(root, "diff", "--name-only", "--diff-filter=A", "base", "--", f"results/noisy/{method}").split()
    top, *rows = map(json.loads, (root / name).read_text().splitlines())
    change(top, rows)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (top, *rows))
    path = records.batch_path(root / "results", "noisy", method, text)
    (root / name).unlink()
    try:
        path.write_text(text)
        yield path
    finally:
        path.unlink()
        _git(root, "checkout", "--quiet", "--", name)


def _refused(root: Path, *paths: Path) -> str:
    found = _lossboard(root, "inspect", *map(str, paths))
    assert found.returncode == 1
    return found.stderr


def _fewer_seeds(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[:] = [row for row in rows if row["seed"] != 3]


TAMPERED: dict[str, tuple[Change, str]] = {
    "seeds dropped": (_fewer_seeds, "a block is published whole"),
    "another dataset hash": (lambda top, rows: top["data"].update(digits="0" * 12), "made with other data"),
    "a script in a title": (lambda top, rows: rows[0].update(task="<script>alert(1)</script>"), "has the id of"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_copy_is_refused_with_the_reason(root: Path, case: str) -> None:
    change, said = TAMPERED[case]
    with _tampered(root, ID, change) as path:
        assert said in _refused(root, path)


def test_a_control_that_is_off_is_refused(root: Path) -> None:
    def worse(top: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["last"] = 0.5

    with (
        _tampered(root, "ce", worse) as control,
        _tampered(root, ID, lambda top, rows: top.update(control=control.stem)) as path,
    ):
        assert "the control is off on digits/class-0.1" in _refused(root, path, control)


def test_a_batch_in_another_methods_folder_is_refused(root: Path) -> None:
    with _tampered(root, ID, lambda top, rows: None) as path:
        moved = shutil.copy(path, root / "results" / "noisy" / "gce")
        try:
            assert "move it back to that folder" in _refused(root, Path(moved))
        finally:
            Path(moved).unlink()


def test_a_single_forged_value_is_found_by_measuring_again(root: Path) -> None:
    with _tampered(root, ID, lambda top, rows: rows[0].update(last=0.999999)) as path:
        row = json.loads(path.read_text().splitlines()[1])
        found = _lossboard(root, "reproduce", f"noisy/{ID}/{row['task']}/{row['seed']}/{row['trial']}")
    assert found.returncode == 1
    assert "1 of 1 cells differ" in found.stderr

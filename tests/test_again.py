"""Published numbers measured again, and put side by side: ``reproduce`` and ``compare`` on the toy suite."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import toy


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy of that checkout for each test."""
    return shutil.copytree(published, tmp_path / "checkout", symlinks=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with all of its records published, at two commits."""
    made = toy.make(tmp_path_factory.mktemp("published") / "checkout")
    _git(made, "init", "--quiet")
    (made / ".gitignore").write_text(".lossboard/\n__pycache__/\n*-[0-9]\n")
    for message in ("one", "two"):
        _git(made, "add", ".")
        _git(made, "commit", "--quiet", "--allow-empty", "--message", message)
        assert toy.call(made, "run", "toy", "--no-page", "--fresh").returncode == 0
        assert toy.call(made, "submit", "toy").returncode == 0
    return made


def _git(root: Path, *args: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True, text=True).stdout


def _edit_scores(root: Path, old: str, new: str) -> None:
    path = root / "suites" / "toy" / "__init__.py"
    path.write_text(path.read_text().replace(old, new))


def test_the_same_code_reproduces_every_cell_and_says_when(root: Path) -> None:
    found = toy.call(root, "reproduce", "toy", "--sample", "7", "--keep")
    assert found.returncode == 0, found.stderr
    assert f"7 of {toy.CELLS} cells: 7 bitwise" in found.stdout
    (kept,) = (root / "results" / "reproductions" / "toy").glob("*.jsonl")
    header, *rows = map(json.loads, kept.read_text().splitlines())
    assert (header["kind"], header["suite"], len(rows)) == ("reproduction", "toy", 7)
    assert {row["verdict"] for row in rows} == {"bitwise"}
    assert all((root / "results" / "toy" / row["method"] / f"{row['batch']}.jsonl").is_file() for row in rows)


def test_pages_say_when_a_method_was_reproduced_and_a_damaged_file_is_named(root: Path) -> None:
    assert toy.call(root, "reproduce", "toy/two/digits/clean", "--sample", "3", "--keep").returncode == 0
    (kept,) = (root / "results" / "reproductions" / "toy").glob("*.jsonl")
    day = json.loads(kept.read_text().splitlines()[0])["started"][:10]
    assert toy.call(root, "publish").returncode == 0
    page = (root / ".lossboard" / "site" / "toy" / "two.html").read_text()
    assert re.search(rf"<dt>Reproduced</dt>\s*<dd>last {day}: 3 cells bitwise</dd>", page)
    assert "Reproduced" not in (root / ".lossboard" / "site" / "toy" / "three.html").read_text()
    kept.write_text(kept.read_text().replace("bitwise", "perfect"))
    found = toy.call(root, "publish")
    assert found.returncode == 0
    assert "such a file is never edited" in found.stderr
    assert "Reproduced" not in (root / ".lossboard" / "site" / "toy" / "two.html").read_text()


def test_a_drawing_can_be_fixed_and_cells_named(root: Path) -> None:
    one, again, other = (
        toy.call(root, "reproduce", "toy", "--sample", "5", "--draw", draw).stdout for draw in ("1", "1", "2")
    )
    assert one == again != other
    named = toy.call(root, "reproduce", "toy/two/digits/clean/3").stdout
    assert set(re.findall(r"\w+/digits/\w+/\d/\d", named)) == {"two/digits/clean/3/0", "two/digits/clean/3/1"}


@pytest.mark.parametrize(
    ("added", "code", "said"),
    [("+ 0.005", 0, "within tolerance"), ("+ 0.5", 1, "differs"), ("* float('nan')", 1, "differs")],
)
def test_a_changed_number_is_told_apart_from_noise_and_explained(root: Path, added: str, code: int, said: str) -> None:
    _edit_scores(root, "+ 0.001 * cell.trial", f"+ 0.001 * cell.trial {added}")
    found = toy.call(root, "reproduce", "toy/two/digits/clean/3/0")
    assert "nothing to reproduce" not in found.stderr
    assert found.returncode == code
    assert said in found.stdout
    assert "the source of two has changed since" in found.stdout


def test_a_cell_that_fails_now_differs_and_says_why(root: Path) -> None:
    (root / "two-3").write_text("memory")
    found = toy.call(root, "reproduce", "toy/two/digits/clean/3/0")
    assert found.returncode == 1
    assert "ok then, oom now: MemoryError" in found.stdout


def test_what_was_reproduced_before_a_worker_died_is_shown_and_kept(root: Path) -> None:
    (root / "two-3").write_text("die")
    found = toy.call(root, "reproduce", "toy", "--sample", "100", "--jobs", "1", "--draw", "1", "--keep")
    assert found.returncode == 2
    assert "a worker process died" in found.stderr
    (kept,) = (root / "results" / "reproductions" / "toy").glob("*.jsonl")
    assert len(kept.read_text().splitlines()) - 1 == int(re.search(r"(\d+) of \d+ cells: \1 bitwise", found.stdout)[1])


def test_what_is_not_published_cannot_be_reproduced(root: Path) -> None:
    assert "no track 'slow'" in toy.call(root, "reproduce", "toy", "--track", "slow").stderr
    for path in (root / "results" / "toy" / "two").glob("*.jsonl"):
        path.unlink()
    assert "nothing to reproduce" in toy.call(root, "reproduce", "toy", "--only", "two").stderr


def test_methods_are_compared_seed_by_seed(root: Path) -> None:
    (both,) = json.loads(toy.call(root, "compare", "toy", "three", "one", "--json").stdout)
    mean, *tasks = both["lines"]
    assert [line["task"] for line in both["lines"]] == ["mean", "digits/clean", "digits/dirty"]
    for line in both["lines"]:
        assert line["difference"] == pytest.approx([0.2, 0.0], abs=1e-9), "their difference is the same for every seed"
    assert tasks[0]["ours"][0] == pytest.approx(0.321)
    assert mean["cells"] == 0, "cells of two methods are never the same"


def test_batches_and_commits_are_compared_method_by_method(root: Path) -> None:
    first, second = (f"commit:{hash[:8]}" for hash in _git(root, "log", "--format=%H").split()[::-1])
    found = json.loads(toy.call(root, "compare", "toy", first, second, "--json").stdout)
    assert [each["ours"] for each in found] == [f"{first} {name}" for name in ("five", "four", "one", "three", "two")]
    assert {line["difference"][0] for each in found for line in each["lines"]} == {0.0}
    one, other = sorted(path.stem for path in (root / "results" / "toy" / "two").glob("*.jsonl"))
    (batches,) = json.loads(toy.call(root, "compare", "toy", one, other, "--json").stdout)
    assert batches["lines"][0]["cells"] == 20


@pytest.mark.parametrize(
    ("ours", "said"), [("twoo", "did you mean two"), ("commit:xyz", "hex digits"), ("0123456789ab", "no record of")]
)
def test_what_cannot_be_compared_is_said(root: Path, ours: str, said: str) -> None:
    found = toy.call(root, "compare", "toy", ours, "one")
    assert found.returncode == 2
    assert said in found.stderr


@pytest.mark.parametrize(("sign", "code"), [("(-1) ** cell.seed", 0), ("1", 1)])
def test_where_code_or_processor_changed_cells_may_end_elsewhere_but_not_all_one_way(
    root: Path, sign: str, code: int
) -> None:
    """A training that meets other roundings ends elsewhere, as often better as worse; what was made up does not."""
    _edit_scores(root, "+ 0.001 * cell.trial", f"+ 0.001 * cell.trial + 0.3 * {sign} * (cell.seed < 4)")
    found = toy.call(root, "reproduce", "toy", "--only", "two", "--sample", "100")
    assert "16 differs" in found.stdout
    assert found.returncode == code, found.stderr

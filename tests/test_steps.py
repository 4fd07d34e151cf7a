"""A night and the judging of a branch, on the toy suite: every step is taken, and the exit code says what failed."""

import subprocess
from pathlib import Path

import pytest
import toy


def _git(root: Path, *args: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True, text=True).stdout


def _commit(root: Path, message: str) -> None:
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "--message", message)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout under git that has published the control alone."""
    made = toy.make(tmp_path / "checkout")
    _git(made, "init", "--quiet", "--initial-branch", "main")
    (made / ".gitignore").write_text(".lossboard/\n_site/\n__pycache__/\n*-[0-9]\n")
    _commit(made, "code")
    assert toy.call(made, "run", "toy", "--no-page", "--only", "one").returncode == 0
    assert toy.call(made, "submit", "toy", "--only", "one").returncode == 0
    _commit(made, "the control")
    return made


def _night(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return toy.call(root, "nightly", "--no-asv", "--tracks", "quick", "--sample", "3", "--jobs", "2", *args)


def test_a_night_fills_reproduces_seals_and_builds(root: Path) -> None:
    night = _night(root, "--budget", "5m", "--submit")
    assert night.returncode == 0, night.stdout + night.stderr
    assert "80 cells in" in night.stdout, "what is published is not measured again"
    assert "3 of 20 cells: 3 bitwise" in night.stdout
    batches = list((root / "results" / "toy").glob("*/*.jsonl"))
    assert {path.parent.name for path in batches} == {"one", "two", "three", "four", "five"}
    assert list((root / "results" / "reproductions" / "toy").glob("*.jsonl"))
    assert (root / "_site" / "toy" / "two.html").is_file()
    _commit(root, "records of the night")
    assert toy.call(root, "inspect", "--since", "main~1").returncode == 0
    again = _night(root, "--budget", "5m")
    assert again.returncode == 0
    assert "all 100 cells are done or published" in again.stdout


def test_a_short_night_seals_no_part_of_a_task(root: Path) -> None:
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(code.read_text().replace("metrics, 0.01\n", "metrics, 60.0\n"))  # a minute a cell, as it says
    _commit(root, "slower")
    for asked in (("--only", "one", "--fresh"), ("--only", "three"), ("--only", "two", "--seeds", "0,1,2")):
        assert toy.call(root, "run", "toy", "--no-page", *asked).returncode == 0
    night = _night(root, "--budget", "10s", "--submit")
    assert night.returncode == 0, night.stdout + night.stderr
    assert "left for another time: 48 cells, about" in night.stdout
    added = _git(root, "status", "--porcelain", "--untracked-files=all", "--", "results/toy").split()[1::2]
    assert sorted(Path(name).parent.name for name in added) == ["one", "three"]


def test_a_night_without_time_measures_nothing_and_checks_the_rest(root: Path) -> None:
    night = _night(root, "--budget", "0s")
    assert night.returncode == 0, night.stdout + night.stderr
    assert "fill toy quick: no time is left for it tonight" in night.stdout
    assert "3 of 20 cells: 3 bitwise" in night.stdout


def test_a_night_is_red_when_something_could_not_be_measured(root: Path) -> None:
    (root / "two-1").write_text("raise")
    night = _night(root, "--budget", "5m")
    assert night.returncode == 1
    assert "not all went well: fill toy quick (exit code 1)" in night.stderr.replace("\n", " ")
    assert (root / "_site" / "index.html").is_file(), "the steps after it were taken"


def test_a_night_on_a_track_that_nobody_has(root: Path) -> None:
    night = toy.call(root, "nightly", "--tracks", "quik")
    assert night.returncode == 2
    assert "no suite has a track 'quik'; did you mean quick" in night.stderr


def test_records_of_a_branch_are_judged_and_measured_again(root: Path, tmp_path: Path) -> None:
    _git(root, "checkout", "--quiet", "-b", "mine")
    assert toy.call(root, "run", "toy", "--no-page", "--only", "two").returncode == 0
    assert toy.call(root, "submit", "toy", "--only", "two").returncode == 0
    _commit(root, "my records")
    good = toy.call(root, "review", "--out", str(tmp_path / "out"))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 batches: nothing wrong" in (tmp_path / "out" / "records.txt").read_text()
    assert "10 of 20 cells: 10 bitwise" in (tmp_path / "out" / "again-toy.txt").read_text()
    assert "also changed" not in good.stdout
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(code.read_text().replace('"two": 0.2', '"two": 0.5'))
    (root / "results" / "retracted").mkdir()
    (root / "results" / "retracted" / f"{'0' * 12}.toml").write_text('reason = "theirs"\n')
    _commit(root, "more than records")
    bad = toy.call(root, "review", "--out", str(tmp_path / "out"))
    assert bad.returncode == 1
    named = f"results/retracted/{'0' * 12}.toml\nsuites/toy/__init__.py\n"
    assert (tmp_path / "out" / "also-changed.txt").read_text() == named
    assert f"part of what judges where it is code: read it\n{named}" in bad.stdout
    assert "again toy (exit code 1)" in bad.stderr.replace("\n", " ")


def test_a_branch_with_nothing_new_and_a_revision_that_is_none(root: Path) -> None:
    assert "no new loss, and no record" in toy.call(root, "review").stdout
    wrong = toy.call(root, "review", "--since", "no-such-branch")
    assert wrong.returncode == 2
    assert "git cannot compare with 'no-such-branch'" in wrong.stderr.replace("\n", " ")

"""The archive for a deposit: complete, a function of the commit, and honest about what is superseded."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import toy


def _git(root: Path, *args: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *args], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that publishes all methods twice, and has retracted a batch."""
    made = toy.make(tmp_path / "checkout")
    _git(made, "init", "--quiet")
    (made / ".gitignore").write_text(".lossboard/\n__pycache__/\n")
    for message in ("one", "two"):
        _git(made, "add", ".")
        _git(made, "commit", "--quiet", "--allow-empty", "--message", message)
        assert toy.call(made, "run", "toy", "--no-page", "--fresh").returncode == 0
        assert toy.call(made, "submit", "toy").returncode == 0
    (made / "results" / "retracted").mkdir()
    gone = min((made / "results" / "toy" / "five").glob("*.jsonl"))
    (made / "results" / "retracted" / f"{gone.stem}.toml").write_text('reason = "a broken disk"\n')
    _git(made, "add", ".")
    _git(made, "commit", "--quiet", "--message", "records")
    return made


def test_two_exports_are_the_same_bytes_and_hold_everything(root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    done = toy.call(root, "export", str(first))
    assert done.returncode == 0, done.stderr
    clone = tmp_path / "clone"
    _git(tmp_path, "clone", "--quiet", str(root), str(clone))
    for path in clone.rglob("*.py"):
        os.utime(path, (1, 1))
    assert toy.call(clone, "export", str(second)).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        archive.extractall(tmp_path / "out", filter="data")
        assert {(entry.uid, entry.gid, entry.uname) for entry in archive} == {(0, 0, "")}
    (folder,) = (tmp_path / "out").iterdir()
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["commit"] == _git(root, "rev-parse", "HEAD").strip()
    assert folder.name == f"lossboard-{manifest['commit'][:12]}"
    assert set(manifest["files"]) == set(_git(root, "ls-files").split())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    suite = manifest["suites"]["toy"]
    assert (suite["records"], suite["batches"], suite["methods"]) == (2 * toy.CELLS, 10, 5)
    assert len(suite["retracted"]) == 1
    assert len(suite["superseded"]) == 4, "the later of two batches of each method whose first was not retracted"
    assert [environment["batches"] for environment in manifest["environments"]] == [10]
    assert set(manifest["data"]) == {"digits"}
    shutil.rmtree(root / "results")
    shutil.copytree(folder / "results", root / "results")
    assert toy.call(root, "board", "toy").returncode == 0, "boards are made of it"


def test_what_is_not_committed_is_not_exported(root: Path, tmp_path: Path) -> None:
    (root / "results" / "note.txt").write_text("hello")
    done = toy.call(root, "export", str(tmp_path / "a.tar"))
    assert done.returncode == 1
    assert "results/ is not as it was committed" in done.stderr
    assert not (tmp_path / "a.tar").exists()


def test_without_git_it_says_what_it_needs(tmp_path: Path) -> None:
    made = toy.make(tmp_path / "checkout")
    done = toy.call(made, "export", GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert done.returncode == 1
    assert "export needs git" in done.stderr

"""Artifacts: made once, whole or not there, verified on each load."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from lossboard import artifacts
from lossboard.artifacts import artifact, content_hash, kept
from lossboard.records import StoreError

MADE_OF = {"suite": "toy", "seed": 3, "rates": (0.1, 0.2)}


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(tmp_path))
    return tmp_path


class Maker:
    """Makes tensors and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, torch.Tensor | np.ndarray]:
        self.calls += 1
        draw = torch.Generator().manual_seed(0)
        weight = torch.randn(5, 4, generator=draw)
        return {
            "weight": weight.requires_grad_(),
            "tied": weight,
            "turned": torch.arange(6).reshape(2, 3).T,
            "half": torch.ones(3, dtype=torch.bfloat16),
            "none": torch.zeros(0, 2),
            "one": torch.tensor(True),
            "array": np.arange(3, dtype=np.uint8),
        }


def refuse() -> dict[str, torch.Tensor]:
    raise AssertionError("it is there and need not be made")


def test_what_was_made_is_loaded() -> None:
    maker = Maker()
    first, second = artifact("weights", MADE_OF, maker), artifact("weights", dict(reversed(MADE_OF.items())), refuse)
    assert maker.calls == 1
    assert first.sha256 == second.sha256 == content_hash(first.tensors)
    for name, made in Maker()().items():
        wanted = torch.as_tensor(made).detach()
        assert second.tensors[name].dtype == wanted.dtype
        assert torch.equal(second.tensors[name], wanted)
        assert not second.tensors[name].requires_grad


def test_several_are_made_at_once_but_for_those_that_are_there() -> None:
    each = [{**MADE_OF, "seed": seed} for seed in (0, 1, 2, 1)]
    first = artifact("weights", each[2], Maker())
    asked: list[list[int]] = []

    def make(places: Sequence[int]) -> Iterator[dict[str, torch.Tensor]]:
        asked.append(sorted(places))
        for place in places:
            yield {"seed": torch.tensor(each[place]["seed"])}

    found = artifacts.artifacts("weights", each, make)
    assert asked == [[0, 1]]
    assert [int(one.tensors["seed"]) for i, one in enumerate(found) if i != 2] == [0, 1, 1]
    assert found[2].sha256 == first.sha256
    assert found[1].path == found[3].path
    artifacts.artifacts("weights", each, lambda places: refuse())
    with pytest.raises(ValueError, match="shorter"):
        artifacts.artifacts("weights", [{"seed": 8}, {"seed": 9}], lambda places: [{"a": torch.zeros(1)}])


def test_what_was_made_before_an_error_is_kept() -> None:
    each = [{"seed": 0}, {"seed": 1}]

    def make(places: Sequence[int]) -> Iterator[dict[str, torch.Tensor]]:
        yield {"place": torch.tensor(places[0])}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.artifacts("weights", each, make)
    assert kept().files == 1


def test_another_making_is_another_file() -> None:
    maker = Maker()
    paths = {artifact("weights", made, maker).path for made in (MADE_OF, {**MADE_OF, "seed": 4}, {})}
    paths.add(artifact("logits", MADE_OF, maker).path)
    assert len(paths) == maker.calls == 4
    here = kept()
    assert (here.files, here.bytes) == (4, sum(path.stat().st_size for path in paths))
    assert {path.parent for path in paths} == {here.folder}


def test_nothing_is_kept_at_first() -> None:
    assert (kept().files, kept().bytes) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {**t, "b": t["a"]},
        lambda t: {"b": t["a"]},
        lambda t: {"a": t["a"].reshape(3, 2)},
        lambda t: {"a": t["a"].view(torch.int32)},
        lambda t: {"a": t["a"] + 1},
    ],
    ids=["one more", "name", "shape", "dtype", "value"],
)
def test_the_hash_sees_it(change) -> None:
    tensors = {"a": torch.zeros(2, 3)}
    assert content_hash(change(tensors)) != content_hash(tensors)


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def other_header(content: bytes) -> bytes:
    tensors = safetensors.torch.load(content)
    return safetensors.torch.save(tensors, metadata={"made_of": "{}", "sha256": content_hash(tensors)})


def no_header(content: bytes) -> bytes:
    return safetensors.torch.save(safetensors.torch.load(content))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "its content has the SHA-256"),
        (lambda content: content[:-1], "cannot be read"),
        (lambda content: content[:5], "cannot be read"),
        (lambda content: b"", "cannot be read"),
        (lambda content: b"\x80\x04N." * 50, "cannot be read"),  # a pickle
        (other_header, "names another making"),
        (no_header, "names another making"),
    ],
    ids=["bit", "short", "header cut", "empty", "pickle", "wrong header", "no header"],
)
def test_a_damaged_file_is_said_and_made_again(damage, said: str) -> None:
    maker = Maker()
    good = artifact("weights", MADE_OF, maker)
    good.path.write_bytes(damage(good.path.read_bytes()))
    with pytest.warns(UserWarning, match=f"{good.path.name}: .*{said}.*made again") as caught:
        again = artifact("weights", MADE_OF, maker)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (again.sha256, maker.calls) == (good.sha256, 2)
    artifact("weights", MADE_OF, refuse)


def test_a_maker_that_fails_leaves_nothing() -> None:
    with pytest.raises(AssertionError, match="need not be made"):
        artifact("weights", MADE_OF, refuse)
    assert kept().files == 0
    assert artifact("weights", MADE_OF, Maker()).tensors


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"cannot write .*weights-\w+\.safetensors: No space left on device"):
            artifact("weights", MADE_OF, Maker())
    assert not [path for path in (tmp_path / ".lossboard" / "artifacts").iterdir() if path.is_file()]
    artifact("weights", MADE_OF, Maker())


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / ".lossboard").write_text("a file is in the way")
    with pytest.raises(StoreError, match=r"cannot lock .*\.lock: Not a directory"):
        artifact("weights", MADE_OF, refuse)


def test_a_lock_that_cannot_be(tmp_path: Path) -> None:
    path = artifact("weights", MADE_OF, Maker()).path
    path.unlink()
    lock = path.parent / "locks" / f"{path.stem}.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(StoreError, match=r"cannot lock .*\.lock: Is a directory"):
        artifact("weights", MADE_OF, refuse)


@pytest.mark.parametrize("name", ["", "../weights", "Weights", "a/b", ".hidden"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="a name is"):
        artifact(name, MADE_OF, refuse)


def test_what_made_it_must_be_plain() -> None:
    with pytest.raises(TypeError, match="Path"):
        artifact("weights", {"path": Path("x")}, refuse)
    with pytest.raises(ValueError, match="JSON"):
        artifact("weights", {"rate": float("nan")}, refuse)


# A maker in a process of its own: it leaves a mark when it begins, and then takes its time.
PROCESS = """
import sys, time, os
from pathlib import Path
import torch
from lossboard.artifacts import artifact
marks, seconds = Path(sys.argv[1]), float(sys.argv[2])
def make():
    (marks / str(os.getpid())).touch()
    time.sleep(seconds)
    return {"weight": torch.full((4,), float(os.getpid()))}
print(artifact("weights", {"seed": 0}, make).sha256)
"""


def start(marks: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(marks), str(seconds)]
    checkout = Path(artifacts.__file__).parents[1]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout)


def begun(marks: Path) -> int:
    """How many makers began, once there is one."""
    for _ in range(600):
        if count := len(list(marks.iterdir())):
            return count
        time.sleep(0.1)
    raise AssertionError("no process began")


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    both = [start(marks, 2.0), start(marks, 2.0)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert begun(marks) == 1
    assert kept().files == 1


def test_a_killed_maker_leaves_nothing_and_no_lock(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    process = start(marks, 600.0)
    assert begun(marks) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert kept().files == 0
    maker = Maker()
    artifact("weights", {"seed": 0}, maker)
    assert maker.calls == 1

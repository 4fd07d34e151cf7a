"""The cache is whole or not there, whoever else writes or is killed; damage and full disks are said plainly."""

import errno
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import Install, Tiny, idx_origin, images, python

from lossboard.data import DataError, Pin, cache, content_hash, fetch, load, pins, status
from lossboard.data.errors import WrongContent


@pytest.fixture
def pin(pictures: Tiny) -> Pin:
    return pins()["pictures"]


@pytest.fixture
def filled(pin: Pin, pictures: Tiny) -> Path:
    return cache.keep(pin, pictures.splits, cache.Origin("elsewhere"))


def test_arrays_are_mapped_not_read(filled: Path) -> None:
    features = load("pictures").features["train"]
    assert type(features) is np.ndarray
    assert isinstance(features.base, np.memmap)


def test_a_changed_byte_is_wrong_content(filled: Path) -> None:
    path = filled / "train.features.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WrongContent, match=rf"(?s){re.escape(str(filled))}.*Delete the folder .* fetch pictures"):
        load("pictures")


@pytest.mark.parametrize("file", ["origin.json", "train.features.npy", "test.labels.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_half_a_cache_is_an_error(filled: Path, file: str, damage: str) -> None:
    path = filled / file
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole[: len(whole) // 2 if damage == "half" else 0])
    with pytest.raises(DataError, match=rf"the cached copy is damaged: .*{re.escape(file)}(?s:.)*Delete the folder"):
        load("pictures")
    assert status("pictures").local is None or file != "origin.json"


def test_other_content_lies_elsewhere(filled: Path, tmp_path: Path, install: Install) -> None:
    other = install(Tiny("pictures", images(9), idx_origin(tmp_path / "none")))
    assert cache.folder(other) != filled
    with pytest.raises(DataError, match="no place has it"):
        load("pictures")


# One process waits for all others, then each decodes and keeps the same images.
FILL = """
import os, time
from lossboard.data import load, content_hash
Path(sys.argv[2], str(os.getpid())).touch()
while len(os.listdir(sys.argv[2])) < int(sys.argv[3]): time.sleep(0.001)
d = load("pictures")
print([content_hash(d.features[s], d.labels[s]) for s in d.features])
"""


def test_processes_filling_it_at_once(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Tiny("pictures", images(400), idx_origin(tmp_path / "none"))
    pin = install(tiny)
    data = str(tiny.write(tmp_path / "data"))
    (tmp_path / "waiting").mkdir()
    processes = [python(FILL, tmp_path / "waiting", 4, LOSSBOARD_DATA=data) for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert {output for output, _ in outputs} == {f"{list(pin.content.values())}\n"}
    assert all("Warning" not in errors for _, errors in outputs), outputs
    assert [path.name for path in (tmp_path / "cache" / "datasets").iterdir()] == [cache.folder(pin).name]
    monkeypatch.setenv("LOSSBOARD_DATA", data)
    assert load("pictures").source.startswith("cache ")


def test_the_second_writer_leaves_the_first_ones_copy(
    pin: Pin, pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = cache._write

    def overtaken(made: Path, *rest: object) -> None:
        write(made, *rest)  # type: ignore[arg-type]
        monkeypatch.setattr(cache, "_write", write)
        cache.keep(pin, pictures.splits, cache.Origin("the first"))

    monkeypatch.setattr(cache, "_write", overtaken)
    assert cache.keep(pin, pictures.splits, cache.Origin("the second")) == cache.folder(pin)
    assert cache.find(pin).made_from == "the first"
    assert os.listdir(tmp_path / "cache" / "datasets") == [cache.folder(pin).name]


KILLED = """
import os
from lossboard.data import cache, load
cache._flush = lambda descriptor: os._exit(9)
load("pictures")
"""


def test_a_killed_writer_leaves_no_half_cache(
    pictures: Tiny, pin: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(pictures.write(tmp_path / "data"))
    process = python(KILLED, LOSSBOARD_DATA=data)
    process.communicate(timeout=60)
    assert process.returncode == 9
    (left,) = (tmp_path / "cache" / "datasets").iterdir()
    assert not cache.folder(pin).exists()

    monkeypatch.setenv("LOSSBOARD_DATA", data)
    load("pictures")
    assert cache.folder(pin).exists()
    assert left.exists()  # it might be another process at work

    old = time.time() - cache.ABANDONED_S - 60
    os.utime(left, (old, old))
    cache.keep(pin, pictures.splits, cache.Origin("elsewhere"))
    assert not left.exists()


def test_a_full_disk_costs_the_cache_only(
    pictures: Tiny, pin: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_flush", full)
    monkeypatch.setenv("LOSSBOARD_DATA", str(pictures.write(tmp_path / "data")))
    with pytest.warns(UserWarning, match=r"pictures: could not be kept in the cache .*No space left.*LOSSBOARD_CACHE"):
        dataset = load("pictures")
    assert content_hash(dataset.features["train"], dataset.labels["train"]) == pin.content["train"]
    assert list((tmp_path / "cache" / "datasets").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file where a folder should be: unlike permissions, this also stops the superuser.
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOSSBOARD_CACHE", str(tmp_path / "file" / "cache"))
    tiny = Tiny("pictures", images(), idx_origin(tmp_path / "none"))
    install(tiny)
    monkeypatch.setenv("LOSSBOARD_DATA", str(tiny.write(tmp_path / "data")))
    with pytest.warns(UserWarning, match="could not be kept in the cache"):
        assert load("pictures").source == str(tmp_path / "data" / "pictures")


def test_fetching_without_a_cache_is_an_error(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOSSBOARD_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "rows.txt").write_text("0 1\n1 2\n2 3\n")
    rows = 'rows = { label = 0, features = [1, 2], codes = ["0", "1", "2"] }'
    origin = f'format = "rows"\n{rows}\naddresses = {{ all = ["{(tmp_path / "rows.txt").as_uri()}"] }}'
    install(Tiny("line", {"train": (np.array([[1], [2], [3]], np.float32), np.arange(3))}, origin))
    with (
        pytest.warns(UserWarning, match="could not be kept"),
        pytest.raises(DataError, match=r"(?s)line: fetched from .* could not be kept .*Set LOSSBOARD_CACHE"),
    ):
        fetch("line")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/lossboard"),
        ("linux", {"XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/lossboard"),
        ("darwin", {}, "Library/Caches/lossboard"),
        ("win32", {}, "AppData/Local/lossboard"),
        ("linux", {"LOSSBOARD_CACHE": "~/mine"}, "mine"),
    ],
)
def test_where_the_cache_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for variable in ("LOSSBOARD_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", platform)
    assert cache.root() == tmp_path / expected


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LOSSBOARD_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    assert cache.root().name == "lossboard"

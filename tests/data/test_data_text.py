"""Texts: the bytes of files, found under the names they were published with, verified like everything else."""

import gzip
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import PINS

from lossboard.data import DataError, cache, fetch, load, pins, status, verify
from lossboard.data.errors import WrongContent

TEXTS = {"valid": "a line\nand “another”\n".encode(), "test": b"\x1fx\n"}
FILES = {"valid": "part-1.txt", "test": "part-2.txt"}


def entry(folder: Path, ending: str = "") -> str:
    lines = {
        "splits": {split: str(len(text)) for split, text in TEXTS.items()},
        "addresses": {split: f'["{(folder / f"{file}{ending}").as_uri()}"]' for split, file in FILES.items()},
        "content": {split: f'"{hashlib.sha256(text).hexdigest()}"' for split, text in TEXTS.items()},
    }
    tables = "".join(f"{key} = {{ {', '.join(f'{s} = {v}' for s, v in of.items())} }}\n" for key, of in lines.items())
    return f'[book]\nkind = "text"\nlicense = "none"\ncitation = "none"\nformat = "plain"\n{tables}'


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split, text in TEXTS.items():
        (folder / FILES[split]).write_bytes(text)
    return folder


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    def replace(text: str) -> None:
        (tmp_path / "pins.toml").write_text(text)
        monkeypatch.setattr(PINS, "PATH", tmp_path / "pins.toml")
        pins.cache_clear()
        load.cache_clear()

    return replace


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Callable[[str], None]) -> Path:
    """The folder of a text in LOSSBOARD_DATA, which is the only place that has it."""
    install(entry(tmp_path / "no-such-folder"))
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "data"))
    return write(tmp_path / "data" / "book")


def assert_is_the_book() -> None:
    dataset = load("book")
    assert (dataset.kind, dataset.classes, dataset.class_names) == ("text", 0, ())
    for split, text in TEXTS.items():
        assert dataset.features[split].dtype == np.uint8
        assert dataset.features[split].tobytes() == text
        assert not dataset.features[split].flags.writeable
        assert (dataset.labels[split].shape, dataset.labels[split].dtype) == ((0,), np.int64)


def test_a_text_in_the_folder(book: Path) -> None:
    assert_is_the_book()
    assert load("book").source == str(book)
    assert not cache.root().exists()
    here = status("book")
    assert here.local is not None
    assert (here.kind, here.classes, here.rows, here.local.where) == ("text", 0, 28, str(book))


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_from_its_address_then_from_the_cache(
    tmp_path: Path, install: Callable[[str], None], packed: bool
) -> None:
    served = write(tmp_path / "served")
    if packed:
        for path in list(served.iterdir()):
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    install(entry(served, ".gz" if packed else ""))
    assert_is_the_book()
    for path in served.iterdir():
        path.unlink()
    load.cache_clear()
    assert_is_the_book()
    assert load("book").source.startswith(f"cache {fetch('book')}, made from file://")
    assert [check.step for check in verify("book").checks] == ["cache", "cache"]
    assert verify("book").ok


@pytest.mark.parametrize(
    "damage", [lambda t: t[:-1], lambda t: t + b"\n", lambda t: t.replace(b"a", b"b"), lambda t: b""]
)
def test_another_text_ends_the_look_up(book: Path, damage: Callable[[bytes], bytes]) -> None:
    path = book / FILES["valid"]
    path.write_bytes(damage(path.read_bytes()))
    message = rf"book/valid: the content is not what was pinned(.|\n)*{re.escape(str(path))}"
    with pytest.raises(WrongContent, match=message):
        load("book")
    assert {check.split: check.ok for check in verify("book").checks} == {"valid": False, "test": True}


def test_half_a_text(book: Path) -> None:
    (book / FILES["test"]).unlink()
    with pytest.raises(DataError, match=r"part-2\.txt is missing beside part-1\.txt"):
        load("book")


def test_a_text_that_is_nowhere(tmp_path: Path, install: Callable[[str], None]) -> None:
    install(entry(tmp_path / "no-such-folder"))
    with pytest.raises(DataError, match=r"LOSSBOARD_DATA to a folder that holds book/part-1\.txt and book/part-2\.txt"):
        load("book")


BROKEN = [  # what is changed in a good entry, and what the message must name
    ('license = "none"', 'license = "none"\nshape = [1]', "shape: does not go with kind = 'text'"),
    ('license = "none"', 'license = "none"\nhub = "a/b"', "hub: does not go with kind = 'text'"),
    ('license = "none"', 'license = "none"\nrows = {}', "rows: does not go with kind = 'text'"),
    ('format = "plain"', 'format = "idx"', "format: 'plain' goes with kind = 'text'"),
    ("addresses = { valid", "addresses = { train", "addresses: must name the files test, valid"),
    ('content = { valid = "', 'content = { valid = "file:', "content: must be of the same form for each split"),
]


@pytest.mark.parametrize(("text", "replacement", "message"), BROKEN, ids=[message[:30] for *_, message in BROKEN])
def test_a_wrong_entry_is_named(
    tmp_path: Path, install: Callable[[str], None], text: str, replacement: str, message: str
) -> None:
    good = entry(tmp_path)
    install(good)
    assert set(pins()) == {"book"}
    assert text in good
    install(good.replace(text, replacement))
    with pytest.raises(DataError, match=re.escape(f"[book] {message}")):
        pins()


def test_a_text_is_pinned_by_its_bytes(tmp_path: Path, install: Callable[[str], None]) -> None:
    install(re.sub('= "([0-9a-f]{64})"', r'= "file:\1"', entry(tmp_path)))
    with pytest.raises(DataError, match="content: a text is pinned by the hash of its bytes alone"):
        pins()

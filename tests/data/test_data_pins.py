"""The pins file: what is in it, that a wrong key is named, and that reading it stays cheap."""

import dataclasses
import re
import time
from pathlib import Path

import pytest
from tiny_datasets import PINS, Tiny, nowhere, python, tabular

from lossboard.data import DataError, load, pins

SHIPPED = {"digits", "letter", "vowel", "pendigits", "satimage", "usps", "mnist", "fashion_mnist"}

# what is changed in a good entry: (text, its replacement, what the message must name)
BROKEN = [
    ('license = "none"', 'license = "none"\ncolour = "red"', "colour: unknown key"),
    ('license = "none"\n', "", "license: this key is missing"),
    ('license = "none"', 'license = ""', "license: must be a non-empty string"),
    ('kind = "tabular"', 'kind = "audio"', "kind: must be one of tabular, image"),
    ('kind = "tabular"', "kind = [1]", "kind: must be one of tabular, image"),
    ("classes = 3", "classes = 1", "classes: must be a whole number, 2 or more"),
    ("classes = 3", "classes = true", "classes: must be a whole number"),
    ('["a", "b", "c"]', '["a", "b", "b"]', "class_names: must be 3 different strings"),
    ("shape = [4]", "shape = [4, 1]", "shape: must be 1 positive"),
    ("shape = [4]", "shape = [0]", "shape: must be 1 positive"),
    ("train = 7", "train = 0", "splits: must give each split its number of rows"),
    ("train = 7", 'train = "7"', "splits: must be a table of row counts"),
    ("train = 7, ", "train = 7, valid = 2, ", "content: must have the splits train, valid, test"),
    ("features = [1, 5]", "features = [1, 4]", "rows.features: must be [first, end] with end - first = 4"),
    ('codes = ["0", "1", "2"]', 'codes = ["0", "1"]', "rows.codes: must be 3, one a class"),
    ("label = 0, ", "", "rows.label: this key is missing"),
    ("label = 0, ", "label = 0, skip = 1, ", "rows.skip: unknown key"),
    ('format = "rows"', 'format = "xls"', "format: must be one of idx, rows"),
    ('format = "rows"', 'format = "idx"', "rows: goes with format"),
    ('format = "rows"', 'format = "rows"\nhub = "a/b"', "bundled, hub, addresses: give one of these three, not 2"),
    ("{ train = [", "{ extra = [", "addresses: must name the files test, train or all"),
    ("file://", "ftp://", "addresses.train: must be a list of"),
]


@pytest.mark.parametrize(("text", "replacement", "message"), BROKEN, ids=[message[:40] for *_, message in BROKEN])
def test_a_wrong_entry_is_named(tmp_path: Path, text: str, replacement: str, message: str) -> None:
    good = Tiny("table", tabular(), nowhere(tmp_path)).entry()
    path = tmp_path / "pins.toml"
    path.write_text(good)
    assert PINS.read(path)["table"].splits == {"train": 7, "test": 5}
    assert text in good
    path.write_text(good.replace(text, replacement))
    with pytest.raises(DataError, match=re.escape(f"{path}: [table] {message}")):
        PINS.read(path)


def test_a_hash_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "pins.toml"
    entry = Tiny("table", tabular(), nowhere(tmp_path)).entry()
    path.write_text(re.sub('train = "[0-9a-f]{64}"', 'train = "abc"', entry))
    with pytest.raises(DataError, match=r"\[table\] content.train: must be 64"):
        PINS.read(path)


def test_data_must_come_from_somewhere(tmp_path: Path) -> None:
    path = tmp_path / "pins.toml"
    path.write_text(Tiny("table", tabular(), "").entry())
    with pytest.raises(DataError, match=r"\[table\] bundled, hub, addresses: give one of these three, not 0"):
        PINS.read(path)


@pytest.mark.parametrize("revision", ["", 'revision = "main"'])
def test_a_branch_of_the_hub_is_no_pin(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "pins.toml"
    path.write_text(Tiny("table", tabular(), f'hub = "a/b"\n{revision}').entry())
    with pytest.raises(DataError, match="revision: must be a commit"):
        PINS.read(path)


@pytest.mark.parametrize("text", ["[table", "table = 3"])
def test_a_file_that_holds_no_tables(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pins.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(str(path))):
        PINS.read(path)


def test_what_ships() -> None:
    assert set(pins()) == SHIPPED
    assert {name for name, pin in pins().items() if pin.kind == "image"} == {"mnist", "fashion_mnist"}
    assert len({pin.digest for pin in pins().values()}) == len(SHIPPED)
    with pytest.raises(TypeError):
        pins()["digits"] = pins()["mnist"]  # type: ignore[index]


def test_the_digest_follows_the_content_alone() -> None:
    pin = pins()["letter"]
    assert re.fullmatch("[0-9a-f]{12}", pin.digest)
    turned = dict(reversed(list(pin.content.items())))
    assert dataclasses.replace(pin, license="other", addresses={}, content=turned).digest == pin.digest
    swapped = {"train": pin.content["test"], "test": pin.content["train"]}
    assert dataclasses.replace(pin, content=swapped).digest != pin.digest


def test_an_unknown_name_gets_its_nearest() -> None:
    with pytest.raises(DataError, match=r"no dataset is called 'leter'. Did you mean letter\? Known: digits, letter"):
        load("leter")


def test_reading_is_quick() -> None:
    def once() -> float:
        pins.cache_clear()
        start = time.perf_counter()
        pins()
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.02


def test_listing_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pandas', 'sklearn', 'torch', 'datasets', 'pyarrow', 'PIL'}"
    code = (
        f"from lossboard.data import pins, status\nfor name in pins(): status(name)\nprint({heavy} & set(sys.modules))"
    )
    output, errors = python(code).communicate()
    assert output.strip() == "set()", errors

"""The pins file: what is in it, that a wrong key is named, and that reading it stays cheap."""

import dataclasses
import re
from pathlib import Path

import pytest
from tiny_datasets import PINS, Tiny, nowhere, python, tabular

from lossboard.data import DataError, load, pins

TABLES = {"digits", "letter", "vowel", "pendigits", "satimage", "shuttle", "dna", "usps"}
TABLES |= {"overlap", "plane", "cifar10_cvprobs", "cifar10h"}
IMAGES = {"mnist", "fashion_mnist", "cifar10", "cifar10_jpeg", "cifar100"}
LABELS = {"cifar10n", "cifar100n"}
TEXTS = {"tinyshakespeare", "wikitext2"}
MULAN = {
    *("emotions", "scene", "yeast", "enron", "medical", "bibtex", "birds"),
    *("corel5k", "delicious", "tmc2007_500", "genbase", "flags", "cal500"),
}
MULTILABEL = MULAN | {"documents", "digit_pairs"}
KINDS = {"tabular": TABLES, "image": IMAGES, "multilabel": MULTILABEL, "labels": LABELS, "text": TEXTS}
SHIPPED = set().union(*KINDS.values())

# what is changed in a good entry: (text, its replacement, what the message must name)
BROKEN = [
    ('license = "none"', 'license = "none"\ncolour = "red"', "colour: unknown key"),
    ('license = "none"\n', "", "license: this key is missing"),
    ('license = "none"', 'license = ""', "license: must be a non-empty string"),
    ('kind = "tabular"', 'kind = "audio"', "kind: must be one of tabular, image, multilabel, labels, text"),
    ('kind = "tabular"', "kind = [1]", "kind: must be one of tabular, image, multilabel, labels"),
    ('kind = "tabular"', 'kind = "text"', "classes: does not go with kind = 'text'"),
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
    (
        'format = "rows"',
        'format = "xls"',
        "format: must be one of idx, rows, libsvm, class_folders, torch, plain, arff",
    ),
    ('format = "rows"', 'format = "idx"', "rows: goes with format"),
    ('format = "rows"', 'format = "rows"\nhub = "a/b"', "bundled, hub, addresses: give one of these three, not 2"),
    ("{ train = [", "{ extra = [", "addresses: must name the files test, train or all"),
    ("file://", "ftp://", "addresses.train: must be a list of"),
    (
        'license = "none"',
        'license = "none"\ncolumns = { label = "y" }',
        "columns: must name the columns 'features' and",
    ),
    ('license = "none"', 'license = "none"\ncolumns = { label = 1 }', "columns: must be a table of column names"),
    ('license = "none"', 'license = "none"\nlabels_of = ["a"]', "labels_of: belongs to kind = 'labels'"),
    ('license = "none"', 'license = "none"\nbatches = { test = [2, 1] }', "batches.test: must be an order of 1, 2"),
    ('license = "none"', 'license = "none"\nbatches = { test = [0, 1] }', "batches.test: must be an order of 1, 2"),
    ('license = "none"', 'license = "none"\nbatches = { test = 5 }', "batches: must be a table of orders"),
    ('kind = "tabular"', 'kind = "labels"', "labels_of: must name the datasets"),
    ('kind = "tabular"', 'kind = "multilabel"', "format: 'arff' goes with kind = 'multilabel'"),
    ('license = "none"', 'license = "none"\nleft_out = ["a"]', "left_out: must name attributes, of format = 'arff'"),
    ('kind = "tabular"', 'kind = "labels"\nlabels_of = ["a"]', "columns: must name 4 columns, one of them 'clean'"),
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
    refused = {
        "abc": "content.train: must be 64 lower-case hex digits",
        "sha1:" + "0" * 64: "content.train: must be 64",
        "features:" + "0" * 64: "content.train: must be 64",
        "encoded:" + "0" * 64: "content: must be of the same form for each split",
        "file:" + "0" * 64: "content: must be of the same form for each split",
    }
    for value, message in refused.items():
        path.write_text(re.sub('train = "[0-9a-f]{64}"', f'train = "{value}"', entry))
        with pytest.raises(DataError, match=re.escape(f"[table] {message}")):
            PINS.read(path)


@pytest.mark.parametrize(
    ("form", "message"),
    [("encoded", "content: only images are pinned as 'encoded:'"), ("file", "content: only a dataset of the hub")],
)
def test_a_table_is_pinned_by_its_content(tmp_path: Path, form: str, message: str) -> None:
    path = tmp_path / "pins.toml"
    content = dict.fromkeys(("train", "test"), f"{form}:{'0' * 64}")
    path.write_text(Tiny("table", tabular(), nowhere(tmp_path), content).entry())
    with pytest.raises(DataError, match=re.escape(f"[table] {message}")):
        PINS.read(path)


def test_files_that_pin_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "pins.toml"
    content = {"train": f"file:{'0' * 64}", "test": f"file:{'1' * 64}"}
    origin = f'hub = "a/b"\nrevision = "{"0" * 40}"\nfiles = {{ "train.parquet" = "{"0" * 64}" }}'
    path.write_text(Tiny("table", tabular(), origin, content).entry())
    with pytest.raises(DataError, match=r"\[table\] files: must name the files that the splits are pinned by"):
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
    for kind, names in KINDS.items():
        assert {name for name, pin in pins().items() if pin.kind == kind} == names
    assert {name: pin.pinned for name, pin in pins().items() if pin.pinned != "content"} == {
        "cifar10": "arrays",
        "cifar10_jpeg": "encoded",
        "cifar100": "file",
    }
    assert {of for pin in pins().values() for of in pin.labels_of} == {"cifar10", "cifar10_jpeg", "cifar100"}
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


def test_listing_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pandas', 'sklearn', 'torch', 'datasets', 'pyarrow', 'PIL'}"
    code = (
        f"from lossboard.data import pins, status\nfor name in pins(): status(name)\nprint({heavy} & set(sys.modules))"
    )
    output, errors = python(code).communicate()
    assert output.strip() == "set()", errors

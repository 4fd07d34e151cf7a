"""The pins: what each dataset is, read from pins.toml and checked key by key.

Reading them costs a few milliseconds and imports nothing heavy, so that planning and listing stay quick.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from lossboard.data.dataset import Kind
from lossboard.data.errors import UnknownDataset

Pinned = Literal["content", "arrays", "encoded", "file"]
PATH = Path(__file__).with_name("pins.toml")
REQUIRED = ("kind", "splits", "content", "license", "citation")
CLASSES = ("classes", "class_names", "shape")  # required, but of a text
OPTIONAL = (
    *("notes", "columns", "batches", "labels_of", "left_out"),
    *("bundled", "hub", "config", "revision", "files", "addresses", "format", "rows"),
)
# A text is the bytes of files at addresses, nothing in it is a row, a column or a label.
NOT_OF_TEXT = (*CLASSES, "columns", "batches", "labels_of", "left_out", "rows", "bundled", "hub")
ROWS = ("label", "features", "codes", "split")
FORMATS = ("idx", "rows", "libsvm", "class_folders", "torch", "plain", "arff", "npy")
TABLES = ("rows", "libsvm")
# The axes of one sample: (d,) for tabular and multi-label data, (H, W, C) for images, (k,) for k label sets, none for a
# byte of text.
AXES = {"tabular": 1, "image": 3, "multilabel": 1, "labels": 1, "text": 0}
# Formats that belong to one kind, and that kind to them.
OWN_FORMAT = {"labels": "torch", "text": "plain", "multilabel": "arff"}
HASH = "[0-9a-f]{64}"
# What a split is pinned by, and how its hash is written.
PINNED: dict[Pinned, str] = {
    "content": HASH,
    "arrays": f"features:{HASH} labels:{HASH}",
    "encoded": f"encoded:{HASH}",
    "file": f"file:{HASH}",
}


@dataclass(frozen=True)
class Rows:
    """How a text table is laid out: `features` are columns from 0 on or, in "libsvm", numbers; the end is exclusive."""

    label: int
    features: tuple[int, int]
    codes: tuple[str, ...]  # the label as the file writes it, in the order of the classes
    split: int | None = None  # the column that numbers the splits 0, 1, ...; None: a file a split, or cut by position


@dataclass(frozen=True)
class Pin:
    """One entry of pins.toml: what the dataset is, and one of the three ways in which it can be had."""

    name: str
    kind: Kind
    classes: int  # 0 in a text
    class_names: tuple[str, ...]
    shape: tuple[int, ...]  # of one sample
    splits: Mapping[str, int]  # rows; bytes of a text
    content: Mapping[str, str]  # what pins each split, in one of the forms of PINNED
    license: str
    citation: str
    notes: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)  # our name: the column's name in Parquet and other tables
    batches: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # the original's equal parts, as they are stored
    labels_of: tuple[str, ...] = ()  # kind "labels": the datasets whose rows these labels are for
    left_out: tuple[str, ...] = ()  # attributes of an ARFF file that name a row and describe nothing
    bundled: str | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    format: str | None = None
    rows: Rows | None = None

    @property
    def pinned(self) -> Pinned:
        """What every split is pinned by."""
        first = next(iter(self.content.values()))
        return next(form for form, pattern in PINNED.items() if re.fullmatch(pattern, first))

    @property
    def digest(self) -> str:
        """12 hex digits that change when, and only when, the content of a split does."""
        lines = "".join(f"{split} {content}\n" for split, content in sorted(self.content.items()))
        return hashlib.sha256(lines.encode()).hexdigest()[:12]


@functools.cache
def pins() -> Mapping[str, Pin]:
    """All pins by dataset name, in the order of pins.toml; raises UnknownDataset where the file is wrong."""
    return MappingProxyType(read(PATH))


def find(name: str) -> Pin:
    """The pin of one dataset; raises UnknownDataset that names the nearest ones if there is none."""
    known = pins()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UnknownDataset(f"no dataset is called {name!r}. {hint}Known: {', '.join(known)}")


def read(path: Path) -> dict[str, Pin]:
    """Parse and validate a pins file; raises UnknownDataset naming the file, the dataset and the key."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnknownDataset(f"{path}: cannot be read as TOML: {error}") from error
    return {name: _pin(_Entry(path, name, table)) for name, table in tables.items()}


class _Entry:
    """One table of the file; every check names the file, the dataset and the key at fault."""

    def __init__(self, path: Path, name: str, table: Any) -> None:
        self.path, self.name = path, name
        if not isinstance(table, dict):
            self.refuse(name, "must be a table: [name] with keys below it")
        self.table: dict[str, Any] = table

    def refuse(self, key: str, what: str) -> NoReturn:
        raise UnknownDataset(f"{self.path}: [{self.name}] {key}: {what}")

    def require(self, good: bool, key: str, what: str) -> None:
        if not good:
            self.refuse(key, what)

    def keys(self, found: Iterable[str], required: Iterable[str], optional: Iterable[str], prefix: str = "") -> None:
        known = [*required, *optional]
        for key in found:
            self.require(key in known, prefix + key, f"unknown key; the known ones are {', '.join(known)}")
        for key in required:
            self.require(key in found, prefix + key, "this key is missing")

    def text(self, key: str) -> str | None:
        value = self.table.get(key)
        self.require(value is None or (isinstance(value, str) and value != ""), key, "must be a non-empty string")
        return value

    def mapping(self, key: str, of: type, what: str) -> dict[str, Any]:
        value = self.table.get(key, {})
        good = isinstance(value, dict) and all(_is(item, of) for item in value.values())
        self.require(good, key, f"must be a table of {what}")
        return value


def _is(value: Any, of: type) -> bool:
    return isinstance(value, of) and not isinstance(value, bool)


def _all(values: Any, of: type) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(_is(value, of) for value in values)


def _pin(entry: _Entry) -> Pin:
    table, require = entry.table, entry.require
    entry.keys(table, REQUIRED, (*CLASSES, *OPTIONAL))
    kind = table["kind"]
    require(isinstance(kind, str) and kind in AXES, "kind", f"must be one of {', '.join(AXES)}, not {kind!r}")
    classes, names, shape = _classes(entry, kind)
    splits = entry.mapping("splits", int, "row counts")
    require(len(splits) > 0 and min(splits.values()) > 0, "splits", "must give each split its number of rows")
    content = entry.mapping("content", str, "sha256 strings")
    require(content.keys() == splits.keys(), "content", f"must have the splits {', '.join(splits)}")
    _check_content(entry, content, kind)
    pin = Pin(
        name=entry.name,
        kind=kind,
        classes=classes,
        class_names=names,
        shape=shape,
        splits=splits,
        content=content,
        license=entry.text("license") or "",
        citation=entry.text("citation") or "",
        notes=entry.text("notes") or "",
        columns=entry.mapping("columns", str, "column names"),
        batches={split: tuple(order) for split, order in entry.mapping("batches", list, "orders").items()},
        labels_of=tuple(table.get("labels_of", ())),
        left_out=tuple(table.get("left_out", ())),
        bundled=entry.text("bundled"),
        hub=entry.text("hub"),
        config=entry.text("config"),
        revision=entry.text("revision"),
        files=entry.mapping("files", str, "sha256 strings"),
        addresses={file: tuple(urls) for file, urls in entry.mapping("addresses", list, "lists of addresses").items()},
        format=entry.text("format"),
        rows=_rows(entry),
    )
    _check_layout(entry, pin)
    _check_origin(entry, pin)
    return pin


def _classes(entry: _Entry, kind: str) -> tuple[int, tuple[str, ...], tuple[int, ...]]:
    """The classes, their names and the shape of one sample; a text has none of them."""
    table, require = entry.table, entry.require
    if kind == "text":
        for key in NOT_OF_TEXT:
            require(key not in table, key, "does not go with kind = 'text'")
        return 0, (), ()
    for key in CLASSES:
        require(key in table, key, "this key is missing")
    classes, names, shape = (table[key] for key in CLASSES)
    require(_is(classes, int) and classes >= 2, "classes", "must be a whole number, 2 or more")
    require(_all(names, str) and len(set(names)) == classes, "class_names", f"must be {classes} different strings")
    good_shape = _all(shape, int) and len(shape) == AXES[kind] and min(shape) > 0
    require(good_shape, "shape", f"must be {AXES[kind]} positive number(s), the shape of one {kind} sample")
    return classes, tuple(names), tuple(shape)


def _check_content(entry: _Entry, content: Mapping[str, str], kind: str) -> None:
    """A hash for each split, all in the same form."""
    found = set()
    for split, value in content.items():
        form = next((form for form, pattern in PINNED.items() if re.fullmatch(pattern, value)), None)
        what = "must be 64 lower-case hex digits, or such after 'features:' and 'labels:', 'encoded:' or 'file:'"
        entry.require(form is not None, f"content.{split}", what)
        found.add(form)
    entry.require(len(found) == 1, "content", "must be of the same form for each split")
    entry.require(kind == "image" or found != {"encoded"}, "content", "only images are pinned as 'encoded:'")
    entry.require(kind != "text" or found == {"content"}, "content", "a text is pinned by the hash of its bytes alone")


def _check_layout(entry: _Entry, pin: Pin) -> None:
    """The columns of tables, the order of stored batches, and what a set of labels belongs to."""
    require = entry.require
    if pin.kind == "labels":
        require(_all(entry.table.get("labels_of"), str), "labels_of", "must name the datasets that the labels are for")
        good = "clean" in pin.columns and len(pin.columns) == pin.shape[0]
        require(good, "columns", f"must name {pin.shape[0]} columns, one of them 'clean'")
        require(set(pin.splits) == {"train"}, "splits", "must be 'train': labels are for training rows")
    else:
        require("labels_of" not in entry.table, "labels_of", "belongs to kind = 'labels'")
        good = not pin.columns or set(pin.columns) == {"features", "label"}
        require(good, "columns", "must name the columns 'features' and 'label'")
    if "left_out" in entry.table:
        good = _all(entry.table["left_out"], str) and pin.format == "arff"
        require(good, "left_out", "must name attributes, of format = 'arff'")
    for split, order in pin.batches.items():
        good = sorted(order) == list(range(1, len(order) + 1)) and pin.splits.get(split, 1) % len(order) == 0
        require(good, f"batches.{split}", "must be an order of 1, 2, ... that divides the rows of a split")


def _rows(entry: _Entry) -> Rows | None:
    if "rows" not in entry.table:
        return None
    table, require = entry.table["rows"], entry.require
    require(isinstance(table, dict), "rows", "must be a table")
    entry.keys(table, ROWS[:3], ROWS[3:], "rows.")
    label, features, codes, split = (table.get(key) for key in ROWS)
    require(_is(label, int), "rows.label", "must be the number of a column")
    require(split is None or _is(split, int), "rows.split", "must be the number of a column")
    width = entry.table["shape"][0]
    good = _all(features, int) and len(features) == 2 and features[1] - features[0] == width
    require(good, "rows.features", f"must be [first, end] with end - first = {width}")
    require(_all(codes, str) and len(set(codes)) == len(codes), "rows.codes", "must be different strings")
    require(len(codes) == entry.table["classes"], "rows.codes", f"must be {entry.table['classes']}, one a class")
    return Rows(label=label, features=(features[0], features[1]), codes=tuple(codes), split=split)


def _check_origin(entry: _Entry, pin: Pin) -> None:
    """One way to have the data, and every key that this way needs and no other."""
    require = entry.require
    given = [key for key in ("bundled", "hub", "addresses") if getattr(pin, key)]
    require(len(given) == 1, "bundled, hub, addresses", f"give one of these three, not {len(given)}")
    if pin.hub:
        good = pin.revision is not None and re.fullmatch("[0-9a-f]{40}", pin.revision) is not None
        require(good, "revision", "must be a commit, 40 hex digits: a branch moves")
        if pin.pinned == "file":
            hashes = {value.removeprefix("file:") for value in pin.content.values()}
            require(hashes <= set(pin.files.values()), "files", "must name the files that the splits are pinned by")
    else:
        for key in ("config", "revision", "files"):
            require(key not in entry.table, key, "belongs to a dataset of the hub")
        require(pin.pinned != "file", "content", "only a dataset of the hub is pinned by its files")
    if pin.addresses:
        require(pin.format in FORMATS, "format", f"must be one of {', '.join(FORMATS)}, not {pin.format!r}")
        require(
            (pin.format in TABLES) == (pin.rows is not None),
            "rows",
            "goes with format = 'rows' or 'libsvm', and must then be there",
        )
        _check_addresses(entry, pin)
    else:
        for key in ("format", "rows"):
            require(key not in entry.table, key, "belongs to a dataset with addresses")


def _check_addresses(entry: _Entry, pin: Pin) -> None:
    allowed = {
        "idx": [{f"{split}_{part}" for split in pin.splits for part in ("images", "labels")}],
        "class_folders": [{"images", *(f"{split}_labels" for split in pin.splits)}],
        "torch": [set(pin.splits)],
        "plain": [set(pin.splits)],
        "npy": [{f"{split}_{part}" for split in pin.splits for part in ("features", "labels")}],
    }.get(str(pin.format), [set(pin.splits), {"all"}])
    encoded = pin.pinned != "encoded" or pin.format == "class_folders"
    entry.require(encoded, "content", "'encoded:' goes with format = 'class_folders', or with the hub")
    for kind, form in OWN_FORMAT.items():
        entry.require((pin.format == form) == (pin.kind == kind), "format", f"{form!r} goes with kind = {kind!r}")
    text = " or ".join(", ".join(sorted(files)) for files in allowed)
    entry.require(set(pin.addresses) in allowed, "addresses", f"must name the files {text}")
    for file, urls in pin.addresses.items():
        good = len(urls) > 0 and all(isinstance(url, str) and re.match("(https?|file)://", url) for url in urls)
        entry.require(good, f"addresses.{file}", "must be a list of https://, http:// or file:// addresses")

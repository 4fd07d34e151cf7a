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
from typing import Any, NoReturn

from lossboard.data.dataset import Kind
from lossboard.data.errors import UnknownDataset

PATH = Path(__file__).with_name("pins.toml")
REQUIRED = ("kind", "classes", "class_names", "shape", "splits", "content", "license", "citation")
OPTIONAL = ("notes", "bundled", "hub", "config", "revision", "files", "addresses", "format", "rows")
ROWS = ("label", "features", "codes", "split")
FORMATS = ("idx", "rows")
# The axes of one sample: (d,) for tabular data, (H, W, C) for images.
AXES = {"tabular": 1, "image": 3}


@dataclass(frozen=True)
class Rows:
    """How a text table is laid out; columns count from 0, the end of `features` is exclusive."""

    label: int
    features: tuple[int, int]
    codes: tuple[str, ...]  # the label as the file writes it, in the order of the classes
    split: int | None = None  # the column that numbers the splits 0, 1, ...; None: a file a split, or cut by position


@dataclass(frozen=True)
class Pin:
    """One entry of pins.toml: what the dataset is, and one of the three ways in which it can be had."""

    name: str
    kind: Kind
    classes: int
    class_names: tuple[str, ...]
    shape: tuple[int, ...]  # of one sample
    splits: Mapping[str, int]  # rows
    content: Mapping[str, str]  # sha256 of the decoded arrays
    license: str
    citation: str
    notes: str = ""
    bundled: str | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    format: str | None = None
    rows: Rows | None = None

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
    entry.keys(table, REQUIRED, OPTIONAL)
    kind, classes, names, shape = table["kind"], table["classes"], table["class_names"], table["shape"]
    require(isinstance(kind, str) and kind in AXES, "kind", f"must be one of {', '.join(AXES)}, not {kind!r}")
    require(_is(classes, int) and classes >= 2, "classes", "must be a whole number, 2 or more")
    require(_all(names, str) and len(set(names)) == classes, "class_names", f"must be {classes} different strings")
    good_shape = _all(shape, int) and len(shape) == AXES[kind] and min(shape) > 0
    require(good_shape, "shape", f"must be {AXES[kind]} positive number(s), the shape of one {kind} sample")
    splits = entry.mapping("splits", int, "row counts")
    require(len(splits) > 0 and min(splits.values()) > 0, "splits", "must give each split its number of rows")
    content = entry.mapping("content", str, "sha256 strings")
    require(content.keys() == splits.keys(), "content", f"must have the splits {', '.join(splits)}")
    for split, value in content.items():
        require(re.fullmatch("[0-9a-f]{64}", value) is not None, f"content.{split}", "must be 64 lower-case hex digits")
    pin = Pin(
        name=entry.name,
        kind=kind,
        classes=classes,
        class_names=tuple(names),
        shape=tuple(shape),
        splits=splits,
        content=content,
        license=entry.text("license") or "",
        citation=entry.text("citation") or "",
        notes=entry.text("notes") or "",
        bundled=entry.text("bundled"),
        hub=entry.text("hub"),
        config=entry.text("config"),
        revision=entry.text("revision"),
        files=entry.mapping("files", str, "sha256 strings"),
        addresses={file: tuple(urls) for file, urls in entry.mapping("addresses", list, "lists of addresses").items()},
        format=entry.text("format"),
        rows=_rows(entry),
    )
    _check_origin(entry, pin)
    return pin


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
    else:
        for key in ("config", "revision", "files"):
            require(key not in entry.table, key, "belongs to a dataset of the hub")
    if pin.addresses:
        require(pin.format in FORMATS, "format", f"must be one of {', '.join(FORMATS)}, not {pin.format!r}")
        require(
            (pin.format == "rows") == (pin.rows is not None),
            "rows",
            "goes with format = 'rows', and must then be there",
        )
        _check_addresses(entry, pin)
    else:
        for key in ("format", "rows"):
            require(key not in entry.table, key, "belongs to a dataset with addresses")


def _check_addresses(entry: _Entry, pin: Pin) -> None:
    allowed = (
        [set(pin.splits), {"all"}]
        if pin.rows
        else [{f"{s}_{part}" for s in pin.splits for part in ("images", "labels")}]
    )
    text = " or ".join(", ".join(sorted(files)) for files in allowed)
    entry.require(set(pin.addresses) in allowed, "addresses", f"must name the files {text}")
    for file, urls in pin.addresses.items():
        good = len(urls) > 0 and all(isinstance(url, str) and re.match("(https?|file)://", url) for url in urls)
        entry.require(good, f"addresses.{file}", "must be a list of https://, http:// or file:// addresses")

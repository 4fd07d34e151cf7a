"""The file formats that addresses serve: IDX (MNIST's own), NumPy, text tables, ARFF, class folders, labels, texts.

Each parser raises ValueError.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lossboard.data import arff, class_folders, content, label_files, parquet
from lossboard.data.errors import DataError
from lossboard.data.pins import Pin, Rows

if TYPE_CHECKING:
    import numpy as np

NPY = b"\x93NUMPY"  # how a .npy file starts


@dataclass(frozen=True, eq=False)
class Table:
    """One parsed file: an array or a text in `values`, or a text table's features, its labels and (if any) splits."""

    values: np.ndarray
    labels: np.ndarray | None = None
    splits: np.ndarray | None = None


Parsed = Table | class_folders.Folders
# Features, labels, and the hash of what they were decoded from, where the pin is of that.
Split = tuple["np.ndarray", "np.ndarray", str | None]


def parse(pin: Pin, file: str, data: bytes) -> Parsed:
    """One file of a dataset in the format of its pin."""
    if pin.rows:
        return table(data, pin.rows, sparse=pin.format == "libsvm")
    if pin.format == "idx":
        return Table(idx(data))
    if pin.format == "npy":
        return Table(label_files.array(data) if file.endswith("_labels") else matrix(data))
    if pin.format == "plain":
        return Table(*text(data))
    if pin.format == "arff":
        return Table(*arff.read(data, pin.class_names, pin.left_out))
    if pin.format == "torch":
        return Table(label_files.columns(data, list(pin.columns.values())))
    if file == "images":
        return class_folders.unpack(pin, data)
    return Table(label_files.array(data) if data.startswith(NPY) else label_files.columns(data, ["clean_label"])[:, 0])


def assemble(pin: Pin, parsed: Mapping[str, Parsed], place: str) -> dict[str, Split]:
    """Each split out of the parsed files, which lay at `place`; the content hash judges the result."""
    if pin.format == "class_folders":
        return {split: _folders(pin, split, parsed, place) for split in pin.splits}
    tables = {file: found for file, found in parsed.items() if isinstance(found, Table)}
    return {split: (*pair, None) for split, pair in _pairs(pin, tables).items()}


def _pairs(pin: Pin, parsed: Mapping[str, Table]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    import numpy as np

    if pin.format == "idx":
        return {split: _images(parsed, split) for split in pin.splits}
    if pin.format == "torch":
        labels = {split: parsed[split].values for split in pin.splits}
        return {split: (np.zeros((len(found), 0), np.float32), found) for split, found in labels.items()}
    if pin.format == "npy":
        return {split: (parsed[f"{split}_features"].values, parsed[f"{split}_labels"].values) for split in pin.splits}
    if "all" not in parsed:
        return {split: _pair(parsed[split], slice(None)) for split in pin.splits}
    whole = parsed["all"]
    if whole.splits is not None:
        return {split: _pair(whole, whole.splits == number) for number, split in enumerate(pin.splits)}
    ends = np.cumsum(list(pin.splits.values()))
    ends[-1] = max(ends[-1], len(whole.values))  # rows too many must reach the check, not be cut away
    return {
        split: _pair(whole, slice(start, end)) for split, start, end in zip(pin.splits, [0, *ends], ends, strict=False)
    }


def _folders(pin: Pin, split: str, parsed: Mapping[str, Parsed], place: str) -> Split:
    folders, found = parsed["images"], parsed[f"{split}_labels"]
    assert isinstance(found, Table) and not isinstance(folders, Table)  # noqa: PT018
    try:
        blobs = class_folders.arranged(pin, folders[split], found.values)
    except ValueError as error:
        raise DataError(f"{pin.name}/{split}: the files at {place} do not belong together: {error}") from error
    return parquet.decoded(blobs, f"{place}, {split}"), found.values, content.encoded_hash(blobs, found.values)


def _images(parsed: Mapping[str, Table], split: str) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    pixels = parsed[f"{split}_images"].values
    return pixels[..., None] if pixels.ndim == 3 else pixels, parsed[f"{split}_labels"].values.astype(np.int64)


def _pair(whole: Table, chosen: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert whole.labels is not None
    return whole.values[chosen], whole.labels[chosen]


def text(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a text, uint8 (N,), and labels, of which it has none, int64 (0,)."""
    import numpy as np

    return np.frombuffer(data, np.uint8), np.zeros(0, np.int64)


def matrix(data: bytes) -> np.ndarray:
    """The numbers in a .npy file, float32 (N, d)."""
    import numpy as np

    values = np.load(io.BytesIO(data), allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(f"{values.dtype} {values.shape} are not rows of numbers, (N, d)")
    return values.astype(np.float32)


def idx(data: bytes) -> np.ndarray:
    """A uint8 array of any shape: two zero bytes, type 8, number of axes, big-endian sizes, then the values."""
    import numpy as np

    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"not an IDX file of bytes: it starts with {data[:4].hex() or 'nothing'}")
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise ValueError("the IDX header is cut short")
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"the IDX header promises {math.prod(shape)} values {shape}, the file holds {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def table(data: bytes, layout: Rows, *, sparse: bool = False) -> Table:
    """Features float32 (N, d), labels int64 (N,) and split numbers (N,) of a text table.

    Columns are parted by commas or white space; empty lines do not count, and a first line that is no row is a header.
    A sparse table has `number:value` in its columns after the label, for the features that are not 0.
    """
    import numpy as np

    codes = {_code(code): label for label, code in enumerate(layout.codes)}
    lines = [line.replace(",", " ").split() for line in data.decode("ascii").splitlines()]
    numbered = [(number, fields) for number, fields in enumerate(lines, 1) if fields]
    rows = []
    for number, fields in numbered:
        try:
            rows.append((_sparse_row if sparse else _row)(fields, layout, codes))
        except (ValueError, IndexError, KeyError) as error:
            if number > 1:
                raise ValueError(f"line {number} is no row of this table: {error}") from error
    if not rows:
        raise ValueError("no rows")
    features, labels, splits = zip(*rows, strict=True)
    return Table(
        np.array(features, dtype=np.float32),
        np.array(labels, dtype=np.int64),
        None if layout.split is None else np.array(splits),
    )


def _row(fields: Sequence[str], layout: Rows, codes: Mapping[str, int]) -> tuple[list[float], int, int]:
    first, end = layout.features
    features = [float(value) for value in fields[first:end]]
    if len(features) != end - first:
        raise ValueError(f"{len(fields)} columns")
    split = 0 if layout.split is None else int(fields[layout.split])
    return features, codes[_code(fields[layout.label])], split


def _sparse_row(fields: Sequence[str], layout: Rows, codes: Mapping[str, int]) -> tuple[list[float], int, int]:
    first, end = layout.features
    features = [0.0] * (end - first)
    for field in fields[layout.label + 1 :]:
        number, value = field.split(":")
        if not first <= int(number) < end:
            raise ValueError(f"feature {number}")
        features[int(number) - first] = float(value)
    return features, codes[_code(fields[layout.label])], 0


def _code(text: str) -> str:
    """A label as written; a number in its shortest form, since files write the same label as 6 and as 6.0000."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text

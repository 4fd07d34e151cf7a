"""Arrays out of Parquet tables as the Hugging Face `datasets` library writes them, on disk or from the hub."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data import content
from lossboard.data.errors import DataError, reason
from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def read(pin: Pin, split: str, path: Path, place: str, mend: str) -> tuple[np.ndarray, np.ndarray]:
    """Verified features and labels of one file, as `arrays` gives them; raises DataError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({reason(error)}).\n  It may be damaged or cut short: copy it again."
        ) from error
    return arrays(pin, split, table, place, mend, content.file_hash(path) if pin.pinned == "file" else None)


def arrays(
    pin: Pin, split: str, table: pa.Table, place: str, mend: str, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Verified features, float32 (N, d) or uint8 (N, H, W, C), and labels, int64 (N,), of a table.

    The columns are `features` (lists of d numbers) or `image` (encoded `bytes`), and `label`, or those that the pin
    names; multi-label data has lists in `labels` too, int8 (N, L); sets of labels are columns of their own, labels
    (N, k), and have no features (N, 0). Raises DataError naming `place`, the column and, for images, the row. `source`
    is the hash of the table's file.
    """
    import numpy as np

    if pin.kind == "labels":
        labels = np.stack([_labels(table, name, place) for name in pin.columns.values()], axis=1)
        features = np.zeros((len(labels), 0), np.float32)
    elif pin.kind == "multilabel":
        features = _matrix(table, _name(table, pin, "features", "features"), place)
        labels = _matrix(table, _name(table, pin, "label", "labels"), place).astype(np.int8)
    else:
        labels = _labels(table, _name(table, pin, "label", "label"), place)
        if pin.kind == "image":
            blobs = _blobs(table, _name(table, pin, "features", "image"), place)
            source = content.encoded_hash(blobs, labels) if pin.pinned == "encoded" else source
            features = decoded(blobs, place)
        else:
            features = _matrix(table, _name(table, pin, "features", "features"), place)
    content.check(pin, split, features, labels, place, mend, source)
    return features, labels


def _name(table: pa.Table, pin: Pin, part: str, usual: str) -> str:
    """The pinned name of a column where the table has it, else the usual one."""
    pinned = pin.columns.get(part, usual)
    return pinned if pinned in table.column_names else usual


def _column(table: pa.Table, name: str, place: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(f"{place}: no column {name!r}; the columns are {', '.join(table.column_names) or 'none'}")
    if table[name].null_count:
        raise DataError(f"{place}: column {name!r} has {table[name].null_count} empty cells")
    return table[name]


def _labels(table: pa.Table, name: str, place: str) -> np.ndarray:
    import numpy as np

    column = _column(table, name, place)
    labels = column.to_numpy()
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{place}: column {name!r} holds {column.type}, not whole numbers")
    return labels.astype(np.int64)


def _matrix(table: pa.Table, name: str, place: str) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(table, name, place)
    if not (pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type)):
        raise DataError(f"{place}: column {name!r} holds {column.type}, not lists of numbers")
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    values = pc.list_flatten(column).to_numpy()
    if len(widths) > 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise DataError(f"{place}: column {name!r} must hold finite numbers, the same count in each row")
    return values.astype(np.float32).reshape(len(column), *widths)


def _blobs(table: pa.Table, name: str, place: str) -> list[bytes]:
    import pyarrow as pa

    column = _column(table, name, place)
    if not (pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0):
        raise DataError(f"{place}: column {name!r} holds {column.type}, not encoded images (a struct with `bytes`)")
    return [image["bytes"] or b"" for image in column.to_pylist()]


def decoded(blobs: Sequence[bytes], place: str) -> np.ndarray:
    """Encoded images as uint8 (N, H, W, C); raises DataError naming the row that cannot be decoded."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    samples: list[np.ndarray] = []
    for row, blob in enumerate(blobs):
        try:
            sample = np.asarray(Image.open(io.BytesIO(blob)))
        # Pillow reports a broken PNG as SyntaxError, a short one as OSError.
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{place}: the image in row {row} cannot be decoded ({reason(error)})") from error
        if sample.dtype != np.uint8 or (samples and sample.shape != samples[0].shape):
            shape = samples[0].shape if samples else sample.shape
            raise DataError(f"{place}: the image in row {row} is {sample.dtype} {sample.shape}, not uint8 {shape}")
        samples.append(sample)
    stack = np.stack(samples) if samples else np.zeros((0, 0, 0), np.uint8)
    return stack[..., None] if stack.ndim == 3 else stack

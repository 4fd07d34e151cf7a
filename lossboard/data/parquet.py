"""Arrays out of Parquet tables as the Hugging Face `datasets` library writes them, on disk or from the hub."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data.dataset import Kind
from lossboard.data.errors import DataError, reason

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def read(path: Path, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of one file, as `arrays` gives them; raises DataError where the file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({reason(error)}).\n  It may be damaged or cut short: copy it again."
        ) from error
    return arrays(table, kind, str(path))


def arrays(table: pa.Table, kind: Kind, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Features, float32 (N, d) or uint8 (N, H, W, C), and labels, int64 (N,), of a table.

    The columns are `features` (lists of d numbers) or `image` (encoded `bytes`), and `label`; raises DataError naming
    `place`, the column and, for images, the row.
    """
    import numpy as np

    wanted = "image" if kind == "image" else "features"
    for column in (wanted, "label"):
        if column not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise DataError(f"{place}: no column {column!r}; the columns are {found}")
        if table[column].null_count:
            raise DataError(f"{place}: column {column!r} has {table[column].null_count} empty cells")
    labels = table["label"].to_numpy()
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{place}: column 'label' holds {table['label'].type}, not whole numbers")
    features = _pixels(table[wanted], place) if kind == "image" else _matrix(table[wanted], place)
    return features, labels.astype(np.int64)


def _matrix(column: pa.ChunkedArray, place: str) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type)):
        raise DataError(f"{place}: column 'features' holds {column.type}, not lists of numbers")
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    values = pc.list_flatten(column).to_numpy()
    if len(widths) > 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise DataError(f"{place}: column 'features' must hold finite numbers, the same count in each row")
    return values.astype(np.float32).reshape(len(column), *widths)


def _pixels(column: pa.ChunkedArray, place: str) -> np.ndarray:
    import pyarrow as pa

    if not (pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0):
        raise DataError(f"{place}: column 'image' holds {column.type}, not encoded images (a struct with `bytes`)")
    return decoded([image["bytes"] for image in column.to_pylist()], place)


def decoded(blobs: Sequence[bytes | None], place: str) -> np.ndarray:
    """Encoded images as uint8 (N, H, W, C); raises DataError naming the row that cannot be decoded."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    samples: list[np.ndarray] = []
    for row, blob in enumerate(blobs):
        try:
            sample = np.asarray(Image.open(io.BytesIO(blob or b"")))
        # Pillow reports a broken PNG as SyntaxError, a short one as OSError.
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{place}: the image in row {row} cannot be decoded ({reason(error)})") from error
        if sample.dtype != np.uint8 or (samples and sample.shape != samples[0].shape):
            shape = samples[0].shape if samples else sample.shape
            raise DataError(f"{place}: the image in row {row} is {sample.dtype} {sample.shape}, not uint8 {shape}")
        samples.append(sample)
    stack = np.stack(samples) if samples else np.zeros((0, 0, 0), np.uint8)
    return stack[..., None] if stack.ndim == 3 else stack

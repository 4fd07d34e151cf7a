"""What a dataset's content is, apart from how it is stored: the hash that pins it.

Where the decoded arrays cannot be pinned, what they are decoded from is: lossy images by their encoded bytes, because
decoders differ in the last bit, and a dataset whose content is not known here by its published file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data.errors import WrongContent

if TYPE_CHECKING:
    import numpy as np

    from lossboard.data.pins import Pin


def content_hash(features: np.ndarray, labels: np.ndarray) -> str:
    """sha256 (hex) of the features' bytes followed by the labels' bytes, in row order.

    Features: uint8 pixels (N, H, W, C) and bytes of text (N,) as they are, anything else (N, d) as little-endian
    float32; labels (N,) or (N, L) as little-endian int64; both C-contiguous. The file format plays no part; of a text,
    which has no labels, this is the hash of the file.

    >>> import numpy as np
    >>> content_hash(np.zeros((2, 3), np.float32), np.array([0, 1]))[:12]
    '19ea44be89ee'
    """
    import numpy as np

    digest = hashlib.sha256()
    raw = features.dtype == np.uint8
    digest.update(np.ascontiguousarray(features if raw else features.astype("<f4", copy=False)).data)
    digest.update(np.ascontiguousarray(labels.astype("<i8", copy=False)).data)
    return digest.hexdigest()


def arrays_hash(features: np.ndarray, labels: np.ndarray) -> str:
    """The hashes of features and labels apart, each as in `content_hash`."""
    return f"features:{content_hash(features, labels[:0])} labels:{content_hash(features[:0], labels)}"


def encoded_hash(blobs: Sequence[bytes], labels: np.ndarray) -> str:
    """The hash of encoded images, each after its length (8 bytes, little-endian), and then of the labels."""
    digest = hashlib.sha256()
    for blob in blobs:
        digest.update(len(blob).to_bytes(8, "little"))
        digest.update(blob)
    digest.update(labels.astype("<i8").tobytes())
    return f"encoded:{digest.hexdigest()}"


def file_hash(path: Path) -> str:
    """The hash of a file's bytes."""
    with open(path, "rb") as file:
        return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _shapes(pin: Pin, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the features and of the labels of a split."""
    if pin.kind == "multilabel":
        return (rows, *pin.shape), (rows, pin.classes)
    if pin.kind == "labels":
        return (rows, 0), (rows, *pin.shape)
    return (rows, *pin.shape), (0,) if pin.kind == "text" else (rows,)


def check(
    pin: Pin, split: str, features: np.ndarray, labels: np.ndarray, place: str, mend: str, source: str | None = None
) -> None:
    """Raise WrongContent unless the arrays are the pinned ones.

    `place` is where they came from, `mend` what to do. `source` is the hash of what they were decoded from; a pin of
    encoded images or of a file fails without it, and with any but its own.
    """
    shapes = _shapes(pin, pin.splits[split])
    expected = pin.content[split]
    if pin.pinned in ("encoded", "file"):
        found = source or content_hash(features, labels)
    else:
        found = (arrays_hash if pin.pinned == "arrays" else content_hash)(features, labels)
    # The hash sees bytes only: the same bytes in another shape would pass it.
    if (features.shape, labels.shape) == shapes and found == expected:
        return
    raise WrongContent(
        f"{pin.name}/{split}: the content is not what was pinned.\n"
        f"  place     {place}\n"
        f"  expected  {expected}  features {shapes[0]}, labels {shapes[1]}\n"
        f"  found     {found}  features {features.shape}, labels {labels.shape}\n"
        f"  {mend}"
    )

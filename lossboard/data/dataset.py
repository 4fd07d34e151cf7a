"""What a loaded dataset is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["tabular", "image", "multilabel", "labels", "text"]


# eq=False: comparing two arrays has no single truth value, so datasets are compared and hashed by identity.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Verified arrays, split by split.

    `features[split]`: float32 (N, d) for tabular data, uint8 (N, H, W, C) for images; `labels[split]`: int64 (N,) in
    0..classes-1. Multi-label data (kind "multilabel") has features (N, d) and labels int8 (N, classes), 0 or 1. Rows
    are in the order of the original publication, by which other work numbers them. Sets of labels (kind "labels") have
    k labels a row, (N, k), and no features, (N, 0). A text (kind "text") is its bytes, uint8 (N,), without labels,
    (0,), or classes. All arrays are read-only, because every caller in the process gets the same ones: copy, then
    change. `source` says where the bytes came from this time.
    """

    name: str
    features: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    classes: int
    class_names: tuple[str, ...]
    kind: Kind
    source: str

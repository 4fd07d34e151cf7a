"""What a dataset's content is, apart from how it is stored: the hash that pins it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lossboard.data.errors import WrongContent

if TYPE_CHECKING:
    import numpy as np

    from lossboard.data.pins import Pin


def content_hash(features: np.ndarray, labels: np.ndarray) -> str:
    """sha256 (hex) of the features' bytes followed by the labels' bytes, in row order.

    Features: uint8 pixels (N, H, W, C) as they are, anything else (N, d) as little-endian float32; labels (N,) as
    little-endian int64; both C-contiguous. The file format plays no part.

    >>> import numpy as np
    >>> content_hash(np.zeros((2, 3), np.float32), np.array([0, 1]))[:12]
    '19ea44be89ee'
    """
    import numpy as np

    digest = hashlib.sha256()
    pixels = features.dtype == np.uint8
    digest.update(np.ascontiguousarray(features if pixels else features.astype("<f4", copy=False)).data)
    digest.update(np.ascontiguousarray(labels.astype("<i8", copy=False)).data)
    return digest.hexdigest()


def check(pin: Pin, split: str, features: np.ndarray, labels: np.ndarray, place: str, mend: str) -> None:
    """Raise WrongContent unless the arrays are the pinned ones; `place` is where they came from, `mend` what to do."""
    expected_shape = (pin.splits[split], *pin.shape)
    found, expected = content_hash(features, labels), pin.content[split]
    # The hash sees bytes only: the same bytes in another shape would pass it.
    if features.shape == expected_shape and labels.shape == expected_shape[:1] and found == expected:
        return
    raise WrongContent(
        f"{pin.name}/{split}: the content is not what was pinned.\n"
        f"  place     {place}\n"
        f"  expected  {expected}  features {expected_shape}, labels {expected_shape[:1]}\n"
        f"  found     {found}  features {features.shape}, labels {labels.shape}\n"
        f"  {mend}"
    )

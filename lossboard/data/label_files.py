"""Labels in files of their own: arrays of NumPy (.npy) and dictionaries of arrays that torch saved (.pt)."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def columns(data: bytes, names: Sequence[str]) -> np.ndarray:
    """The named columns of a .pt file, int64 (N, k); raises ValueError. Nothing in the file is executed."""
    import numpy as np
    import torch

    # Pickles name the function that makes arrays by where it lay in the NumPy that wrote them.
    rebuild = np.zeros(0).__reduce__()[0]
    allowed: list[object] = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    allowed += [np.ndarray, np.dtype, *(type(np.dtype(f"{sign}{size}")) for sign in "iu" for size in (1, 2, 4, 8))]
    try:
        with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type]
            found = torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"not a file of arrays that torch saved ({error})") from error
    if not isinstance(found, dict) or not set(names) <= set(found):
        held = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"no columns {', '.join(names)} in it, but {held}")
    return np.stack([_whole(np.asarray(found[name])) for name in names], axis=1)


def array(data: bytes) -> np.ndarray:
    """The labels in a .npy file, int64 (N,); raises ValueError."""
    import numpy as np

    return _whole(np.load(io.BytesIO(data), allow_pickle=False))


def _whole(labels: np.ndarray) -> np.ndarray:
    import numpy as np

    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{labels.dtype} {labels.shape} are not labels, whole numbers (N,)")
    return labels.astype(np.int64)

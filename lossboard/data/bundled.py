"""Datasets that come inside an installed package: no look-up, but the content is verified all the same."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data import content
from lossboard.data.errors import DataError
from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np

SOURCE = "bundled with scikit-learn"


def load(pin: Pin) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Verified features, float32 (N, d), and labels, int64 (N,), of the only split; raises DataError if they differ."""
    import numpy as np

    module, _, function = str(pin.bundled).rpartition(".")
    features, labels = getattr(importlib.import_module(module), function)(return_X_y=True)
    (split,) = pin.splits
    arrays = features.astype(np.float32), labels.astype(np.int64)
    content.check(pin, split, *arrays, SOURCE, "Install another version of scikit-learn: this one ships other data")
    return {split: arrays}


def place(pin: Pin) -> Path:
    """The folder of the installed package, found without importing it."""
    spec = importlib.util.find_spec(str(pin.bundled).partition(".")[0])
    if spec is None or spec.origin is None:
        raise DataError(f"{pin.name}: scikit-learn is not installed, and this dataset comes with it")
    return Path(spec.origin).parent

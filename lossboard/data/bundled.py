"""Datasets that come inside an installed package, or are made of such: no look-up, but the content is verified too."""

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


MADE = "lossboard.data.made."


def source(pin: Pin) -> str:
    """Where the data comes from, in words."""
    return "made on this machine" if _made(pin) else "bundled with scikit-learn"


def _made(pin: Pin) -> bool:
    return str(pin.bundled).startswith(MADE)


def load(pin: Pin) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Verified features, float32 (N, d), and labels of each split; raises DataError if they differ.

    Labels are int64 (N,) of the package's own function, or int8 (N, L) of one in :mod:`lossboard.data.made`.
    """
    import numpy as np

    module, _, name = str(pin.bundled).rpartition(".")
    function = getattr(importlib.import_module(module), name)
    several = pin.kind == "multilabel"
    found = function() if _made(pin) else dict.fromkeys(pin.splits, function(return_X_y=True))
    mend = "Install another version of scikit-learn: this one ships other data"
    splits = {}
    for split in pin.splits:
        features, labels = found[split]
        splits[split] = features.astype(np.float32), labels.astype(np.int8 if several else np.int64)
        content.check(pin, split, *splits[split], source(pin), mend)
    return splits


def place(pin: Pin) -> Path:
    """The folder of the installed package, found without importing it."""
    spec = importlib.util.find_spec(str(pin.bundled).partition(".")[0])
    if spec is None or spec.origin is None:
        raise DataError(f"{pin.name}: scikit-learn is not installed, and this dataset comes with it")
    return Path(spec.origin).parent

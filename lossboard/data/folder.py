"""The first step: a folder of files, `$LOSSBOARD_DATA/<name>/<split>.parquet`.

Multi-label data lies in `multilabel/<name>`, and texts have their published names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lossboard.data import content, formats, parquet
from lossboard.data.errors import DataError, NotThere, reason
from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np

VARIABLE = "LOSSBOARD_DATA"


def files(pin: Pin) -> dict[str, str]:
    """The name of each split's file: `<split>.parquet`, or that of a text at its first address."""
    if pin.kind == "text":
        return {split: PurePosixPath(pin.addresses[split][0]).name for split in pin.splits}
    return {split: f"{split}.parquet" for split in pin.splits}


def home(pin: Pin) -> str:
    """The folder of a dataset within the folder of files."""
    return f"multilabel/{pin.name}" if pin.kind == "multilabel" else pin.name


def find(pin: Pin) -> dict[str, Path]:
    """The file of each split.

    Raises NotThere without variable or files, and DataError for half a dataset, which is a copy gone wrong.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise NotThere((VARIABLE, "is not set"))
    folder = Path(root).expanduser().absolute()
    if not os.path.isdir(folder):
        raise NotThere((VARIABLE, f"{folder} is not a folder"))
    paths = {split: folder / home(pin) / file for split, file in files(pin).items()}
    missing = [path for path in paths.values() if not os.path.isfile(path)]
    if len(missing) == len(paths):
        raise NotThere((VARIABLE, f"{folder / home(pin)} has no {' or '.join(path.name for path in missing)}"))
    if missing:
        there = ", ".join(path.name for path in paths.values() if path not in missing)
        raise DataError(
            f"{pin.name}: {VARIABLE} holds half of it: {missing[0]} is missing beside {there}.\n"
            f"  Complete {missing[0].parent}, or delete it and run: lossboard data fetch {pin.name}"
        )
    return paths


def read(pin: Pin, split: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of one split, verified; raises DataError naming the file."""
    mend = f"Delete this file and copy it again, or unset {VARIABLE} and run: lossboard data fetch {pin.name}"
    if pin.kind != "text":
        return parquet.read(pin, split, path, str(path), mend)
    try:
        arrays = formats.text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from error
    content.check(pin, split, *arrays, str(path), mend)
    return arrays


def stamps(paths: Mapping[str, Path]) -> dict[str, list[int]]:
    """Size and time of change (ns) of each file: what tells whether a file is still the one that was verified."""
    stats = {str(path): path.stat() for path in paths.values()}
    return {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}

"""Images in an archive with a folder a class, `<split>/<class name>/<number>.jpg`, and their order in label files.

The k-th file of a class is the k-th sample that has its label: the folders alone have lost the order of the samples.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np

# split -> class name -> the encoded images, in the order of their file names
Folders = Mapping[str, Mapping[str, list[bytes]]]


def unpack(pin: Pin, data: bytes) -> Folders:
    """The encoded images of each split and class; raises ValueError or BadZipFile where this is no such archive."""
    found: dict[str, dict[str, list[bytes]]] = {split: {name: [] for name in pin.class_names} for split in pin.splits}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in sorted(archive.namelist()):
            parts = PurePosixPath(name).parts[-3:]
            if len(parts) == 3 and parts[0] in found and parts[1] in found[parts[0]]:
                found[parts[0]][parts[1]].append(archive.read(name))
    for split, folders in found.items():
        if not any(folders.values()):
            raise ValueError(f"no images in folders like {split}/{pin.class_names[0]}")
    return found


def arranged(pin: Pin, folders: Mapping[str, list[bytes]], labels: np.ndarray) -> list[bytes]:
    """The images of one split in the order of its labels; raises ValueError where the two do not belong together."""
    import numpy as np

    counts = np.bincount(labels, minlength=pin.classes).tolist()
    for name, wanted in zip(pin.class_names, counts, strict=True):
        if len(folders[name]) != wanted:
            raise ValueError(f"{len(folders[name])} images of class {name}, but {wanted} labels")
    images = [iter(folders[name]) for name in pin.class_names]
    return [next(images[label]) for label in labels.tolist()]

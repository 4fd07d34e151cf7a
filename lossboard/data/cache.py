"""The second step: decoded arrays kept on this machine.

    <cache>/datasets/<name>-<digest>/<split>.features.npy, <split>.labels.npy, origin.json

Arrays whose pin is of what they were decoded from are kept with their own hash, in origin.json.

A folder is written elsewhere and renamed into place, so it is whole or not there: two processes may fill it at once,
and a killed one leaves nothing that is read. Arrays are memory-mapped and hashed on every load (0.04 s for MNIST).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data import content
from lossboard.data.errors import DataError, NotThere, reason
from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np

VARIABLE = "LOSSBOARD_CACHE"
DECODED = ("encoded", "file")  # pins of what the arrays were decoded from
# A temporary folder this old belongs to a process that was killed.
ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class Origin:
    """What a cached dataset was decoded from, and which files (path: size, time in ns) were verified to equal it."""

    made_from: str
    files: dict[str, list[int]] = field(default_factory=dict)
    decoded: dict[str, str] = field(default_factory=dict)  # the arrays' own hashes, where the pin has none of them


def root() -> Path:
    """$LOSSBOARD_CACHE, or the platform's folder for caches."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir(), "lossboard")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local", "lossboard")
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "lossboard"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache", "lossboard")


def folder(pin: Pin) -> Path:
    """Where this content of this dataset is kept."""
    return root() / "datasets" / f"{pin.name}-{pin.digest}"


def find(pin: Pin) -> Origin:
    """The origin of the cached copy; raises NotThere without one and DataError for a damaged one."""
    place = folder(pin)
    if not os.path.isdir(place):
        raise NotThere(("cache", f"{place} does not exist"))
    try:
        fields = json.loads((place / "origin.json").read_text(encoding="utf-8"))
        return Origin(made_from=fields["made_from"], files=fields["files"], decoded=fields.get("decoded", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(pin, "origin.json", error) from error


def read(pin: Pin, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of one split, memory-mapped and verified; raises DataError naming the folder."""
    features, labels = (_array(pin, f"{split}.{part}.npy") for part in ("features", "labels"))
    source = None
    if pin.pinned in DECODED:
        # What was verified when the arrays were decoded is theirs for as long as they are what was decoded.
        same = content.content_hash(features, labels) == find(pin).decoded.get(split)
        source = pin.content[split] if same else None
    content.check(pin, split, features, labels, str(folder(pin)), _mend(pin), source)
    return features, labels


def _hashed(pin: Pin, splits: Mapping[str, tuple[np.ndarray, np.ndarray]], origin: Origin) -> Origin:
    if pin.pinned not in DECODED:
        return origin
    return replace(origin, decoded={split: content.content_hash(*pair) for split, pair in splits.items()})


def keep(pin: Pin, splits: Mapping[str, tuple[np.ndarray, np.ndarray]], origin: Origin) -> Path:
    """Write verified arrays, or note that a copy already there equals `origin` too; raises OSError if it cannot."""
    place = folder(pin)
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place.parent)
    if not place.is_dir():
        with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as temporary:
            made = Path(temporary, place.name)
            _write(made, splits, _hashed(pin, splits, origin))
            try:
                made.rename(place)
            except OSError:
                # Another process was first. Its copy has the same content: that is in the folder's name.
                if not place.is_dir():
                    raise
    _remember(pin, origin)
    return place


def _write(made: Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]], origin: Origin) -> None:
    import numpy as np

    made.mkdir()
    for split, pair in splits.items():
        for part, array in zip(("features", "labels"), pair, strict=True):
            with open(made / f"{split}.{part}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                _flush(file.fileno())
    _write_origin(made, origin)


def _write_origin(place: Path, origin: Origin) -> None:
    # Not tempfile: its files are the owner's alone, and a cache may be shared.
    new = place / f"origin.{os.getpid()}.tmp"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(asdict(origin), file, indent=1)
        file.flush()
        _flush(file.fileno())
    os.replace(new, place / "origin.json")


def _flush(descriptor: int) -> None:
    """Down to the disk before the rename, or a power cut could leave a renamed folder of empty files."""
    os.fsync(descriptor)


def _remember(pin: Pin, origin: Origin) -> None:
    """Add the files of `origin` to those that are known to equal the cached copy."""
    held = find(pin)
    if origin.files.items() <= held.files.items():
        return
    _write_origin(folder(pin), replace(held, files=held.files | origin.files))


def _sweep(parent: Path) -> None:
    for left in parent.glob(".new-*"):
        # Another process may sweep the same folder.
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left)


def _array(pin: Pin, file: str) -> np.ndarray:
    import numpy as np

    try:
        # A plain array over the mapped file: np.memmap's own type would follow it into every computation.
        return np.load(folder(pin) / file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(pin, file, error) from error


def _damaged(pin: Pin, file: str, error: Exception) -> DataError:
    what = f"the cached copy is damaged: {folder(pin) / file} cannot be read ({reason(error)})."
    return DataError(f"{pin.name}: {what}\n  {_mend(pin)}")


def _mend(pin: Pin) -> str:
    return f"Delete the folder {folder(pin)} and run: lossboard data fetch {pin.name}"

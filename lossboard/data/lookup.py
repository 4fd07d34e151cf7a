"""The look-up: a folder of files, the local cache, then the hub or an address.

A step without a copy hands on to the next, and is named if all fail. A copy with the wrong content ends the look-up
wherever it lies: it never falls through to the next step.
"""

from __future__ import annotations

import functools
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data import addresses, bundled, cache, folder, hub
from lossboard.data.dataset import Dataset
from lossboard.data.errors import DataError, NotThere
from lossboard.data.pins import Pin, find

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Found:
    """Verified arrays, a sentence on where they came from, and the place on this machine that now holds them."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    source: str
    place: Path | None


@functools.cache
def load(name: str) -> Dataset:
    """A dataset with its content verified, the same object on every call in this process.

    Raises DataError: the name is unknown, no place has the dataset, or a copy is unreadable or not what was pinned.

    >>> digits = load("digits")
    >>> digits.features["all"].shape, digits.source
    ((1797, 64), 'bundled with scikit-learn')
    """
    pin = find(name)
    found = look_up(pin)
    features, labels = (
        {split: _original(pin, split, pair[part]) for split, pair in found.splits.items()} for part in (0, 1)
    )
    for array in (*features.values(), *labels.values()):
        array.flags.writeable = False
    return Dataset(
        name=name,
        features=features,
        labels=labels,
        classes=pin.classes,
        class_names=pin.class_names,
        kind=pin.kind,
        source=found.source,
    )


def _original(pin: Pin, split: str, stored: np.ndarray) -> np.ndarray:
    """The rows in the order in which the dataset was published, out of the order in which its pinned place has them."""
    import numpy as np

    order = pin.batches.get(split)
    if order is None:
        return stored
    parts = np.split(stored, len(order))
    return np.concatenate([parts[order.index(number)] for number in range(1, len(order) + 1)])


def fetch(name: str) -> Path:
    """Make sure that this machine holds a verified copy, and give its folder; raises DataError if it cannot."""
    found = look_up(find(name))
    if found.place is None:
        raise DataError(
            f"{name}: fetched from {found.source}, but it could not be kept in {cache.root()}.\n"
            f"  Set {cache.VARIABLE} to a folder that can be written and has room."
        )
    return found.place


def look_up(pin: Pin) -> Found:
    """Try each place in order; raises DataError naming all of them where none has the dataset."""
    if pin.bundled:
        return Found(bundled.load(pin), bundled.source(pin), bundled.place(pin))
    tried: list[tuple[str, str]] = []
    for step in (_from_folder, _from_cache, _from_hub if pin.hub else _from_addresses):
        try:
            found = step(pin)
        except NotThere as missing:
            tried += missing.tried
            log.info("%s: %s", pin.name, missing)
        else:
            log.info("%s: %s", pin.name, found.source)
            return found
    raise DataError(_nowhere(pin, tried))


def _nowhere(pin: Pin, tried: list[tuple[str, str]]) -> str:
    files = " and ".join(f"{folder.home(pin)}/{file}" for file in folder.files(pin).values())
    places = "\n".join(f"  {place}: {why}" for place, why in tried)
    return (
        f"{pin.name}: no place has it. Tried, in this order:\n{places}\n"
        f"  Where there is a network, run: lossboard data fetch {pin.name}\n"
        f"  Or set {folder.VARIABLE} to a folder that holds {files}."
    )


def _from_folder(pin: Pin) -> Found:
    paths = folder.find(pin)
    place = next(iter(paths.values())).parent
    stamps = folder.stamps(paths)
    # Decoding images takes seconds, so the arrays of these very files may come out of the cache.
    if pin.kind == "image" and _cache_equals(pin, stamps):
        return _from_cache(pin, equal_to=str(place))
    splits = {split: folder.read(pin, split, path) for split, path in paths.items()}
    if pin.kind == "image":
        _keep(pin, splits, cache.Origin(str(place), stamps))
    return Found(splits, str(place), place)


def _cache_equals(pin: Pin, stamps: dict[str, list[int]]) -> bool:
    try:
        return stamps.items() <= cache.find(pin).files.items()
    except NotThere:
        return False


def _from_cache(pin: Pin, equal_to: str | None = None) -> Found:
    made_from = cache.find(pin).made_from
    splits = {split: cache.read(pin, split) for split in pin.splits}
    place = cache.folder(pin)
    same = f", equal to {equal_to}" if equal_to and equal_to != made_from else ""
    return Found(splits, f"cache {place}, made from {made_from}{same}", place)


def _from_hub(pin: Pin) -> Found:
    splits, source = hub.load(pin), hub.place(pin)
    return Found(splits, source, _keep(pin, splits, cache.Origin(source)))


def _from_addresses(pin: Pin) -> Found:
    splits, source = addresses.load(pin)
    return Found(splits, source, _keep(pin, splits, cache.Origin(source)))


def _keep(pin: Pin, splits: dict[str, tuple[np.ndarray, np.ndarray]], origin: cache.Origin) -> Path | None:
    """The cache's folder, or None with a warning: a full disk costs time, not the run."""
    try:
        return cache.keep(pin, splits, origin)
    except OSError as error:
        warnings.warn(
            f"{pin.name}: could not be kept in the cache {cache.root()} ({error}); the next load reads or fetches it "
            f"again. Set {cache.VARIABLE} to a folder that can be written and has room.",
            stacklevel=2,
        )
        return None

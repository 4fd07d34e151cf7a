"""What this machine holds: where each dataset stands, and whether the copies are what was pinned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lossboard.data import bundled, cache, folder, hub
from lossboard.data.dataset import Kind
from lossboard.data.errors import DataError, NotThere
from lossboard.data.pins import Pin, find

Step = Literal["bundled", "folder", "cache", "hub", "addresses"]


@dataclass(frozen=True)
class Place:
    """One step of a look-up: `present` is None where only the network knows; `note` says why not, or what is wrong."""

    step: Step
    where: str
    present: bool | None
    note: str = ""


@dataclass(frozen=True)
class Status:
    """Where a dataset stands, from names of files alone: nothing is read, hashed or fetched."""

    name: str
    kind: Kind
    classes: int
    rows: int  # bytes of a text
    license: str
    places: tuple[Place, ...]  # in the order of the look-up

    @property
    def local(self) -> Place | None:
        """The place that a look-up would use without a network, if there is one."""
        return next((place for place in self.places if place.present), None)


@dataclass(frozen=True)
class Check:
    """One split of one local copy, read in full and hashed; `problem` is empty where it is what was pinned."""

    step: Step
    where: str
    split: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Verification:
    """The checks of every local copy of a dataset; there is at least one."""

    name: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def status(name: str) -> Status:
    """Where a dataset stands on this machine; raises DataError for an unknown name only."""
    pin = find(name)
    places = (_bundled_place(pin),) if pin.bundled else (_folder_place(pin), _cache_place(pin), _network_place(pin))
    return Status(name, pin.kind, pin.classes, sum(pin.splits.values()), pin.license, places)


def verify(name: str) -> Verification:
    """Read and hash every local copy; raises DataError where there is none, since that would verify nothing."""
    pin = find(name)
    if pin.bundled:
        where = bundled.source(pin)
        return Verification(name, tuple(_check("bundled", where, s, partial(bundled.load, pin)) for s in pin.splits))
    checks = (*_folder_checks(pin), *_cache_checks(pin))
    if not checks:
        raise DataError(f"{name}: no copy on this machine to verify. Run: lossboard data fetch {name}")
    return Verification(name, checks)


def _bundled_place(pin: Pin) -> Place:
    return Place("bundled", str(bundled.place(pin)), True)


def _folder_place(pin: Pin) -> Place:
    try:
        paths = folder.find(pin)
    except NotThere as missing:
        ((where, why),) = missing.tried
        return Place("folder", where, False, why)
    except DataError as error:
        return Place("folder", folder.VARIABLE, False, str(error))
    return Place("folder", str(next(iter(paths.values())).parent), True)


def _cache_place(pin: Pin) -> Place:
    where = str(cache.folder(pin))
    try:
        origin = cache.find(pin)
    except NotThere:
        return Place("cache", where, False, "does not exist")
    except DataError as error:
        return Place("cache", where, False, str(error))
    return Place("cache", where, True, f"made from {origin.made_from}")


def _network_place(pin: Pin) -> Place:
    if pin.hub:
        return Place("hub", hub.place(pin), None)
    return Place("addresses", " ".join(urls[0] for urls in pin.addresses.values()), None)


def _folder_checks(pin: Pin) -> list[Check]:
    try:
        paths = folder.find(pin)
    except NotThere:
        return []
    except DataError as error:
        return [Check("folder", folder.VARIABLE, split, str(error)) for split in pin.splits]
    return [_check("folder", str(path), split, partial(folder.read, pin, split, path)) for split, path in paths.items()]


def _cache_checks(pin: Pin) -> list[Check]:
    where = str(cache.folder(pin))
    try:
        cache.find(pin)
    except NotThere:
        return []
    except DataError as error:
        return [Check("cache", where, split, str(error)) for split in pin.splits]
    return [_check("cache", where, split, partial(cache.read, pin, split)) for split in pin.splits]


def _check(step: Step, where: str, split: str, read: Callable[[], object]) -> Check:
    try:
        read()
    except DataError as error:
        return Check(step, where, split, str(error))
    return Check(step, where, split)

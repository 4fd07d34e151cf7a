"""Artifacts: what is big and shared between units (trained weights, logits), made once and kept by what made it.

    .lossboard/artifacts/<name>-<key>.safetensors       <key>: of the name and of what made it

Requirements that this module meets:

- What made an artifact is its address: another seed, version or source is another file, and none is ever edited.
- Two processes that want one at once make it once: the second waits at a lock, which dies with its holder.
- A file is whole or not there. Its header says what made it and the SHA-256 of its tensors; both are compared on each
  load, and a file that fails is said, and made again.
- Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lossboard import paths
from lossboard.errors import LossboardError
from lossboard.records import StoreError, write_atomically

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SUFFIX = ".safetensors"
NAME = "[a-z0-9][a-z0-9_-]*"
_place: list[Path] = []  # where they lie within :func:`apart`


# eq=False: two tensors compare to a tensor, so artifacts are compared by identity, or by their hash.
@dataclass(frozen=True, eq=False)
class Artifact:
    """Tensors by name, on the CPU; ``sha256`` is the hash of their content (64 hex digits), which records can carry."""

    tensors: Mapping[str, Tensor]
    sha256: str
    path: Path


@dataclass(frozen=True)
class Kept:
    """What this machine keeps, and where."""

    folder: Path
    files: int
    bytes: int


class Unusable(Exception):
    """A file is not what its name says; the message says why."""


def artifact(name: str, made_of: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor | np.ndarray]]) -> Artifact:
    """The artifact of this name that these things make: from the disk, or from ``make()`` and then kept.

    ``made_of`` holds all that decides the content (suite, pins of data and task, hash of the source, seed, version of
    torch, ...), as JSON can write it. ``make`` returns tensors by name; while it runs, other processes that want the
    same artifact wait.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
        ValueError: the name is not lower-case letters, digits, hyphens and underscores, or a number is not finite.
        TypeError: ``made_of`` holds what JSON cannot write.
    """
    (found,) = artifacts(name, [made_of], lambda _: [make()])
    return found


def artifacts(
    name: str,
    each: Sequence[Mapping[str, Any]],
    make: Callable[[Sequence[int]], Iterable[Mapping[str, Tensor | np.ndarray]]],
) -> list[Artifact]:
    """As :func:`artifact`, of several that are made at once: those that are not on the disk, ``make(their places)``.

    ``make`` returns what it makes in that order. Of two that the same things make one is made.

    Raises:
        StoreError, ValueError, TypeError: as :func:`artifact`.
    """
    made = [canonical(made_of) for made_of in each]
    paths = [_path(name, one) for one in made]
    found = {path: _found(path, one) for path, one in zip(paths, made, strict=True)}
    missing = {path: paths.index(path) for path in sorted(found) if found[path] is None}
    with contextlib.ExitStack() as locks:
        for path in missing:  # in one order, whoever asks: no two processes wait for each other
            locks.enter_context(_locked(path))
        for path, i in missing.items():
            found[path] = _found(path, made[i], said=True)
        left = {path: i for path, i in missing.items() if found[path] is None}
        if left:
            for (path, i), tensors in zip(left.items(), make(list(left.values())), strict=True):
                _write(path, made[i], tensors)
                found[path] = _written(path, made[i])
    return [one for path in paths if (one := found[path])]


def find(name: str, made_of: Mapping[str, Any]) -> Artifact | None:
    """The artifact of this name that these things make, where it is on the disk and whole; None where it is not.

    Raises:
        ValueError, TypeError: as :func:`artifact`.
    """
    made = canonical(made_of)
    return _found(_path(name, made), made)


def unfinished(name: str, made_of: Mapping[str, Any]) -> Path:
    """The file in which what is made for this artifact may be kept until it is whole; its maker deletes it then.

    Raises:
        StoreError: the folder cannot be made.
        ValueError, TypeError: as :func:`artifact`.
    """
    path = _path(name, canonical(made_of)).with_suffix(".checkpoint")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {path.parent}: {error.strerror}. Make room and run again") from error
    return path


def kept() -> Kept:
    """How much artifacts take on this machine. The folder may be deleted: they are made again."""
    sizes = [path.stat().st_size for path in folder().glob(f"*{SUFFIX}")]
    return Kept(folder(), len(sizes), sum(sizes))


def folder() -> Path:
    """Where artifacts lie."""
    return _place[-1] if _place else paths.local() / "artifacts"


@contextlib.contextmanager
def apart(place: Path) -> Iterator[None]:
    """Within, artifacts lie in this folder, and those that this machine keeps are not looked at."""
    _place.append(place)
    try:
        yield
    finally:
        _place.pop()


def canonical(made_of: Mapping[str, Any]) -> str:
    """What made an artifact as one line of JSON, the same for equal mappings.

    >>> canonical({"seed": 0, "rates": (0.1, 0.2)})
    '{"rates":[0.1,0.2],"seed":0}'
    """
    return json.dumps(made_of, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of the tensors in the order of their names: name, dtype and shape, then the bytes of each.

    >>> import torch
    >>> content_hash({"a": torch.zeros(2)}) == content_hash({"a": torch.zeros(2, 1)})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _path(name: str, made: str) -> Path:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"artifact {name!r}: a name is lower-case letters, digits, hyphens and underscores")
    key = hashlib.sha256(f"{name}\n{made}".encode()).hexdigest()[:16]
    return folder() / f"{name}-{key}{SUFFIX}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of one artifact. Its file stays: a lock that is deleted while others wait for it would be two."""
    lock = FileLock(path.parent / "locks" / f"{path.stem}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise StoreError(f"cannot lock {lock.lock_file}: {error.strerror}. Make room and run again") from error
    try:
        yield
    finally:
        lock.release()


def _found(path: Path, made: str, *, said: bool = False) -> Artifact | None:
    """What lies there, where that is whole. Where it is ``said``, what is not is warned of."""
    try:
        return _load(path, made)
    except FileNotFoundError:
        return None
    except Unusable as reason:
        if said:
            warnings.warn(f"{path}: {reason}; it is made again", stacklevel=4)
        return None


def _written(path: Path, made: str) -> Artifact:
    try:
        return _load(path, made)
    except Unusable as reason:
        raise LossboardError(f"{path}: just written, and {reason}. Does the disk work?") from reason


def _write(path: Path, made: str, found: Mapping[str, Tensor | np.ndarray]) -> None:
    import safetensors.torch

    tensors = {name: _plain(tensor) for name, tensor in found.items()}
    header = {"made_of": made, "sha256": content_hash(tensors)}
    write_atomically(path, safetensors.torch.save(tensors, metadata=header))


def _plain(tensor: Tensor | np.ndarray) -> Tensor:
    """A contiguous copy on the CPU: the format refuses tensors that share memory, such as tied weights."""
    import torch

    return torch.as_tensor(tensor).detach().cpu().clone(memory_format=torch.contiguous_format)


def _load(path: Path, made: str) -> Artifact:
    """Read and verify one file.

    Raises:
        FileNotFoundError: there is none.
        Unusable: it cannot be read, something else made it, or its content is not what its header says.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, OSError) as error:
        raise Unusable(f"it cannot be read ({error})") from error
    if header.get("made_of") != made:
        raise Unusable("its header names another making")
    found = content_hash(tensors)
    if header.get("sha256") != found:
        raise Unusable(f"its content has the SHA-256 {found}, its header says {header.get('sha256')}")
    return Artifact(tensors, found, path)

"""What a kernel is: one implementation of an operation, in one file ``kernels/<operation>/<id>.py``.

    >>> sorted(catalogue("softmax"))[:2]
    ['auto', 'compiled']
    >>> catalogue("softmax")["two_pass"].approximate
    False

The operation's package calls an implementation by name; ``reference/ops/<operation>.py`` defines what it must give. A
file whose optional package is absent (Triton) fails to import, and its implementation is listed in :func:`missing`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reference.methods import MethodError, UnknownMethod

if TYPE_CHECKING:
    from torch import Tensor

OPTIONAL = ("triton", "liger_kernel", "cut_cross_entropy")  # packages that a machine may lack


@dataclass(frozen=True)
class Kernel:
    """One implementation. ``function`` has the operation's own signature, which its package's docstring gives."""

    op: str
    id: str
    function: Callable[..., Any] = field(repr=False)
    module: str
    device: str  # "cpu", "cuda", or "any"
    dtypes: tuple[str, ...]  # of the inputs: names of torch dtypes; none: any
    options: tuple[str, ...]  # the settings of its own that it takes: what is keyword-only
    approximate: bool  # its error beyond rounding is shown beside its time
    gradient_in_forward: bool  # the forward pass computes the gradient: no reduction "none"
    overwrites: tuple[str, ...]  # the inputs that its backward pass overwrites, of which there may be one then
    needs: tuple[str, ...]  # packages


class Unsupported(ValueError):
    """An implementation cannot do what is asked of it; the message says what it can."""


_registered: dict[tuple[str, str], Kernel] = {}  # by operation and id
_missing: dict[tuple[str, str], str] = {}  # by operation and file: the package that is absent


def kernel(
    op: str,
    *,
    id: str | None = None,
    device: str = "cpu",
    dtypes: tuple[str, ...] = ("float32",),
    approximate: bool = False,
    gradient_in_forward: bool = False,
    overwrites: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an implementation of an operation under its function's name (or ``id``); the function is left as it is.

    Raises:
        MethodError: the id is not lower-case letters, digits and underscores, or two implementations share it.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = id or function.__name__
        where = f"kernel '{name}' of '{op}' ({function.__module__})"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise MethodError(f"{where}: an id is lower-case letters, digits and underscores")
        known = _registered.get((op, name))
        if known and known.module != function.__module__:
            raise MethodError(f"{where}: {known.module} has this id; rename one")
        keywords = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        _registered[op, name] = Kernel(
            op,
            name,
            function,
            function.__module__,
            device,
            dtypes,
            tuple(keywords),
            approximate,
            gradient_in_forward,
            overwrites,
            needs,
        )
        return function

    return register


def required(package: str) -> None:
    """For the top of a file whose functions import an optional package when they are called: it may be slow, or broken.

    Raises:
        ModuleNotFoundError: the package is absent.
    """
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)


@functools.cache
def catalogue(op: str) -> Mapping[str, Kernel]:
    """Every implementation of an operation that this machine can import, by id in alphabetical order.

    Raises:
        UnknownMethod: there is no such operation.
        MethodError: an implementation breaks the contract, or its file cannot be imported.
    """
    import kernels

    operations = [found.name for found in pkgutil.iter_modules(kernels.__path__) if found.ispkg]
    if op not in operations:
        raise UnknownMethod(f"no operation '{op}'; there are: {', '.join(operations)}")
    package = importlib.import_module(f"kernels.{op}")
    for found in pkgutil.iter_modules(package.__path__):
        try:
            importlib.import_module(f"{package.__name__}.{found.name}")
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            _missing[op, found.name] = str(error.name)
    return MappingProxyType(dict(sorted((id, k) for (registered, id), k in _registered.items() if registered == op)))


def checked(found: Kernel, x: Tensor) -> None:
    """Refuse an input that the implementation does not take.

    Raises:
        Unsupported: its dtype or its device.
    """
    if found.dtypes and str(x.dtype)[6:] not in found.dtypes:
        raise Unsupported(f"'{found.id}' of '{found.op}' takes {', '.join(found.dtypes)}, not {x.dtype}")
    if found.device != "any" and x.device.type != found.device:
        raise Unsupported(f"'{found.id}' of '{found.op}' runs on {found.device}, not on {x.device}")


def checked_target(target: Tensor, rows: Sequence[int], names: str) -> None:
    """Refuse targets that are not a whole number for each row; ``names`` says whose rows they are.

    Raises:
        ValueError: their shape.
        Unsupported: their dtype.
    """
    if target.shape != tuple(rows):
        raise ValueError(f"target is {tuple(target.shape)}, where {names} has a row for each of {tuple(rows)}")
    if target.is_floating_point() or target.is_complex() or str(target.dtype) == "torch.bool":
        raise Unsupported(f"target has a whole number for each row, the class, not {target.dtype}")


def on(op: str, device: str) -> list[str]:
    """The ids of the implementations that run on a device, "cpu" or "cuda"."""
    return [id for id, found in catalogue(op).items() if found.device in ("any", device)]


def written_in_triton(op: str, id: str, x: Tensor) -> Callable[..., Any] | None:
    """The function of this id if Triton is here and it takes x; for a choice that has another where not."""
    found = catalogue(op).get(id)
    takes = found and found.device == x.device.type and str(x.dtype)[6:] in found.dtypes
    return found.function if found and takes else None


def missing(op: str) -> dict[str, str]:
    """The files of an operation that cannot be imported here, and the package each lacks."""
    catalogue(op)
    return {file: package for (found, file), package in _missing.items() if found == op}


@functools.cache
def implementation(op: str, id: str) -> Kernel:
    """The implementation of this id.

    Raises:
        UnknownMethod: there is none; the message gives the nearest ids, or the package that is absent.
    """
    known = catalogue(op)
    if id in known:
        return known[id]
    if id in missing(op):
        raise UnknownMethod(f"'{id}' of '{op}' needs the package {missing(op)[id]}, which is not installed")
    near = difflib.get_close_matches(id, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
    raise UnknownMethod(f"no implementation '{id}' of '{op}'; {hint}")

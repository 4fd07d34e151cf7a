"""What a method is: the decorators that register one, and the catalogue of what they registered.

A method is one function in one file. Its hyperparameters are keyword-only with the author's default; a decorator
declares the rest. The catalogue finds methods by importing every module of the kind's package and every entry point
of the group ``lossboard.methods``, so a method may live in its author's own repository.

    >>> gce = catalogue("loss")["gce"]
    >>> dict(gce.defaults), gce.bounded
    ({'q': 0.7}, True)

This module needs no torch; importing a method does.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

PACKAGES = {"loss": "reference.losses"}  # kind of method -> the package its files live in
ENTRY_POINTS = "lossboard.methods"
SUPPLIED = ("state", "progress", "draws")  # what the harness passes to a loss that names it


class MethodError(Exception):
    """A method breaks its contract; the message names it and says what the contract asks."""


class UnknownMethod(LookupError):
    """No method has this id; the message lists the nearest ones."""


@dataclass(frozen=True)
class Range:
    """What tuning may try for one hyperparameter: low to high, uniformly or (``log``) uniformly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise MethodError(f"{self}: need low < high, and low > 0 for log")

    def at(self, u: float) -> float:
        """The value at quantile u in [0, 1], rounded to 4 significant digits so that it can be quoted."""
        value = self.low * (self.high / self.low) ** u if self.log else self.low + (self.high - self.low) * u
        return float(f"{value:.4g}")


@dataclass(frozen=True)
class Memory:
    """Per-sample memory of a loss: one value (or, ``per_class``, C values) for each training sample.

    The loss receives this batch's rows as ``state``, (N,) or (N, C), and returns ``(values, new_rows)``.
    """

    initial: float
    per_class: bool = False


@dataclass(frozen=True)
class Method:
    """One entry of the catalogue. ``function`` is the plain function; the rest is what its decorator declared."""

    id: str
    kind: str
    function: Callable[..., Any] = field(repr=False)
    module: str
    defaults: Mapping[str, float]
    search: Mapping[str, Range]
    supplied: tuple[str, ...] = ()  # which of SUPPLIED its signature names
    symmetric: bool = False  # sum over all labels is constant in the logits
    bounded: bool = False  # bounded over all logits
    batchwise: bool = False  # a property of the batch: returns a scalar
    memory: Memory | None = None
    draws: int = 0  # uniforms wanted for each sample of a batch
    tags: tuple[str, ...] = ()

    @property
    def citation(self) -> str:
        """The paper: the first paragraph of the module's docstring, on one line."""
        return _paragraphs(sys.modules[self.module].__doc__)[0]

    @property
    def summary(self) -> str:
        """The first paragraph of the function's docstring, on one line."""
        return _paragraphs(self.function.__doc__)[0]

    @property
    def formula(self) -> str:
        """The LaTeX between ``$$`` in the function's docstring, or ''."""
        found = re.search(r"\$\$(.+?)\$\$", self.function.__doc__ or "", re.DOTALL)
        return " ".join(found[1].split()) if found else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The docstring's further paragraphs, without the formula."""
        return tuple(text for text in _paragraphs(self.function.__doc__)[1:] if not text.startswith("$$"))


def loss(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    symmetric: bool = False,
    bounded: bool = False,
    batchwise: bool = False,
    state: Memory | None = None,
    draws: int = 0,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a multiclass classification loss under its function's name (or ``id``); the function is left as it is.

    The contract: ``f(logits, target, *, hyperparameters)`` with raw logits (N, C) and integer target (N,) returns the
    per-sample values (N,), or a scalar if ``batchwise``; a loss with ``state`` returns ``(values, new_rows)``. The
    harness takes the mean. Hyperparameters have the author's default and may arrive as 0-d tensors, so no Python
    branches on them; no random calls, no in-place scatter, no global state; finite values and gradients at logits of
    +-1e4. Keyword-only ``state``, ``progress`` (epoch / epochs, a 0-d tensor in [0, 1)) and ``draws`` (N, draws) are
    passed to a loss that names them. The module's docstring begins with the citation, "Name (Authors, Venue Year,
    arXiv:0000.00000)."; the function's first paragraph says what it is and the shapes, "for logits (N, C) and target
    (N,); returns (N,)", and another is its formula, ``$$ LaTeX $$``: its page is made of them.

    Args:
        search: hyperparameter -> range that tuning may try (the learning rate is added for every method).
        symmetric, bounded: properties that the contract tests check numerically.
        state: per-sample memory, see :class:`Memory`.
        draws: uniforms in [0, 1) wanted per sample, from the run's own stream.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = id or function.__name__
        where = f"loss '{name}' ({function.__module__})"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise MethodError(f"{where}: an id is lower-case letters, digits and underscores")
        parameters = list(inspect.signature(function).parameters.values())
        if [p.name for p in parameters[:2]] != ["logits", "target"]:
            found = [p.name for p in parameters[:2]]
            raise MethodError(f"{where}: the first two parameters are 'logits, target', found {found}")
        defaults: dict[str, float] = {}
        supplied = []
        for p in parameters[2:]:
            if p.kind is not p.KEYWORD_ONLY:
                raise MethodError(f"{where}: '{p.name}' must be keyword-only (after '*')")
            if p.name in SUPPLIED:
                supplied.append(p.name)
            elif p.default is p.empty:
                raise MethodError(f"{where}: hyperparameter '{p.name}' needs the author's default")
            elif not isinstance(p.default, int | float):
                raise MethodError(f"{where}: the default of '{p.name}' must be a number, found {p.default!r}")
            else:
                defaults[p.name] = float(p.default)
        ranges = {key: value if isinstance(value, Range) else Range(*value) for key, value in (search or {}).items()}
        for key in ranges:
            if key not in defaults:
                raise MethodError(f"{where}: search names '{key}', not a hyperparameter; it has {sorted(defaults)}")
        if (state is None) is ("state" in supplied) or (draws == 0) is ("draws" in supplied):
            raise MethodError(f"{where}: declare state=Memory(...) and draws=n exactly when the signature names them")
        _add(
            Method(
                id=name,
                kind="loss",
                function=function,
                module=function.__module__,
                defaults=MappingProxyType(defaults),
                search=MappingProxyType(ranges),
                supplied=tuple(supplied),
                symmetric=symmetric,
                bounded=bounded,
                batchwise=batchwise,
                memory=state,
                draws=draws,
                tags=tuple(tags),
            )
        )
        return function

    return register


_registered: dict[tuple[str, str], Method] = {}  # by kind and id


def _add(method: Method) -> None:
    known = _registered.get((method.kind, method.id))
    if known and (known.module, known.function.__qualname__) != (method.module, method.function.__qualname__):
        raise MethodError(f"two methods have the id '{method.id}': {known.module} and {method.module}; rename one")
    _registered[method.kind, method.id] = method


@functools.cache
def catalogue(kind: str) -> Mapping[str, Method]:
    """Every method of a kind, by id in alphabetical order. Imports the kind's package and the entry points (torch).

    Raises:
        MethodError: a method breaks the contract, two share an id, or an entry point cannot be imported.
    """
    if kind not in PACKAGES:
        raise UnknownMethod(f"no kind of method '{kind}'; there are: {', '.join(PACKAGES)}")
    package = importlib.import_module(PACKAGES[kind])
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            importlib.import_module(found.name)
        except MethodError:
            raise
        except Exception as error:
            raise MethodError(f"{found.name} cannot be imported: {type(error).__name__}: {error}") from error
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise MethodError(f"entry point '{point.name}' = '{point.value}' cannot be loaded: {error}") from error
    return MappingProxyType({id: _registered[found, id] for found, id in sorted(_registered) if found == kind})


def select(methods: Mapping[str, Method], ids: list[str] | None) -> dict[str, Method]:
    """The methods with these ids, or all of them for None.

    Raises:
        UnknownMethod: an id is not in the catalogue; the message gives the nearest ids.
    """
    for key in ids or ():
        if key not in methods:
            near = difflib.get_close_matches(key, methods, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(methods)}"
            raise UnknownMethod(f"no method '{key}'; {hint}")
    return {key: method for key, method in methods.items() if ids is None or key in ids}


def _paragraphs(doc: str | None) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(doc or ""))]

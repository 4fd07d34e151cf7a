"""The benchmarks of ``tracked`` one by one, for whoever runs them without asv: pytest-benchmark, and the tests."""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import tracked


@dataclass(frozen=True)
class Case:
    """One method of a benchmark at one setting of its parameters."""

    owner: type[Any]
    method: str
    params: tuple[Any, ...]

    def __str__(self) -> str:
        module = self.owner.__module__.removeprefix(f"{tracked.__name__}.")
        return "-".join([f"{module}.{self.owner.__name__}.{self.method}", *map(str, self.params)])

    def ready(self) -> Callable[[], Any]:
        """What is to be measured, after its setup.

        Raises:
            NotImplementedError: it cannot be measured here.
        """
        instance = self.owner()
        instance.setup(*self.params)
        return functools.partial(getattr(instance, self.method), *self.params)


def cases(*kinds: str) -> list[Case]:
    """Every case whose method's name begins with one of these."""
    return [case for owner in _owners() for case in _of(owner, kinds)]


def _owners() -> Iterator[type[Any]]:
    """The classes of benchmarks, as asv finds them."""
    for found in pkgutil.iter_modules(tracked.__path__):
        module = importlib.import_module(f"{tracked.__name__}.{found.name}")
        for name, owner in inspect.getmembers(module, inspect.isclass):
            if owner.__module__ == module.__name__ and not name.startswith("_"):
                yield owner


def _of(owner: type[Any], kinds: tuple[str, ...]) -> Iterator[Case]:
    for method in dir(owner):
        if method.startswith(kinds):
            yield from (Case(owner, method, params) for params in itertools.product(*owner.params))

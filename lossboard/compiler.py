"""Compiled steps: TorchInductor with a C++ compiler where there is one, and its cache in the checkout.

``LOSSBOARD_COMPILE=0`` turns compilation off. Compiled and eager steps agree to rounding, not to the bit; records name
the compiler they were made with (:func:`described`).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lossboard import paths

if TYPE_CHECKING:
    import torch

COMPILERS = ("g++", "clang++")


def _found() -> str | None:
    """The C++ compiler that TorchInductor would use."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))), None)


@functools.cache
def described() -> str:
    """Name and version of the compiler, or "none" where steps run eagerly."""
    path = None if os.environ.get("LOSSBOARD_COMPILE") == "0" else _found()
    if path is None:
        return "none"
    try:
        first = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none"
    return first.strip()


@functools.cache
def available() -> bool:
    """Whether a small function can be compiled here: a compiler may be present and yet lack headers or OpenMP."""
    if described() == "none":
        return False
    import torch

    try:
        (double,) = compiled("a trial", (), (_twice,))
        return bool((double(torch.ones(16)) == 2).all())
    except Exception as error:
        print(f"cannot compile here, steps run eagerly: {type(error).__name__}: {str(error).splitlines()[0]}")
        return False


def _twice(x: torch.Tensor) -> torch.Tensor:
    return x + x


_last: tuple[Any, tuple[Callable[..., Any], ...]] = (None, ())


def compiled(name: str, key: Any, functions: tuple[Callable[..., Any], ...]) -> tuple[Callable[..., Any], ...]:
    """These functions, each as one graph; the last ones for an equal name and key, and those of another are forgotten.

    Messages say the name. The key must decide whatever a graph hangs on, shapes and dtypes of the arguments above all:
    no call checks them, which would take a tenth of a fleet's step.
    """
    global _last
    if _last[0] == (name, key):
        return _last[1]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.local() / "compiled"))
    import torch

    torch._dynamo.reset()
    _last = (name, key), tuple(_with_fallback(name, function) for function in functions)
    return _last[1]


def _with_fallback(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, or as it is where the compiler fails on it: before it has run, so nothing is lost."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    made: Callable[..., Any] = torch.compile(
        function,
        fullgraph=True,
        dynamic=False,
        options={"guard_filter_fn": torch.compiler.skip_all_guards_unsafe, "size_asserts": False},
    )
    failed = False

    def call(*given: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                return made(*given)
            except TorchDynamoException as error:
                failed = True
                print(f"{name}: runs eagerly, cannot be compiled: {str(error).splitlines()[0]}", file=sys.stderr)
        return function(*given)

    return call

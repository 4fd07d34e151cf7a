"""The hash of a method's source: what makes a record current or stale. Reads files, imports no method (no torch)."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

HARNESS = ("reference.methods", "kernels.registry")  # the decorators: no part of what a method computes
OURS = ("reference.", "kernels.")


@functools.cache
def source(module: str) -> str | None:
    """12 hex digits over the syntax trees of a module and those of ``reference`` and ``kernels`` that it imports.

    None if it is gone.

    Docstrings, comments and layout do not count. "a+b", a correction and the loss it wraps, is both modules.
    """
    found: dict[str, str] = {}
    try:
        for part in module.split("+"):
            _collect(part, found)
    except (
        ModuleNotFoundError,
        SyntaxError,
        ValueError,
        OSError,
        RecursionError,
        MemoryError,
    ):  # gone, or nothing that Python can read
        return None
    text = "\n".join(f"{name}\n{found[name]}" for name in sorted(found, key=lambda name: (name != module, name)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _collect(module: str, found: dict[str, str]) -> None:
    """Add a module's syntax tree, and those of the modules of ours it imports, to ``found``."""
    path = _file(module)
    if path is None:
        raise ModuleNotFoundError(module)
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    found[module] = _text(tree)
    for name in sorted(_imports(tree, module if path.stem == "__init__" else module.rpartition(".")[0])):
        if name.startswith(OURS) and name not in HARNESS and name not in found and _file(name):
            _collect(name, found)


def _text(node: object) -> str:
    """A syntax tree as text, the same on every Python: ``ast.dump`` writes empty fields on some versions only."""
    if isinstance(node, ast.AST):
        fields = [(name, getattr(node, name)) for name in node._fields if getattr(node, name, None) not in (None, [])]
        return f"{type(node).__name__}({','.join(f'{name}={_text(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


def _imports(tree: ast.AST, package: str) -> set[str]:
    """Every dotted name that the tree of a module in this package imports: modules, and names that may be modules."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def _file(module: str) -> Path | None:
    """The file of a module, found without importing anything: records are untrusted, and name modules."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places, found = [Path(place) for place in spec.submodule_search_locations or ()], spec.origin
    for part in rest:
        files = [file for place in places for file in (place / part / "__init__.py", place / f"{part}.py")]
        found = next((str(file) for file in files if file.is_file()), None)
        places = [place / part for place in places]
    return Path(found) if found and found.endswith(".py") else None

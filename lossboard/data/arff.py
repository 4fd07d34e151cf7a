"""ARFF, the format of multi-label collections: a header of attributes, then rows, dense or sparse.

Numbers stay as they are, a value of two (0 and 1, or NO and YES) becomes 0 or 1, and a value of several as many columns
as it was declared with, 1 where it is the row's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ATTRIBUTE = re.compile(rf"@attribute\s+({QUOTED}|\S+)\s+(.+)", re.IGNORECASE)
VALUE = re.compile(rf"\s*((?:{QUOTED}|[^,'\"])*)\s*(?:,|$)")
NUMERIC = ("numeric", "real", "integer")
ONE = {frozenset("01"): "1", frozenset(("NO", "YES")): "YES"}  # declared values -> the one that is 1


@dataclass(frozen=True)
class Attribute:
    """One column: its name, and the values it was declared with, or () for a number."""

    name: str
    values: tuple[str, ...]


def read(data: bytes, labels: Sequence[str], left_out: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 (N, d) and labels int8 (N, L): the attributes of these names, in the file's order.

    Raises ValueError: the file is no such ARFF, has another order of labels, or a label is not of 0 and 1.
    """
    import numpy as np

    attributes, rows = _parse(data.decode("utf-8"))
    names = [attribute.name for attribute in attributes]
    if [name for name in names if name in set(labels)] != list(labels):
        raise ValueError(f"the attributes do not hold the {len(labels)} labels in their order")
    if missing := [name for name in left_out if name not in names]:
        raise ValueError(f"no attribute {missing[0]!r} to leave out")
    table = np.array(rows, dtype=np.float64).reshape(-1, len(attributes))
    features = [_columns(a, table[:, j]) for j, a in enumerate(attributes) if a.name not in {*labels, *left_out}]
    marks = [_columns(a, table[:, j]) for j, a in enumerate(attributes) if a.name in set(labels)]
    if any(mark.shape[1] != 1 or not np.isin(mark, (0, 1)).all() for mark in marks):
        raise ValueError("a label has other values than 0 and 1")
    return np.concatenate(features, axis=1).astype(np.float32), np.concatenate(marks, axis=1).astype(np.int8)


def _parse(text: str) -> tuple[list[Attribute], list[list[float]]]:
    """The attributes, and rows of numbers, places of values among the declared ones."""
    attributes: list[Attribute] = []
    rows: list[list[float]] = []
    coders: list[Callable[[str], float]] | None = None
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("%"):
            continue
        try:
            if coders is not None:
                rows.append(_row(line, coders))
            elif line.lower().startswith("@attribute"):
                attributes.append(_attribute(line))
            elif line.lower().startswith("@data"):
                coders = [_coder(attribute) for attribute in attributes]
            elif not line.lower().startswith("@relation"):
                raise ValueError(f"{line[:40]!r} in the header")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(f"line {number} is not ARFF: {error}") from error
    if not rows:
        raise ValueError("no rows of ARFF")
    return attributes, rows


def _attribute(line: str) -> Attribute:
    found = ATTRIBUTE.match(line)
    kind = found[2].strip() if found else ""
    if found is None or not (kind.startswith("{") or kind.lower() in NUMERIC):
        raise ValueError(f"an attribute of a kind that is not known: {line[:60]!r}")
    return Attribute(_plain(found[1]), tuple(_values(kind.strip("{}"))) if kind.startswith("{") else ())


def _plain(text: str) -> str:
    """Without quotes and the escapes within them."""
    text = text.strip()
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in ("'", '"') and len(text) > 1 else text


def _values(text: str) -> list[str]:
    """The values of a list with commas between them, which may be quoted."""
    if "'" not in text and '"' not in text:
        return [value.strip() for value in text.split(",")]
    found, position = [], 0
    while position < len(text):
        match = VALUE.match(text, position)
        if match is None:
            raise ValueError(f"quotes that do not close in {text[position : position + 40]!r}")
        found.append(_plain(match[1]))
        position = match.end()
    return found


def _coder(attribute: Attribute) -> Callable[[str], float]:
    places = {value: float(place) for place, value in enumerate(attribute.values)}
    return places.__getitem__ if places else float


def _row(line: str, coders: Sequence[Callable[[str], float]]) -> list[float]:
    if not line.startswith("{"):
        return [code(value) for code, value in zip(coders, _values(line), strict=True)]
    row = [0.0] * len(coders)  # what a sparse row leaves out is 0, or the first of the declared values
    for item in _values(line.strip("{}").strip()):
        if item:
            place, value = item.split(None, 1)
            row[int(place)] = coders[int(place)](_plain(value))
    return row


def _columns(attribute: Attribute, column: np.ndarray) -> np.ndarray:
    """One column (N, 1), or one for each declared value (N, k)."""
    import numpy as np

    values = attribute.values
    if not values:
        if not np.isfinite(column).all():
            raise ValueError(f"attribute {attribute.name!r} holds numbers that are not finite")
        return column[:, None]
    if one := ONE.get(frozenset(values)):
        return (column == values.index(one)).astype(np.float64)[:, None]
    return (column[:, None] == np.arange(len(values))).astype(np.float64)

"""Rows that occur twice: test rows whose features a model has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def repeated(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """True for each of the rows (N, d) whose features also occur, number for number, among others (M, d): (N,).

    >>> import numpy as np
    >>> repeated(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[0.0, 0.0], [2.0, 1.0]])).tolist()
    [False, True]
    """
    import numpy as np

    seen = {row.tobytes() for row in _same_bytes(among)}
    return np.array([row.tobytes() in seen for row in _same_bytes(rows)], dtype=bool)


def _same_bytes(rows: np.ndarray) -> np.ndarray:
    """Equal numbers as equal bytes: both zeros are one."""
    return rows + rows.dtype.type(0)

"""Columns decided one after another, what each costs made good by those after it: what GPTQ and SparseGPT share.

With H = X^T X of a layer's inputs and U the upper triangle of H^-1 = U^T U, deciding column j of W with an error e_j
= (w_j - q_j) / U_jj changes the columns k > j by -e_j U_jk (Frantar et al., ICLR 2023, arXiv:2210.17323, sec. 3).
"""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128  # columns whose changes are kept back and then made to all later ones by one product
DAMPING = 0.01  # times the mean of H's diagonal is added to it

Decide = Callable[[int, Tensor], Tensor]  # (number of a column, the column (o,) as it is now) -> what it becomes
Begin = Callable[[int, Tensor, Tensor], None]  # see by_columns


def inverse_factor(h: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """U (d, d), upper, with H^-1 = U^T U of the damped H (d, d); and which inputs (d,) are always zero.

    One factorisation and one inverse of a triangle: H = R R^T with R upper is the Cholesky factor of H with rows and
    columns in reverse, and U is R^-1.
    """
    h = h.double().clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1.0
    h.diagonal().add_(damping * h.diagonal().mean())
    r = torch.linalg.cholesky(h.flip(0, 1)).flip(0, 1)
    eye = torch.eye(len(h), dtype=h.dtype)
    return torch.linalg.solve_triangular(r, eye, upper=True), dead


def by_columns(
    w: Tensor, u: Tensor, decide: Decide, begin: Begin = lambda *_: None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Decide the columns of w (o, d) in turn; returns what was decided (o, d) and the loss of each column (d,).

    ``decide(j, column)`` gives the decided column. ``begin(first, columns, diagonal)`` is called before each block with
    its columns (k, o) as they are then and their U_jj (k,); columns are changed in place, so what it keeps stays
    current within the block. The loss is the sum of (w_j - q_j)^2 / (2 U_jj^2).
    """
    left = w.T.contiguous().clone()  # a column is a row here: its numbers lie together
    u = u.to(w.dtype)
    decided, losses = torch.empty_like(left), torch.empty(len(left), dtype=w.dtype)
    for first in range(0, len(left), block):
        last = min(first + block, len(left))
        part, errors = left[first:last], torch.empty_like(left[first:last])
        begin(first, part, u.diagonal()[first:last])
        for i in range(last - first):
            j = first + i
            decided[j] = decide(j, part[i])
            errors[i] = (part[i] - decided[j]) / u[j, j]
            part[i + 1 :].addr_(u[j, j + 1 : last], errors[i], alpha=-1)
            losses[j] = errors[i].square().sum() / 2
        left[last:].addmm_(u[first:last, last:].T, errors, alpha=-1)
    return decided.T.contiguous(), losses

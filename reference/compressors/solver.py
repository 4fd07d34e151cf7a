"""Columns decided one after another, what each costs made good by those after it: what GPTQ and SparseGPT share.

With H = X^T X of a layer's inputs and U the upper triangle of H^-1 = U^T U, deciding column j of W with an error
(w_j - q_j) / U_jj changes the columns k > j by minus the error times U_jk (Frantar et al., ICLR 2023,
arXiv:2210.17323, sec. 3). U is the inverse of the upper R of H = R R^T, and never made: the outputs' error is that of
(W - Q) R, in whose column k only the weights up to k have a part, so what is decided before a block of columns B
changes it by (W - Q) R_B R_BB^-1, which makes those columns zero. That leaves one factorisation and one product.
"""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128  # columns that are made current by one product
LEAF = 16  # columns of a block whose changes are made to the rest of it at once
DAMPING = 0.01  # times the mean of H's diagonal is added to it

Decide = Callable[[int, Tensor], Tensor]  # (number of a column, the column (o,) as it is now) -> what it becomes
Begin = Callable[[int, Tensor, Tensor], None]  # see by_columns


def factor(h: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """R (d, d), upper, with H = R R^T of the damped H (d, d), float64; and which inputs (d,) are always zero.

    It is the Cholesky factor of H with rows and columns in reverse.
    """
    dead = h.diagonal() == 0
    h = h.flip(0, 1).double()
    own = h.diagonal()
    own[dead.flip(0)] = 1.0
    own.add_(damping * own.mean())
    return torch.linalg.cholesky(h).flip(0, 1), dead


def by_columns(
    w: Tensor, r: Tensor, decide: Decide, begin: Begin = lambda *_: None, *, together: int = 1, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Decide the columns of w (o, d) in turn; returns what was decided (o, d) and the loss of each column (d,).

    ``decide(j, column)`` gives the decided column. ``begin(first, columns, diagonal)`` is called before each block with
    its columns (k, o) as they are then and their U_jj (k,). They are changed in place, and where j is a multiple of
    ``together`` so many from j on are current, of those in the block. The loss is the sum of
    (w_j - q_j)^2 / (2 U_jj^2).
    """
    given = w.T.contiguous()  # a column is a row here: its numbers lie together
    leaf = LEAF if block % LEAF == 0 and (together % LEAF == 0 or LEAF % together == 0) else block
    single = r.to(w.dtype)
    decided, lost = torch.empty_like(given), torch.empty_like(given)  # w - q
    losses = torch.empty(len(given), dtype=w.dtype)
    for first in range(0, len(given), block):
        last = min(first + block, len(given))
        corner = r[first:last, first:last]
        u = torch.linalg.solve_triangular(corner, torch.eye(len(corner), dtype=r.dtype), upper=True).to(w.dtype)
        columns = given[first:last].addmm(u.T, single[:first, first:last].T @ lost[:first])
        begin(first, columns, u.diagonal())
        errors, diagonal = torch.empty_like(columns), u.diagonal().tolist()
        for start in range(0, len(columns), leaf):
            end = min(start + leaf, len(columns))
            for i in range(start, end):
                decided[first + i] = decide(first + i, columns[i])
                torch.sub(columns[i], decided[first + i], out=errors[i]).div_(diagonal[i])
                columns[i + 1 : end].addr_(u[i, i + 1 : end], errors[i], alpha=-1)
            columns[end:].addmm_(u[start:end, end:].T, errors[start:end], alpha=-1)
        torch.sub(given[first:last], decided[first:last], out=lost[first:last])
        losses[first:last] = errors.square_().sum(1) / 2
    return decided.T.contiguous(), losses

"""The labels that rows have, and what decoupled softmax makes of their logits and of the sum over the others.

value_i = 1 / |P_i| sum_l log(1 + exp(R_i - z_il))        R_i = log sum_k exp z_ik, over absent k
d value_i / d z_il = -s_il,    s_il = 1 / |P_i| / (1 + exp(z_il - R_i))        of a present l
d value_i / d z_ik = S_i exp(z_ik - R_i),    S_i = sum_l s_il                  of an absent k
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


def nowhere(dtype: torch.dtype) -> float:
    """Lower than any logit, and far enough from the end of the range for a difference of two."""
    return -torch.finfo(dtype).max / 8


@dataclass(frozen=True)
class Present:
    """Entry j is label[j] of row row[j], rows ascending; counts (N,) are at least 1, so that they can divide."""

    row: Tensor
    label: Tensor
    counts: Tensor

    @classmethod
    def of(cls, positives: Tensor) -> Present:
        """Of labels (N, P), less than 0 where there is none."""
        there = positives >= 0
        row, place = there.nonzero(as_tuple=True)
        return cls(row, positives[row, place], there.sum(1).clamp(min=1))

    def part(self, rows: slice) -> Present:
        """Of a range of rows, counted from its first."""
        first, last = torch.searchsorted(self.row, torch.tensor([rows.start, rows.stop], device=self.row.device))
        entries = slice(int(first), int(last))
        return Present(self.row[entries] - rows.start, self.label[entries], self.counts[rows])

    def sums(self, each: Tensor) -> Tensor:
        """Sums (N,) over the rows' entries."""
        return torch.zeros(len(self.counts), dtype=each.dtype, device=each.device).index_add_(0, self.row, each)

    def taken_(self, logits: Tensor) -> Tensor:
        """The logits of the entries, in whose places :func:`nowhere` is left."""
        own = logits[self.row, self.label]
        logits[self.row, self.label] = nowhere(logits.dtype)
        return own

    def values(self, own: Tensor, rivals: Tensor) -> Tensor:
        """The losses (N,) from the entries' logits and R (N,)."""
        return self.sums(softplus(rivals[self.row] - own) / self.counts[self.row])

    def slopes(self, own: Tensor, rivals: Tensor) -> Tensor:
        """s of the entries."""
        return torch.sigmoid(rivals[self.row] - own) / self.counts[self.row]

"""What the runs of a fleet are taught and judged by: one class a row, or a set of labels a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lossboard.metrics import balanced, mean_average_precision
from lossboard.native import picked
from lossboard.problem import MultiLabel, Problem

Batch = tuple[Tensor, dict[str, Tensor]]  # targets of a step (R, N, ...), and what a loss may be told of them


def targets(problems: Sequence[Problem], supplied: Sequence[str], device: torch.device) -> Classes | LabelSets:
    """Those of the runs with these problems, which are all of one kind; ``supplied`` is what their method asks for."""
    sets = [problem for problem in problems if isinstance(problem, MultiLabel)]
    return LabelSets(sets, "observed" in supplied, device) if sets else Classes(problems, device)


class Classes:
    """One class a row."""

    def __init__(self, problems: Sequence[Problem], device: torch.device) -> None:
        self.balanced = problems[0].balanced
        self.labels = torch.stack([problem.labels for problem in problems]).to(device)

    def batches(self, rows: Tensor) -> Iterable[Batch]:
        """Step by step the targets (R, N) of these rows (S, R, N)."""
        return ((target, {}) for target in picked(self.labels, rows))

    def wanted(self, rows: Tensor) -> Tensor:
        """The labels of these rows (R, N), which an evaluation compares with the largest score."""
        return self.labels.gather(1, rows)

    def scores(self, right: Tensor, rows: Tensor) -> Tensor:
        """The accuracy of each run, or the mean recall of the classes, of what was right (R, N): (R,)."""
        if self.balanced:
            each = [balanced(one, labels) for one, labels in zip(right, self.wanted(rows), strict=True)]
            return torch.tensor(each, dtype=torch.float64)
        return right.double().cpu().mean(1)


class LabelSets:
    """Any number of labels a row. Runs with the same labels share them."""

    def __init__(self, problems: Sequence[MultiLabel], tells: bool, device: torch.device) -> None:
        self.labels = _Shared([problem.labels for problem in problems], device)
        everything = torch.ones_like(problems[0].labels)
        seen = [everything if problem.seen is None else problem.seen for problem in problems]
        self.seen = _Shared(seen, device) if tells else None
        self.dtype = problems[0].features.dtype

    def batches(self, rows: Tensor) -> Iterable[Batch]:
        """Step by step the targets (R, N, L) of these rows (S, R, N), and which are ``observed`` if asked.

        The rows of a label lie together in memory, as a fleet's logits do: what is elementwise is faster then.
        """
        for chosen in rows:
            observed = {"observed": self._numbers(self.seen.of(chosen))} if self.seen else {}
            yield self._numbers(self.labels.of(chosen)), observed

    def _numbers(self, found: Tensor) -> Tensor:
        return found.mT.to(self.dtype, memory_format=torch.contiguous_format).mT

    def wanted(self, rows: Tensor) -> None:
        """Nothing: the order of all rows says what is right."""

    def scores(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The mean average precision of each run's outputs (R, L, N) for these rows (R, N): (R,)."""
        pairs = zip(outputs, self.labels.of(rows), strict=True)
        return torch.tensor([mean_average_precision(one.T, labels) for one, labels in pairs], dtype=torch.float64)


class _Shared:
    """A tensor (rows, L) for each run, kept once where runs have the same."""

    def __init__(self, each: Sequence[Tensor], device: torch.device) -> None:
        distinct = list({id(one): one for one in each}.values())
        place = {id(one): i * len(one) for i, one in enumerate(distinct)}
        self.table = (torch.cat(distinct) if len(distinct) > 1 else distinct[0]).to(device)
        self.first = torch.tensor([[place[id(one)]] for one in each], device=device)

    def of(self, rows: Tensor) -> Tensor:
        """Of these rows (R, N) of each run: (R, N, L)."""
        found = self.table.index_select(0, (rows + self.first).reshape(-1))
        return found.view(*rows.shape, -1)

"""Which weights are cut: how many, in which groups, and masks of those with the largest scores."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 8  # rows of scores that are compared with each other, which is faster than sorting columns


@dataclass(frozen=True)
class Pattern:
    """A share ``sparsity`` of the weights is zero; or, where ``m`` is given, all but ``n`` of every ``m`` columns of a
    row (of a row's last group, if it is shorter, all but n)."""

    sparsity: float = 0.0
    n: int = 0
    m: int = 0

    def cut(self, count: int) -> int:
        """How many of so many weights are cut: floor(sparsity count)."""
        return int(self.sparsity * count * (1 + 4e-16) + 1e-9)  # 0.29 of 100 is 29, and of a hundred million too


def largest(scores: Tensor, count: int) -> Tensor:
    """A mask of the ``count`` largest scores, of the shape of the scores; of equal ones the first are kept.

    NaN counts as infinite.
    """
    flat = scores.flatten().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    if count <= 0 or count >= len(flat):
        return torch.full(scores.shape, count > 0)
    least = flat.kthvalue(len(flat) - count + 1).values  # six times as fast as sorting
    mask = flat > least
    mask[(flat == least).nonzero()[: count - int(mask.sum())]] = True
    return mask.view(scores.shape)


def in_rows(scores: Tensor, count: Tensor | int) -> Tensor:
    """A mask of the largest scores of every row of (o, d), so many of each, or of row r ``count[r]``."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    place = torch.arange(scores.shape[1]).expand_as(order)
    wanted = count[:, None] if isinstance(count, Tensor) else count
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, place < wanted)


def kept_in_rows(shape: torch.Size, pattern: Pattern) -> Tensor:
    """How many weights each row of a matrix keeps (o,): numbers that differ by one, and the layer's in all."""
    rows, columns = shape
    cut = torch.tensor([pattern.cut(columns * r) for r in range(rows + 1)])
    return columns - cut.diff()


def in_groups(scores: Tensor, n: int, m: int) -> Tensor:
    """A mask of the ``n`` largest scores of every ``m`` consecutive columns of a row of (o, d)."""
    padded = torch.nn.functional.pad(scores, (0, -scores.shape[1] % m), value=-torch.inf)
    return in_rows(padded.view(-1, m), n).view(padded.shape)[:, : scores.shape[1]]


def group_mask(scores: Tensor, n: int) -> Tensor:
    """A mask of the ``n`` largest scores of every column of (m, o), of equal ones the first."""
    m = len(scores)
    if m > FEW:
        return in_rows(scores.T, n).T
    scores = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    before = torch.zeros(scores.shape, dtype=torch.uint8)
    for i in range(m):
        for j in range(i):
            above = scores[j] >= scores[i]
            before[i] += above
            before[j] += ~above
    return before < n


def matrix_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """A mask of one matrix (o, d) by these scores: of every group of columns, or of the matrix as a whole."""
    if pattern.m:
        return in_groups(scores, pattern.n, pattern.m)
    return largest(scores, scores.numel() - pattern.cut(scores.numel()))


def kept_of_all(scores: Mapping[str, Tensor], pattern: Pattern) -> dict[str, int]:
    """How many weights of each layer are among the largest scores of all layers together."""
    every = torch.cat([each.flatten() for each in scores.values()])
    mask = largest(every, len(every) - pattern.cut(len(every)))
    parts = mask.split([each.numel() for each in scores.values()])
    return {name: int(part.sum()) for name, part in zip(scores, parts, strict=True)}


def with_floor(kept: Mapping[str, int], sizes: Mapping[str, int], floor: int) -> dict[str, int]:
    """The same number of kept weights in all, but of each layer at least ``floor``, or all that it has.

    What layers below it are given is taken from the others in proportion to what they keep, until none is below.
    """
    least = {name: min(floor, size) for name, size in sizes.items()}
    total, fixed = sum(kept.values()), dict[str, int]()
    if sum(least.values()) >= total:
        return _shared(least, total)
    while True:
        free = {name: count for name, count in kept.items() if name not in fixed}
        share = _shared(free, total - sum(fixed.values()))
        below = [name for name, count in share.items() if count < least[name]]
        if not below:
            return {name: (fixed | share)[name] for name in kept}
        fixed |= {name: least[name] for name in below}


def _shared(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """A total shared in proportion, in whole numbers: what rounding down leaves goes to the largest remainders."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole if whole else 0.0 for name, weight in weights.items()}
    found = {name: int(value) for name, value in exact.items()}
    order = sorted(weights, key=lambda name: found[name] - exact[name])
    for name in order[: total - sum(found.values())]:
        found[name] += 1
    return found

"""How long cells take, and which to measure: shares for several machines, blocks for a budget of time. No torch."""

from __future__ import annotations

import heapq
import math
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lossboard.errors import UsageError
from lossboard.protocol import Cell, Suite, Task, suite_module
from lossboard.records import MEASURED, Key, Record

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# -- how long --------------------------------------------------------------------------------------


def seconds(suite: Suite, cells: Sequence[Cell], known: Iterable[Record]) -> dict[Key, float]:
    """Processor seconds that each cell may take.

    The mean of past records of the same method and task; else of the method where data, model and training are the
    same; else of other methods there. Where there is none, what the suite says of its units, times what the others
    take of that.
    """
    mean = _means(known, {**suite.tasks, **{cell.task.id: cell.task for cell in cells}})
    said = {c.key: unit.cost / len(unit.cells) for unit in suite_module(suite.name).group(cells) for c in unit.cells}
    seen = {c.key: next((mean[like] for like in _likes(c.method, c.task) if like in mean), math.nan) for c in cells}
    ratios = [value / said[key] for key, value in seen.items() if not math.isnan(value) and said[key]]
    scale = statistics.median(ratios) if ratios else 1.0
    return {key: value if not math.isnan(value) else said[key] * scale for key, value in seen.items()}


def _likes(method: str, task: Task) -> Iterator[tuple[str, ...]]:
    """What records are of that say how long a method takes on a task, nearest first."""
    parts = (repr(task.parts.get(part)) for part in ("split", "model", "recipe", "training"))
    place = (task.dataset, *parts) if task.dataset else (task.id,)  # what a suite makes has a size of its own
    yield (method, task.id)
    yield (method, *place)
    yield (task.id,)
    yield place


def _means(known: Iterable[Record], tasks: Mapping[str, Task]) -> dict[tuple[str, ...], float]:
    """Mean processor seconds of all records that are of a like."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for record in known:
        if record.status in MEASURED and record.id in tasks:
            for like in set(_likes(record.method, tasks[record.id])):
                found[like].append(record.seconds)
    return {like: sum(values) / len(values) for like, values in found.items()}


def wall_s(costs: Iterable[float], workers: int) -> float:
    """Seconds until the last worker is done, when each takes the largest that is left.

    >>> wall_s([4, 3, 3], 2)
    6.0
    """
    loads = [0.0] * workers
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(loads, loads[0] + cost)
    return max(loads)


def duration_s(text: str) -> float:
    """Seconds of a time such as 90s, 10m, 2h or 1h30m.

    >>> duration_s("1h30m")
    5400.0

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"(\d{1,9}[smhd])+", text, re.ASCII):
        raise UsageError(f"'{text}' is no time; 90s, 10m, 2h, 1h30m are")
    return float(sum(int(count) * UNITS_S[unit] for count, unit in re.findall(r"(\d+)([smhd])", text)))


# -- shares ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """One of several machines, 1 to ``count``."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Share:
        """From "2/8".

        Raises:
            UsageError: there is no such share.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"'{text}': the first of four shares is 1/4, the last 4/4")
        return cls(int(match[1]), int(match[2]))


def shared(suite: Suite, cells: Sequence[Cell], share: Share) -> list[Cell]:
    """The cells of one share: each cell is in exactly one, whatever was measured before.

    Units are not cut, and all of a method on a task stays together, because a block is published whole. What belongs
    together is dealt largest first, each to the share that has least.
    """
    parts = _together(suite, cells)
    loads = [(0.0, index) for index in range(1, share.count + 1)]
    own: set[Key] = set()
    for cost, keys in sorted(parts, key=lambda part: (-part[0], part[1][0])):
        load, index = loads[0]
        heapq.heapreplace(loads, (load + cost, index))
        if index == share.index:
            own.update(keys)
    return [cell for cell in cells if cell.key in own]


def _together(suite: Suite, cells: Sequence[Cell]) -> list[tuple[float, list[Key]]]:
    """Cost and cells of the smallest sets that hold whole units, and all of each method on each task."""
    above: dict[tuple[str, str], tuple[str, str]] = {}  # (method, task) -> another one of its set; the first: itself

    def first(block: tuple[str, str]) -> tuple[str, str]:
        while above.setdefault(block, block) != block:
            above[block] = block = above[above[block]]
        return block

    units = list(suite_module(suite.name).group(cells))
    for unit in units:
        blocks = sorted({(cell.method, cell.task.id) for cell in unit.cells})
        for block in blocks[1:]:
            low, high = sorted((first(blocks[0]), first(block)))
            above[high] = low
    costs: dict[tuple[str, str], float] = defaultdict(float)
    keys: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for unit in units:
        home = first((unit.cells[0].method, unit.cells[0].task.id))
        costs[home] += unit.cost
        keys[home] += (cell.key for cell in unit.cells)
    return [(costs[home], sorted(keys[home])) for home in costs]


# -- a budget of time ------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedBlock:
    """All cells of one seed on one task, over methods and trials, and what they may take in processor seconds."""

    cells: tuple[Cell, ...]
    seconds: float


def seed_blocks(cells: Sequence[Cell], cost: Mapping[Key, float]) -> list[SeedBlock]:
    """The cells by task and seed, cheapest first, in the suite's order where they cost the same."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.task.id, cell.seed), []).append(cell)
    blocks = [SeedBlock(tuple(own), sum(cost[cell.key] for cell in own)) for own in found.values()]
    return sorted(blocks, key=lambda block: float(f"{block.seconds:.6g}"))


def spend(
    budget_s: float,
    blocks: Sequence[SeedBlock],
    measure: Callable[[list[Cell]], object],
    workers: int,
    clock: Callable[[], float] = time.monotonic,
) -> list[SeedBlock]:
    """Measure whole blocks in order while there is time; returns those that were not begun.

    Several are handed over at once: first for an eighth of the time, then, by what these took, for half of what is
    left. Costs alone decide, never a result: no interval is biased by when this stops.
    """
    end = clock() + budget_s
    left, slower, part = list(blocks), 1.0, 1 / 8
    while left:
        time_left = end - clock()
        count, planned = 0, 0.0
        for block in left:
            planned += block.seconds
            if slower * planned / workers > time_left * (part if count else 1):
                break
            count += 1
        if not count:
            break
        chosen, left = left[:count], left[count:]
        start = clock()
        measure([cell for block in chosen for cell in block.cells])
        part, slower = 1 / 2, (clock() - start) * workers / max(sum(block.seconds for block in chosen), 1e-9)
    return left

"""``lossboard reproduce``: published cells measured again from what their records say, and how the two compare.

A cell is *bitwise* the same where the trained parameters have the same hash and all metrics, but those that need not
repeat, the same six digits; *within tolerance* where the metric that ranks differs by no more than the suite's
tolerance; else it *differs*. What is not as it was when the record was made (processor, versions, the method's source)
is named: it may be why.
"""

from __future__ import annotations

import functools
import math
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from lossboard import artifacts, paths, records
from lossboard.environment import Provenance
from lossboard.errors import UsageError
from lossboard.pools import Pool, WorkerDied
from lossboard.protocol import Cell, Suite, Unit
from lossboard.records import MEASURED, Record, plain
from lossboard.reproduced import BITWISE, DIFFERS, WITHIN, Reproduction
from lossboard.run import measured
from lossboard.sources import source
from lossboard.statistics import FEWEST, t_interval

CERTAIN = 0.999  # a method whose numbers are true is told otherwise once in a thousand times


def reproduce(
    suite: Suite, found: Sequence[Record], provenance: Provenance, pool: Pool, jobs: int
) -> Iterator[Reproduction]:
    """Measure the cells of these records again, each alone in its unit. What is trained for them is trained again.

    Raises:
        UsageError: a record is of a task that the suite no longer pins, or a worker died.
    """
    own = cells(suite, found)
    theirs = dict(zip((cell.key for cell in own), found, strict=True))
    paths.local().mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="again-", dir=paths.local(), ignore_cleanup_errors=True) as place:
            for again in pool(functools.partial(_again, suite.name, Path(place)), own, jobs):
                yield compared(suite, theirs[again.key], again, provenance.env)
    except WorkerDied as death:
        raise UsageError(f"a worker process died ({death}); reproduce fewer cells at a time, with --sample") from death


def cells(suite: Suite, found: Iterable[Record]) -> list[Cell]:
    """What these records are of.

    Raises:
        UsageError: a task that the suite no longer pins.
    """
    return [_cell(suite, record) for record in found]


def _cell(suite: Suite, record: Record) -> Cell:
    task = suite.tasks.get(record.id)
    if task is None:
        raise UsageError(
            f"{record.task} of this record has the id {record.id}, which suite '{suite.name}' no longer pins; "
            f"git checkout {record.header.commit if record.header else ''} and reproduce it there"
        )
    return Cell(record.method, task, record.seed, record.trial, MappingProxyType(dict(record.params)))


def _again(suite: str, place: Path, cell: Cell) -> Record:
    with artifacts.apart(place):
        (found,) = measured(suite, Unit((cell,), 0.0))
    return found


def compared(suite: Suite, record: Record, again: Record, env: Mapping[str, str]) -> Reproduction:
    """The verdict on one cell, measured again in this environment."""
    reasons = tuple(_reasons(record, env))
    if record.status != again.status:
        said = f"{record.status} then, {again.status} now{': ' + again.error if again.error else ''}"
        return Reproduction(record, again, DIFFERS, math.nan, "", (said, *reasons))
    steady = record.metrics.keys() - set(suite.metrics.unsteady)
    off = {key: _difference(record.metrics[key], again.metrics.get(key, math.nan)) for key in steady}
    metric = max(off, key=lambda key: (off[key] if not math.isnan(off[key]) else math.inf, key), default="")
    largest = off.get(metric, math.nan)
    if record.bits == again.bits and not any(off.values()):
        return Reproduction(record, again, BITWISE, 0.0, "", reasons)
    near = off.get(suite.metrics.rank, 0.0) <= suite.metrics.tolerance
    return Reproduction(record, again, WITHIN if near else DIFFERS, largest, metric if largest else "", reasons)


def _difference(then: float, now: float) -> float:
    """Of two values as records show them; 0 where both are the same, not a number included."""
    if plain(then) == plain(now):
        return 0.0
    return abs(then - now)


def _reasons(record: Record, env: Mapping[str, str]) -> Iterator[str]:
    header = record.header
    assert header
    if source(header.module) != header.source:
        yield f"the source of {record.method} has changed since {(header.commit or 'an unknown commit')[:12]}"
    if header.dirty:
        yield "the record was made with uncommitted changes"
    for key in sorted(header.env.keys() | env.keys()):
        then, now = header.env.get(key, "unknown"), env.get(key, "unknown")
        if then != now:
            yield f"{key}: {then} then, {now} now"


def off(suite: Suite, found: Sequence[Reproduction]) -> str:
    """What is wrong with records, as measuring their cells again says; '' where nothing is.

    A cell that is not the same to the bit although all is as it was; or, where the processor or a version is
    another and single runs of a training may end elsewhere, a mean difference beyond the suite's tolerance, or of one
    method one that is beyond a tenth of it and not by chance.
    """
    differ = [each for each in found if each.verdict == DIFFERS]
    plainly = [each for each in differ if not each.reasons or each.record.status != each.again.status]
    if plainly:
        return f"{len(plainly)} of {len(found)} cells differ"
    rank, gaps = suite.metrics.rank, defaultdict(list)
    other = [each for each in found if each.verdict != BITWISE and not each.reasons and _repeats(suite, each.record)]
    if other:
        return f"{len(other)} of {len(found)} cells have other bits although nothing else has changed"
    for each in found:
        if each.record.status == "ok":
            gaps[each.record.method].append(each.again.metrics[rank] - each.record.metrics[rank])
    every = [gap for own in gaps.values() for gap in own]
    mean = sum(every) / max(len(every), 1)
    if differ and not abs(mean) <= suite.metrics.tolerance:
        return f"{len(differ)} of {len(found)} cells differ, {rank} by {mean:.3g} in the mean of all"
    for method, own in gaps.items() if not suite.alone else ():
        mean, half = t_interval(own, CERTAIN)
        if len(own) >= FEWEST and abs(mean) > max(half, suite.metrics.tolerance / 10):
            return f"{rank} of {method} is off by {mean:.3g} in the mean of {len(own)} cells, which is not by chance"
    return ""


def _repeats(suite: Suite, record: Record) -> bool:
    """Whether the same code on the same machine gives the same bits: neither times nor what a GPU adds up do."""
    return not suite.alone and record.header is not None and record.header.env.get("gpu", "none") == "none"


# -- which -------------------------------------------------------------------------------------------------------------


def drawn(found: Sequence[Record], count: int, entropy: int | None) -> list[Record]:
    """So many of these, each method as likely as another; all where there are fewer."""
    chance = random.Random(entropy)
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(record.method, []).append(record)
    for group in groups.values():
        chance.shuffle(group)
    chosen: list[Record] = []
    while groups and len(chosen) < count:
        method = chance.choice(sorted(groups))
        chosen.append(groups[method].pop())
        if not groups[method]:
            del groups[method]
    return chosen


def reproducible(
    suite: Suite, found: Iterable[Record], methods: Iterable[str], current: Callable[[Record], bool]
) -> list[Record]:
    """The record that counts of each cell, of methods that are here and tasks that are pinned."""
    known = set(methods)
    own = [record for record in found if record.method in known and record.id in suite.tasks]
    best = records.resolve(own, current).values()
    return [record for record in best if record.status in MEASURED]

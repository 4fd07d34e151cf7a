"""What the page of performance over commits shows: a table and charts of each machine's history."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lossboard import drawing
from lossboard.charts import Figure
from lossboard.drawing import INK, PALETTE, SHAPES
from lossboard.history import History, Point, Series
from lossboard.tables import Table, number

MOST_COMMITS = 40  # of a chart, the latest
COLUMNS = 6  # commits of the table, the latest
INLINE = 150_000  # characters of the charts that a page holds
FACTOR = 1.1  # what differs by less is the same, as in asv's comparison
LOG = 3.0  # times the least value: charts that span more have a logarithmic scale
LOOKS = (*zip(PALETTE, SHAPES, strict=True), (INK, "circle"))  # of the lines of a chart
SCALES = {  # the unit of values, the largest that is not above them
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
}

CAPTIONS = {
    "seconds": "Medians of processor time with their 99 % intervals.",
    "bytes": "Memory at the peak beyond what was live before.",
}


@dataclass(frozen=True)
class Change:
    """The latest value over the one before: better and worse where it is by a tenth and the intervals are apart."""

    ratio: float
    kind: str  # "better", "worse" or "open"

    @property
    def percent(self) -> str:
        """
        >>> Change(0.5, "better").percent, Change(1.004, "open").percent
        ('−50 %', '0 %')
        """
        whole = round(100 * (self.ratio - 1))
        return f"{'+' if whole > 0 else '−' if whole < 0 else ''}{abs(whole)} %"


@dataclass(frozen=True)
class Line:
    """A series as a row of the table."""

    series: Series
    cells: tuple[Point | None, ...]  # at the commits of the table
    change: Change | None  # at the newest

    @property
    def interval(self) -> str:
        """The interval of the value at the newest commit; '' where it has none."""
        last = self.cells[0]
        if last is None or last.low == last.high:
            return ""
        size, unit = scale(last.value, self.series.unit)
        return f"{digits(last.low / size)} to {digits(last.high / size)} {unit}"


@dataclass(frozen=True)
class Section:
    """A history on the page."""

    history: History
    commits: tuple[tuple[str, str], ...]  # of the table, the newest first: commit and day
    groups: tuple[tuple[str, tuple[Line, ...]], ...]  # benchmark -> rows
    figures: tuple[Figure, ...]

    @property
    def facts(self) -> list[str]:
        """What is known of the machine, in words."""
        known = self.history.facts
        cores = f"{known['num_cpu']} cores" if "num_cpu" in known else None
        return [
            word for word in (known.get("cpu"), cores, known.get("ram"), known.get("os"), known.get("arch")) if word
        ]


def section(history: History, number: int) -> Section:
    """The table and the charts of a history; ``number`` tells its charts' files from those of others."""
    days = {point.commit: point.day for each in history.series for point in each.points}
    latest = history.commits[: -COLUMNS - 1 : -1]
    groups = [
        (benchmark, tuple(_line(each, latest) for each in same))
        for benchmark, same in itertools.groupby(history.series, key=lambda each: each.benchmark)
    ]
    return Section(
        history, tuple((commit, days[commit]) for commit in latest), tuple(groups), _figures(history, number)
    )


def _line(series: Series, commits: Sequence[str]) -> Line:
    at = {point.commit: point for point in series.points}
    return Line(series, tuple(map(at.get, commits)), change(series.points) if commits[0] in at else None)


def change(points: Sequence[Point]) -> Change | None:
    """The last value over the one before; None where there are fewer than two, or that one is zero."""
    if len(points) < 2 or not points[-2].value:
        return None
    before, after = points[-2:]
    ratio = after.value / before.value
    if ratio > FACTOR and after.low > before.high:
        return Change(ratio, "worse")
    return Change(ratio, "better" if ratio < 1 / FACTOR and after.high < before.low else "open")


def scale(value: float, unit: str) -> tuple[float, str]:
    """The size and the name of the unit in which a value is read best.

    >>> scale(0.002, "seconds"), scale(3e5, "bytes")
    ((0.001, 'ms'), (1000.0, 'kB'))
    """
    return next((each for each in SCALES[unit] if each[0] <= value), SCALES[unit][-1])


def amount(point: Point | None, unit: str) -> str:
    """A value with its unit; a dash for none."""
    if point is None:
        return "–"
    size, name = scale(point.value, unit)
    return f"{digits(point.value / size)} {name}"


def digits(value: float) -> str:
    """Three significant digits, or all before the point.

    >>> digits(8.7), digits(120.4), digits(1203.5)
    ('8.70', '120', '1204')
    """
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".removesuffix(".")


def inlined(sections: Sequence[Section]) -> set[str]:
    """The names of the charts that stand in the page itself, the first ones; what is too much for a page are files."""
    names: set[str] = set()
    room = INLINE
    for figure in (figure for section in sections for figure in section.figures):
        room -= len(figure.svg)
        if room < 0:
            break
        names.add(figure.name)
    return names


# -- charts ------------------------------------------------------------------------------------------------------------


def _figures(history: History, number: int) -> tuple[Figure, ...]:
    """A chart for each benchmark and all of its parameters but the first; of at most as many lines as have colours."""
    commits = history.commits[-MOST_COMMITS:]
    parts = [each for key, same in _alike(history.series) for each in _parts(", ".join([key[0], *key[1]]), same)]
    drawn = (_figure(f"history-{number}-{i}", *part, commits) for i, part in enumerate(parts))
    return tuple(each for each in drawn if each)


def _alike(found: Sequence[Series]) -> Iterator[tuple[tuple[str, tuple[str, ...]], list[Series]]]:
    alike: dict[tuple[str, tuple[str, ...]], list[Series]] = defaultdict(list)
    for series in found:
        alike[series.benchmark, series.setting[1:]].append(series)
    yield from alike.items()


def _parts(title: str, same: Sequence[Series]) -> Iterator[tuple[str, Sequence[Series]]]:
    """As few parts as can be, of nearly the same length, each with a title."""
    count = -(-len(same) // len(LOOKS))
    size = -(-len(same) // count)
    for part in (same[i : i + size] for i in range(0, len(same), size)):
        yield title if count == 1 else f"{title}: {', '.join(map(_short, part))}", part


def _figure(name: str, title: str, same: Sequence[Series], commits: Sequence[str]) -> Figure | None:
    """One chart; None where nothing was measured at these commits."""
    place = {commit: i for i, commit in enumerate(commits)}
    known = [(series, [point for point in series.points if point.commit in place]) for series in same]
    known = [(series, points) for series, points in known if points]
    if not known:
        return None
    values = [end for _, points in known for point in points for end in (point.low, point.high)]
    size, unit = scale(max(values), same[0].unit)
    lines: list[dict[str, Any]] = [
        {"name": _short(series), "colour": colour, "shape": shape}
        | {"points": [_plotted(point, place[point.commit], size) for point in points]}
        for (series, points), (colour, shape) in zip(known, LOOKS, strict=False)
    ]
    log = 0 < LOG * min(values) < max(values)
    data = {"commits": [commit[:7] for commit in commits], "lines": lines, "up": unit, "log": log}
    first, last = (", ".join(f"{line['name']} {line['points'][i]['value']:.3g}" for line in lines) for i in (0, -1))
    label = f"{title} over {len(commits)} commits, in {unit}: at first {first}; at last {last}"
    caption = CAPTIONS[same[0].unit] + (" The scale is logarithmic." if log else "")
    return Figure(name, drawing.drawn(drawing.draw_history, data), title, label, caption, "history")


def _short(series: Series) -> str:
    """What a line of a chart is called: its first parameter, for the others are the chart's."""
    return series.setting[0] if series.setting else series.benchmark.rsplit(".", 1)[-1]


def _plotted(point: Point, at: int, size: float) -> dict[str, Any]:
    return {"at": at} | {key: float(f"{getattr(point, key) / size:.5g}") for key in ("value", "low", "high")}


# -- the numbers -------------------------------------------------------------------------------------------------------


def table(histories: Sequence[History]) -> Table:
    """Every value of every history."""
    rows = [
        {"machine": history.machine, "environment": history.environment, "benchmark": series.benchmark}
        | {"setting": " ".join(series.setting), "commit": point.commit, "day": point.day, "unit": series.unit}
        | {key: number(getattr(point, key)) for key in ("value", "low", "high")}
        for history in histories
        for series in history.series
        for point in series.points
    ]
    return Table("history", "Performance over commits", rows)

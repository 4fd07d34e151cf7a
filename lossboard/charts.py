"""Charts of boards as SVG text: drawn by Altair, kept by the hash of what they show, themed by the page's style sheet.

Colours are fixed in the SVG and readable in its own right; ``style.css`` finds them by value and replaces them in dark
mode. A chart that was drawn before is read from ``.lossboard/charts``, so that a page whose records did not change is
built without importing Altair.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from lossboard import paths
from lossboard.board import Board, Row
from lossboard.protocol import Task, Track
from lossboard.records import StoreError, write_atomically

PALETTE = ("#0072b2", "#b34e00", "#00785a", "#8f4a9e")  # legible as text on white; each with a shape of its own
SHAPES = ("square", "triangle-up", "diamond", "triangle-down")
INK, OTHER, RULE, FAINT = "#1b1f24", "#69737e", "#dfe3e6", "#c9ced3"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
KEPT = 200  # drawn charts on disk

Data = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A chart with the caption beneath it."""

    svg: Markup
    title: str
    caption: str


# -- what a track shows ------------------------------------------------------------------------------------------------


def figures(track: Track, tuned: Board, default: Board, control: str) -> list[Figure]:
    """The charts of a track: mean scores with intervals, then a panel for each kind of noise. None below two ranks."""
    ranked = [row for row in tuned.rows if row.rank]
    if len(ranked) < 2:
        return []
    colours = highlights(ranked, control)
    return [_means(ranked, default, colours), *_levels(track, ranked, colours, control)]


def highlights(ranked: Sequence[Row], control: str) -> dict[str, str]:
    """The methods that have a colour: the four best, and the control in ink."""
    best = [row.method for row in ranked if row.method != control][: len(PALETTE)]
    ink = {control: INK} if any(row.method == control for row in ranked) else {}
    return dict(zip(best, PALETTE, strict=False)) | ink


def _look(method: str, colours: Mapping[str, str]) -> dict[str, str]:
    colour = colours.get(method, OTHER)
    return {"colour": colour, "shape": SHAPES[PALETTE.index(colour)] if colour in PALETTE else "circle"}


def rank(row: Row) -> str:
    """'1–4', '7', or a dash where a method is not ranked."""
    return "–" if row.rank is None else "–".join(map(str, dict.fromkeys(row.rank)))


def _means(ranked: Sequence[Row], default: Board, colours: Mapping[str, str]) -> Figure:
    other = {row.method: row.score for row in default.rows if row.rank}
    data: Data = []
    for i, row in enumerate(ranked):
        half = row.half if math.isfinite(row.half) else 0.0
        data.append(
            {
                "method": row.method,
                "rank": rank(row),
                "mean": _percent(row.score),
                "low": _percent(row.score - half),
                "high": _percent(row.score + half),
                "default": _percent(other[row.method]) if row.method in other else None,
                **_look(row.method, colours),
                "opens": i > 0 and row.group != ranked[i - 1].group,
            }
        )
    first = ranked[0]
    title = f"Mean score of {len(ranked)} methods, best first: {first.method} at {100 * first.score:.1f} %"
    caption = "Filled: tuned, with the 95 % interval over seeds. Hollow: the author's defaults. At the right, the rank."
    return Figure(_svg(draw_means, data, title), "Mean score", caption)


def _levels(track: Track, ranked: Sequence[Row], colours: Mapping[str, str], control: str) -> list[Figure]:
    found = []
    for name, (levels, datasets) in noises(track.tasks).items():
        data: Data = []
        for row, (rate, names) in itertools.product(ranked, levels.items()):
            score = _percent(sum(row.tasks[task].mean for task in names) / len(names))
            data.append({"method": row.method, "rate": rate, "score": score, **_look(row.method, colours)})
        title = f"Score of {len(ranked)} methods at {', '.join(f'{100 * rate:g} %' for rate in levels)} {name} noise"
        caption = _legend(len(ranked), colours, control, datasets)
        found.append(Figure(_svg(draw_levels, data, title), f"Score against {name} noise", caption))
    return found


def _legend(methods: int, colours: Mapping[str, str], control: str, datasets: Sequence[str]) -> str:
    best = len(colours) - (control in colours)
    parts = [f"In colour the {best} best" if best > 1 else "In colour the best"]
    parts += [f"dashed {control}"] if control in colours else []
    parts += ["in grey the other methods"] if methods > len(colours) else []
    return ", ".join(parts) + "." + (f" Mean over {', '.join(datasets)}." if len(datasets) > 1 else "")


def noises(tasks: Iterable[Task]) -> dict[str, tuple[dict[float, list[str]], list[str]]]:
    """Kind of noise -> (rate -> names of tasks, datasets), for kinds with three rates or more.

    Clean labels are rate 0 of every kind. Datasets without one of the rates are left out: every point of a line is the
    mean over the same ones.
    """
    rates: dict[str, dict[str, dict[float, str]]] = defaultdict(lambda: defaultdict(dict))
    clean: dict[str, str] = {}
    for task in tasks:
        if task.corruption.rate == 0:
            clean[task.dataset] = task.name
        else:
            kind = task.name.split("/", 1)[1].removesuffix(f"-{task.corruption.rate:g}")
            rates[kind][task.dataset][task.corruption.rate] = task.name
    found = {}
    for kind, known in rates.items():
        for dataset in known.keys() & clean.keys():
            known[dataset][0.0] = clean[dataset]
        wanted = sorted(set().union(*known.values()))
        datasets = [dataset for dataset in known if len(known[dataset]) == len(wanted)]
        if len(wanted) > 2 and datasets:
            found[kind] = ({rate: [known[dataset][rate] for dataset in datasets] for rate in wanted}, datasets)
    return found


def _percent(value: float) -> float:
    return round(100 * value, 2)


# -- drawing -----------------------------------------------------------------------------------------------------------


def draw_means(data: Data) -> Any:
    """A row a method: its default as a ring, its tuned mean as a dot on its interval, its rank at the right."""
    import altair as alt

    base, width = alt.Chart(alt.InlineData(values=data)), 290
    order = [row["method"] for row in data]
    names = alt.Axis(labelPadding=10, labelLimit=130, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    fit, ticks = alt.Scale(zero=False, padding=8), alt.Axis(grid=True, tickCount=6)
    x = alt.X("mean:Q", title="mean score (%)", scale=fit, axis=ticks)
    colour = alt.Color("colour:N", scale=None)
    shape = alt.Shape("shape:N", scale=None)
    opens = base.transform_filter("datum.opens").mark_rule(color=FAINT, strokeDash=[2, 2])
    ring = base.transform_filter("isValid(datum.default)").mark_point(size=26, strokeWidth=1.2, opacity=1, color=OTHER)
    interval = base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour)
    dot = base.mark_point(filled=True, size=44, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    ranks = base.mark_text(align="left", color=OTHER, fontSize=11).encode(x=alt.value(width + 12), y=y, text="rank:N")
    top = alt.Y("method:N", sort=order, bandPosition=0)
    layers = (opens.encode(y=top), ring.encode(x="default:Q", y=y), interval, dot, ranks)
    return alt.layer(*layers).properties(width=width, height=alt.Step(18))


def draw_levels(data: Data) -> Any:
    """A line a method over the noise rate; those with a colour are named at their end, the others are a backdrop."""
    import altair as alt

    low = 10 * math.floor(min(row["score"] for row in data) / 10)
    high = max(low + 10, 10 * math.ceil(max(row["score"] for row in data) / 10))
    rates = sorted({row["rate"] for row in data})
    height = 215
    named = [row for row in data if row["colour"] != OTHER]
    ends = sorted((row for row in named if row["rate"] == rates[-1]), key=lambda row: -row["score"])
    places = spread([row["score"] for row in ends], 13 * (high - low) / height)
    labels = [{**row, "at": place} for row, place in zip(ends, places, strict=True)]
    whole, ticks = alt.Scale(domain=[low, high], nice=False), alt.Axis(grid=True, tickCount=6)
    x = alt.X("rate:Q", title="noise rate", axis=alt.Axis(values=rates, format=".0%"))
    y = alt.Y("score:Q", title="mean score (%)", scale=whole, axis=ticks)
    colour, line = alt.Color("colour:N", scale=None), alt.Detail("method:N")
    back = alt.Chart(alt.InlineData(values=[row for row in data if row["colour"] == OTHER]))
    front = alt.Chart(alt.InlineData(values=named))
    dash = alt.condition(f"datum.colour == '{INK}'", alt.value([5, 3]), alt.value([1, 0]))
    shape = alt.Shape("shape:N", scale=None)
    text: dict[str, Any] = {"align": "left", "dx": 9, "fontSize": 11.5, "fontWeight": 600, "limit": 110}
    layers = (
        back.mark_line(strokeWidth=1, color=FAINT).encode(x=x, y=y, detail=line),
        front.mark_line(strokeWidth=2).encode(x=x, y=y, detail=line, color=colour, strokeDash=dash),
        front.mark_point(filled=True, size=40, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        alt.Chart(alt.InlineData(values=labels)).mark_text(**text).encode(x=x, y="at:Q", text="method:N", color=colour),
    )
    return alt.layer(*layers).properties(width=300, height=height)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """The nearest positions (least squares) at least ``gap`` apart, for positions in falling order.

    >>> spread([10.0, 9.0, 2.0], 3)
    [11.0, 8.0, 2.0]
    """
    pools: list[list[float]] = []  # of positions with the gaps taken out: falling, so neighbours that rise are merged
    for i, place in enumerate(wanted):
        pools.append([place + i * gap])
        while len(pools) > 1 and _mean(pools[-2]) < _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    flat = [_mean(pool) for pool in pools for _ in pool]
    return [place - i * gap for i, place in enumerate(flat)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# -- SVG ---------------------------------------------------------------------------------------------------------------


def _svg(draw: Callable[[Data], Any], data: Data, title: str) -> Markup:
    """The drawing as SVG with its title as text alternative; from the cache where the same was drawn before."""
    shown = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")  # the renderer takes no lone surrogates
    key = hashlib.sha256(f"{_drawer()} {draw.__name__} ".encode() + shown).hexdigest()[:24]
    path = paths.local() / "charts" / f"{key}.svg"
    try:
        text = path.read_text("utf-8")
    except OSError:
        text = render(draw(json.loads(shown)))
        _keep(path, text)
    name = escape(title)
    return Markup(
        text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1).replace(">", f"><title>{name}</title>", 1)
    )


@cache
def _drawer() -> str:
    """What decides how data is drawn: this file and the libraries."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return f"{own} {version('altair')} {version('vl-convert-python')}"


def _keep(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
        drawn = sorted(path.parent.glob("*.svg"), key=lambda file: file.stat().st_mtime)
        for file in drawn[:-KEPT]:
            file.unlink(missing_ok=True)
    except (StoreError, OSError):  # the cache saves time only; the page itself says where a disk is full
        return


def render(chart: Any) -> str:
    """A chart as compact SVG: transparent, no ids, coordinates to a hundredth of a pixel."""
    import vl_convert

    axis = {"labelColor": INK, "titleColor": OTHER, "titleFontWeight": 400, "titlePadding": 8, "labelFontSize": 11.5}
    axis |= {
        "gridColor": RULE,
        "grid": False,
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "titleFontSize": 11.5,
    }
    styled = chart.configure(
        aria=False, font=FONT, background="transparent", padding={"left": 2, "top": 6, "right": 16, "bottom": 2}
    )
    styled = styled.configure_axis(**axis).configure_view(stroke=None)
    return re.sub(r"<[^>]+>", _compact, vl_convert.vegalite_to_svg(styled.to_json()))


def _compact(tag: re.Match[str]) -> str:
    """A tag without what serves interaction only; text between tags is left alone."""
    text = re.sub(r' (?:aria-[a-z]+|role|class|pointer-events|xmlns:xlink|version)="[^"]*"', "", tag[0])
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)


# -- the small plot in a method's table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A shared scale for plots whose width is not known: positions are percentages of it."""

    low: float
    high: float
    step: float

    @property
    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [round(self.low + i * self.step, 6) for i in range(count + 1)]

    def at(self, value: float) -> str:
        """Where a value lies, with a margin of 4 % at both ends.

        >>> Axis(-10, 10, 5).at(0)
        '50.00%'
        """
        return f"{4 + 92 * (value - self.low) / (self.high - self.low):.2f}%"


def axis(intervals: Iterable[tuple[float, float]]) -> Axis:
    """The scale that holds 0 and these intervals (low, high), ending on round ticks, with three to six of them."""
    ends = [0.0, *(end for interval in intervals for end in interval if math.isfinite(end))]
    low, high = min(ends), max(ends)
    size = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(size))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= size)
    return Axis(step * math.floor(low / step), step * max(math.ceil(high / step), math.floor(low / step) + 1), step)

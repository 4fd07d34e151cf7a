"""Drawing: data -> SVG text by Altair, kept by the hash of what it shows. ``charts`` decides what is shown.

Colours are fixed in the SVG and readable in its own right. In dark mode ``style.css`` finds them by value in the SVG of
a page and replaces them; an SVG file of its own brings the same rules (:data:`DARK`). A drawing that was made before is
read from ``.lossboard/charts``, so that a page whose records did not change is built without importing Altair.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lossboard import paths
from lossboard.records import StoreError, write_atomically

PALETTE = ("#0072b2", "#b34e00", "#00785a", "#8f4a9e")  # legible as text on white; each with a shape of its own
SHAPES = ("square", "triangle-up", "diamond", "triangle-down")
INK, OTHER, RULE, FAINT = "#1b1f24", "#69737e", "#dfe3e6", "#c9ced3"
DARK = {  # what each colour becomes on a dark page, the same as in style.css
    INK: "#e7eaed",
    OTHER: "#8b95a0",
    RULE: "#30363c",
    FAINT: "#454c54",
    **dict(zip(PALETTE, ("#5db3e6", "#f39a5f", "#2fc79a", "#d3a0e0"), strict=True)),
}
GROUND = "#1b1f23"  # behind a drawing in the dark
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
KEPT = 2000  # drawings on disk
WIDE, HIGH, LOW = 330, 200, 150  # pixels: plots that have no names beside them
NAMED = 230  # pixels: the width of plots that do; all drawings are about 400 wide, which a phone can show

Data = Any  # what JSON can hold: the hash of a drawing is that of its data

# -- drawing -----------------------------------------------------------------------------------------------------------


def draw_means(data: Data) -> Any:
    """A row a method: its default as a ring, its tuned mean as a dot on its interval, its rank at the right."""
    import altair as alt

    rows = data["rows"]
    base, width = alt.Chart(alt.InlineData(values=rows)), NAMED
    order = [row["method"] for row in rows]
    names = alt.Axis(labelPadding=10, labelLimit=130, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    fit, ticks = alt.Scale(zero=False, padding=8), alt.Axis(grid=True, tickCount=6)
    x = alt.X("mean:Q", title=data["title"], scale=fit, axis=ticks)
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

    data, across = data["rows"], data["across"]
    low = 10 * math.floor(min(row["score"] for row in data) / 10)
    high = max(low + 10, 10 * math.ceil(max(row["score"] for row in data) / 10))
    rates = sorted({row["rate"] for row in data})
    height = HIGH
    named = [row for row in data if row["colour"] != OTHER]
    ends = sorted((row for row in named if row["rate"] == rates[-1]), key=lambda row: -row["score"])
    places = spread([row["score"] for row in ends], 13 * (high - low) / height, low)
    labels = [{**row, "at": place} for row, place in zip(ends, places, strict=True)]
    whole, ticks = alt.Scale(domain=[low, high], nice=False), alt.Axis(grid=True, tickCount=6)
    x = alt.X("rate:Q", title=across, axis=alt.Axis(values=rates, format=".0%"))
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
    return alt.layer(*layers).properties(width=NAMED + 20, height=height)


def draw_ranks(data: Data) -> Any:
    """A row a method: the bar of its rank interval, a dot at its place in the order of means."""
    import altair as alt

    rows, last = data["rows"], data["last"]
    base, width = alt.Chart(alt.InlineData(values=rows)), NAMED
    order = [row["method"] for row in rows]
    names = alt.Axis(labelPadding=10, labelLimit=130, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    ticks = [1, *range(10, last + 1, 10)] if last > 12 else list(range(1, last + 1))
    whole = alt.Scale(domain=[1, last], nice=False, padding=5)
    x = alt.X("place:Q", title=f"rank among {last}", scale=whole, axis=alt.Axis(grid=True, values=ticks))
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    bar = base.mark_rule(strokeWidth=2.5, strokeCap="round").encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour)
    dot = base.mark_point(filled=True, size=38, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    told = base.mark_text(align="left", color=OTHER, fontSize=11)
    return alt.layer(bar, dot, told.encode(x=alt.value(width + 12), y=y, text="rank:N")).properties(
        width=width, height=alt.Step(18)
    )


def draw_critical(data: Data) -> Any:
    """A row a method: a dot at its mean rank in the middle of a bar as long as the critical difference.

    Two methods whose bars overlap are not told apart; the line is where the bar of the first ends.
    """
    import altair as alt

    rows = data["rows"]
    base, width = alt.Chart(alt.InlineData(values=rows)), NAMED
    order = [row["method"] for row in rows]
    names = alt.Axis(labelPadding=10, labelLimit=130, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    whole, ticks = alt.Scale(domain=[1, len(rows)], nice=False, padding=5), alt.Axis(grid=True, tickCount=7)
    x = alt.X("rank:Q", title=f"mean rank among {len(rows)}", scale=whole, axis=ticks)
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    end = alt.Chart(alt.InlineData(values=[{"end": rows[0]["high"]}])).mark_rule(color=OTHER, strokeDash=[3, 3])
    bar = base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour)
    dot = base.mark_point(filled=True, size=38, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    told = base.mark_text(align="left", color=OTHER, fontSize=11).encode(
        x=alt.value(width + 12), y=y, text=alt.Text("rank:Q", format=".1f")
    )
    return alt.layer(end.encode(x="end:Q"), bar, dot, told).properties(width=width, height=alt.Step(18))


def draw_scatter(data: Data) -> Any:
    """A dot a method over two measures; those with a label are named beside it where there is room.

    Rows in colour that have ``left``, ``right``, ``low`` and ``high`` get intervals.
    """
    import altair as alt

    rows, log, log_up = data["rows"], data["log"], data.get("log_up", False)
    (left, right), (low, high) = (
        _ends([row[key] for row in rows for key in keys if key in row], use)
        for keys, use in ((("x", "left", "right"), log), (("y", "low", "high"), log_up))
    )

    def across(value: float) -> float:
        return WIDE * _share(value, left, right, log)

    named = [row for row in rows if row["named"]]
    spots, crowd = (
        [(across(row["x"]), HIGH * (1 - _share(row["y"], low, high, log_up))) for row in rows if row["named"] is wanted]
        for wanted in (True, False)
    )
    places = beside(spots, [row["method"] for row in named], WIDE, HIGH, crowd)
    x = alt.X(
        "x:Q",
        title=data["across"],
        scale=alt.Scale(domain=[left, right], nice=False, type="log" if log else "linear"),
        axis=alt.Axis(grid=True, tickCount=5, format=".3~g", labelOverlap=True),
    )
    y = alt.Y(
        "y:Q",
        title=data["up"],
        scale=alt.Scale(domain=[low, high], nice=False, type="log" if log_up else "linear"),
        axis=alt.Axis(grid=True, tickCount=5, format=".0e") if log_up else alt.Axis(grid=True, tickCount=6),
    )
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    back = alt.Chart(alt.InlineData(values=[row for row in rows if row["colour"] == OTHER]))
    front = alt.Chart(alt.InlineData(values=[row for row in rows if row["colour"] != OTHER]))
    spans = alt.Chart(alt.InlineData(values=[row for row in rows if row["colour"] != OTHER and "low" in row]))
    layers = [
        back.mark_point(size=22, strokeWidth=1.2, opacity=1, color=OTHER).encode(x=x, y=y),
        spans.mark_rule(strokeWidth=1.2).encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour),
        spans.mark_rule(strokeWidth=1.2).encode(y=y, x=alt.X("left:Q", title=None), x2="right:Q", color=colour),
        front.mark_point(filled=True, size=48, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ]
    for row, place in zip(named, places, strict=True):
        if place:
            dx, dy, align = place
            text: dict[str, Any] = {"align": align, "dx": dx, "dy": dy, "baseline": "middle", "limit": 120}
            text |= {"fontSize": 11, "fontWeight": 600 if row["colour"] != OTHER else 400, "color": row["colour"]}
            label = alt.Chart(alt.InlineData(values=[row])).mark_text(**text)
            layers.append(label.encode(x=x, y=y, text="method:N"))
    return alt.layer(*layers).properties(width=WIDE, height=HIGH)


def _share(value: float, low: float, high: float, log: bool) -> float:
    """How far a value lies between the ends of a scale, from 0 to 1."""
    low, high, value = (math.log(each) if log else each for each in (low, high, value))
    return (value - low) / (high - low)


def _ends(values: Sequence[float], log: bool) -> tuple[float, float]:
    """A domain with a margin of a twentieth around these values."""
    low, high = min(values), max(values)
    if log:
        margin = (high / low) ** 0.05 if high > low else 1.1
        return low / margin, high * margin
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


Place = tuple[float, float, str]  # of a label: dx and dy to its point in pixels, and the alignment


def beside(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    width: float,
    height: float,
    others: Sequence[tuple[float, float]] = (),
) -> list[Place | None]:
    """Where each name has room beside its point (pixels, y downwards), in the order given; None where it has none.

    Names cover no point that is named and no other name, and none of ``others`` where that can be.

    >>> beside([(10.0, 50.0), (50.0, 50.0)], ["a", "b"], 100, 100)
    [(9, 0, 'left'), (9, 0, 'left')]
    """
    taken, crowd = [_around(point) for point in points], [_around(point) for point in others]
    found: list[Place | None] = []
    for own, (point, name) in enumerate(zip(points, names, strict=True)):
        free = []
        for place in PLACES:
            box = _box(point, name, place)
            inside = box[0] >= 0 and box[1] >= -8 and box[2] <= width + 60 and box[3] <= height
            if inside and not any(_overlap(box, other) for i, other in enumerate(taken) if i != own):
                free.append((sum(_overlap(box, other) for other in crowd), place))
        best = min(free, key=lambda each: each[0], default=(0, None))[1]
        found.append(best)
        if best:
            taken.append(_box(point, name, best))
    return found


PLACES: tuple[Place, ...] = ((9, 0, "left"), (-9, 0, "right"), (0, -11, "center"), (0, 12, "center"))
Box = tuple[float, float, float, float]  # left, top, right, bottom


def _box(point: tuple[float, float], name: str, place: Place) -> Box:
    """What a name in this place covers."""
    size = 6.8 * min(len(name), 17)
    left = point[0] + place[0] - {"left": 0.0, "right": size, "center": size / 2}[place[2]]
    return left, point[1] + place[1] - 6, left + size, point[1] + place[1] + 6


def _around(point: tuple[float, float]) -> Box:
    return point[0] - 4, point[1] - 4, point[0] + 4, point[1] + 4


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def draw_groups(data: Data) -> Any:
    """A row a method with a mark for each group, all joined by a line; the groups are named above."""
    import altair as alt

    rows = data["rows"]
    base, width = alt.Chart(alt.InlineData(values=rows)), NAMED
    order = list(dict.fromkeys(row["method"] for row in rows))
    names = alt.Axis(labelPadding=10, labelLimit=130, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    x = alt.X("x:Q", title=data["across"], scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=6))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    legend = alt.Legend(title=None, orient="top", symbolStrokeWidth=0)
    marks = alt.Scale(domain=groups, range=["circle", *SHAPES][: len(groups)])
    inks = alt.Scale(domain=groups, range=[OTHER, PALETTE[0], PALETTE[1]][: len(groups)])
    line = base.mark_line(strokeWidth=1, color=FAINT).encode(x=x, y=y, detail="method:N")
    colour, shape = alt.Color("group:N", scale=inks, legend=legend), alt.Shape("group:N", scale=marks, legend=legend)
    dot = base.mark_point(filled=True, size=34, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    return alt.layer(line, dot).properties(width=width, height=alt.Step(18))


def draw_history(data: Data) -> Any:
    """Values over commits, equally far apart: a line each, with its intervals, named at its last point."""
    import altair as alt

    commits, lines, log = data["commits"], data["lines"], data["log"]
    low, high = _ends([p[end] for line in lines for p in line["points"] for end in ("low", "high")], log)
    low = low if log else 0.0  # so that small changes look small
    points = [
        point | {key: line[key] for key in ("name", "colour", "shape")} for line in lines for point in line["points"]
    ]

    def down(value: float) -> float:
        first, last, at = (math.log(v) if log else v for v in (low, high, value))
        return LOW * (last - at) / (last - first)

    ends = sorted(((line["points"][-1], line) for line in lines), key=lambda each: down(each[0]["value"]))
    places = [-at for at in spread([-down(point["value"]) for point, _ in ends], 13)]
    names = [
        {"name": line["name"], "colour": line["colour"], "at": len(commits) - 1, "down": place}
        for (_, line), place in zip(ends, places, strict=True)
    ]
    every = -(-len(commits) // 12)
    shown = list(range((len(commits) - 1) % every, len(commits), every))
    text = alt.Axis(
        values=shown, labelExpr=f"{json.dumps(commits)}[datum.value]", labelAngle=-45, labelOverlap=False, grid=False
    )
    wide = alt.Scale(domain=[0, max(len(commits) - 1, 1)], nice=False, range=[6, NAMED])  # names have the rest
    x = alt.X("at:Q", title="commit", scale=wide, axis=text)
    tall = alt.Scale(domain=[low, high], nice=False, type="log" if log else "linear")
    y = alt.Y(
        "value:Q",
        title=data["up"],
        scale=tall,
        axis=alt.Axis(grid=True, tickCount=5, format=".4~r", minExtent=28, maxExtent=28),
    )
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    base = alt.Chart(alt.InlineData(values=points))
    layers = (
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, detail="name:N"),
        base.mark_rule(strokeWidth=1.2).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=30, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        *_labels(names, x),
    )
    return alt.layer(*layers).properties(width=WIDE, height=LOW)


def draw_front(data: Data) -> Any:
    """Points with intervals, those of a colour joined and named at the right; a stepped line where nothing is better.

    ``front`` are the points, from left to right, that no other has both more of and left of.
    """
    import altair as alt

    rows, front = data["rows"], data["front"]
    left, right = _ends([row["x"] for row in rows], True)
    low, high = _ends([row[end] for row in rows for end in ("low", "high")], False)
    x = alt.X(
        "x:Q",
        title=data["across"],
        scale=alt.Scale(domain=[left, right], nice=False, type="log"),
        axis=alt.Axis(grid=True, tickCount=5, format=".3~g", labelOverlap=True),
    )
    tall = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("y:Q", title=data["up"], scale=tall, axis=alt.Axis(grid=True, tickCount=6))
    ends: dict[str, Any] = {}
    for row in sorted((row for row in rows if row["colour"] != OTHER), key=lambda row: row["x"]):
        ends[row["method"]] = row
    named = sorted(ends.values(), key=lambda row: -row["y"])
    places = [-at for at in spread([(row["y"] - high) * HIGH / (high - low) for row in named], 13, -HIGH)]
    names = [
        {"name": row["method"], "colour": row["colour"], "x": right, "down": place}
        for row, place in zip(named, places, strict=True)
    ]
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    back = alt.Chart(alt.InlineData(values=[row for row in rows if row["colour"] == OTHER]))
    fore = alt.Chart(alt.InlineData(values=[row for row in rows if row["colour"] != OTHER]))
    step = alt.Chart(alt.InlineData(values=front))
    layers = (
        step.mark_line(strokeWidth=1, color=FAINT, interpolate="step-after").encode(x=x, y=y),
        back.mark_point(size=18, strokeWidth=1, opacity=1, color=OTHER).encode(x=x, y=y),
        fore.mark_line(strokeWidth=1.2).encode(x=x, y=y, color=colour, detail="method:N"),
        fore.mark_rule(strokeWidth=1.2).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        fore.mark_point(filled=True, size=30, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        *_labels(names, x),
    )
    return alt.layer(*layers).properties(width=NAMED + 20, height=HIGH)


def draw_map(data: Data) -> Any:
    """A row a method and a column a layer, each cell shaded by its value and with the value in it."""
    import altair as alt

    rows = data["rows"]
    order = list(dict.fromkeys(row["method"] for row in rows))
    base = alt.Chart(alt.InlineData(values=rows))
    names = alt.Axis(labelPadding=8, labelLimit=130, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    x = alt.X("layer:O", title=data["across"], axis=alt.Axis(labelAngle=0, orient="top"))
    low, high = min(row["value"] for row in rows), max(row["value"] for row in rows)
    shade = alt.Opacity("value:Q", scale=alt.Scale(domain=[low, high], range=[0.05, 0.6]), legend=None)
    cell = base.mark_rect(color=PALETTE[0]).encode(x=x, y=y, opacity=shade)
    text = base.mark_text(fontSize=10, color=INK).encode(x=x, y=y, text="told:N")
    return alt.layer(cell, text).properties(width=NAMED, height=alt.Step(18))


def draw_reliability(data: Data) -> Any:
    """Accuracy against confidence, a mark a bin with its interval; below, how many samples each bin has."""
    import altair as alt

    rows = data["rows"]
    base = alt.Chart(alt.InlineData(values=rows))
    whole = alt.Scale(domain=[0, 100], nice=False)
    ticks = alt.Axis(grid=True, tickCount=5)
    x = alt.X("x:Q", title=None, scale=whole, axis=ticks)
    y = alt.Y("y:Q", title="accuracy (%)", scale=whole, axis=ticks)
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    ideal = alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 100, "y": 100}]))
    first = HIGH - 8 - 15 * (len(data["names"]) - 1)  # in the lower right, where few points are
    keys = [{"name": name, "colour": tint, "at": first + 15 * i} for i, (name, tint) in enumerate(data["names"])]
    text: dict[str, Any] = {"align": "right", "fontSize": 11.5, "fontWeight": 600, "limit": 150}
    names = [
        alt.Chart(alt.InlineData(values=[key]))
        .mark_text(**text, color=key["colour"])
        .encode(x=alt.value(WIDE - 8), y=alt.value(key["at"]), text="name:N")
        for key in keys
    ]
    upper = alt.layer(
        ideal.mark_line(color=OTHER, strokeWidth=1, strokeDash=[4, 3]).encode(x=x, y=y),
        base.mark_rule(strokeWidth=1.4).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=38, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        *names,
    ).properties(width=WIDE, height=HIGH)
    across = alt.X("x:Q", title="confidence (%)", scale=whole, axis=ticks)
    count = alt.Y(
        "n:Q", title="samples", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(tickCount=3, format="~s")
    )
    lower = (
        base.mark_line(strokeWidth=1.4, point={"filled": True, "size": 16, "opacity": 1})
        .encode(x=across, y=count, color=colour)
        .properties(width=WIDE, height=50)
    )
    return alt.vconcat(upper, lower, spacing=8)


def draw_lines(data: Data) -> Any:
    """Lines with an interval at each point, named at their right ends."""
    import altair as alt

    rows, log = data["rows"], data.get("log", False)
    low, high = _ends([row[end] for row in rows for end in ("low", "high")], False)
    last = max(row["x"] for row in rows)
    ends = sorted((row for row in rows if row["x"] == last), key=lambda row: -row["y"])
    places = spread([row["y"] for row in ends], 13 * (high - low) / HIGH, low)
    labels = [{**row, "at": place} for row, place in zip(ends, places, strict=True)]
    values = sorted({row["x"] for row in rows})
    wide = alt.Scale(type="log" if log else "linear", nice=False, padding=6)
    written = "datum.value < 1 ? format(datum.value, '.3~g') : format(datum.value, '~s')"  # no thousandths
    axis = alt.Axis(grid=True, values=values, labelExpr=written)
    x = alt.X("x:Q", title=data["across"], scale=wide, axis=axis)
    tall = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("y:Q", title=data["up"], scale=tall, axis=alt.Axis(grid=True, tickCount=6))
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    base = alt.Chart(alt.InlineData(values=rows))
    text: dict[str, Any] = {"align": "left", "dx": 9, "fontSize": 11.5, "fontWeight": 600, "limit": 110}
    layers = (
        base.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=colour, detail="name:N"),
        base.mark_rule(strokeWidth=1.2).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=30, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        alt.Chart(alt.InlineData(values=labels)).mark_text(**text).encode(x=x, y="at:Q", text="name:N", color=colour),
    )
    return alt.layer(*layers).properties(width=NAMED + 20, height=HIGH)


def _labels(names: Sequence[Data], x: Any) -> list[Any]:
    """Names right of a plot, each at its place down in pixels."""
    import altair as alt

    text: dict[str, Any] = {"align": "left", "dx": 9, "fontSize": 11.5, "fontWeight": 600, "limit": 110}
    found = []
    for name in names:
        mark = alt.Chart(alt.InlineData(values=[name])).mark_text(**text, color=name["colour"])
        found.append(mark.encode(x=x, y=alt.value(round(name["down"], 1)), text="name:N"))
    return found


def draw_curve(data: Data) -> Any:
    """A method's curve beside the control's in grey, each named where there is room."""
    import altair as alt

    lines, (low, high) = data["lines"], data["domain"]
    left, right = data["x"][0], data["x"][-1]
    points = [
        {"name": line["name"], "colour": line["colour"], "x": x, "y": y if low <= y <= high else None}
        for line in lines
        for x, y in zip(data["x"], line["y"], strict=True)
    ]
    across = [WIDE * (x - left) / (right - left) for x in data["x"]]
    heights = [[LOW * (high - y) / (high - low) for y in line["y"]] for line in lines]
    paths = [_dense(list(zip(across, down, strict=True))) for down in heights]
    wide, fixed = alt.Scale(domain=[left, right], nice=False), alt.Scale(domain=[low, high], nice=False)
    x = alt.X("x:Q", title=data["across"], scale=wide, axis=alt.Axis(grid=True, tickCount=5))
    y = alt.Y("y:Q", title=data["up"], scale=fixed, axis=alt.Axis(grid=True, tickCount=5))
    base = alt.Chart(alt.InlineData(values=points)).mark_line()
    dash = alt.condition(f"datum.colour == '{OTHER}'", alt.value([5, 3]), alt.value([1, 0]))
    size = alt.condition(f"datum.colour == '{OTHER}'", alt.value(1.5), alt.value(2.2))
    colour = alt.Color("colour:N", scale=None)
    layers = [base.encode(x=x, y=y, color=colour, detail="name:N", strokeDash=dash, strokeWidth=size)]
    for line, (at, down) in zip(lines, along(paths, [line["name"] for line in lines]), strict=True):
        name = alt.Chart(alt.InlineData(values=[{}])).mark_text(
            fontSize=11.5, fontWeight=600, limit=150, baseline="middle", color=line["colour"], text=line["name"]
        )
        layers.append(name.encode(x=alt.value(at), y=alt.value(down)))
    return alt.layer(*layers).properties(width=WIDE, height=LOW)


def draw_sizes(data: Data) -> Any:
    """A line a method over sizes, both axes logarithmic; those with a colour are named at their end."""
    import altair as alt

    rows = data["rows"]
    named = [row for row in rows if row["colour"] != OTHER]
    low, high = _ends([row["y"] for row in rows], log=True)
    last = max(row["x"] for row in rows)
    ends = sorted((row for row in named if row["x"] == last), key=lambda row: -row["y"])
    span = math.log(high / low)
    places = spread([math.log(row["y"]) for row in ends], 13 * span / HIGH)
    labels = [{**row, "at": math.exp(place)} for row, place in zip(ends, places, strict=True)]
    sizes = sorted({row["x"] for row in rows})
    even = all(math.log2(size).is_integer() for size in sizes)
    written = "'2^' + round(log(datum.value) / log(2))" if even else "format(datum.value, ',')"
    powers = alt.Axis(grid=True, values=sizes[:: -(-len(sizes) // 9)], labelExpr=written, labelOverlap=True)
    x = alt.X("x:Q", title=data["across"], scale=alt.Scale(type="log", base=2, nice=False), axis=powers)
    fixed = alt.Scale(type="log", domain=[low, high], nice=False)
    y = alt.Y("y:Q", title=data["up"], scale=fixed, axis=alt.Axis(grid=True, tickCount=4, format="~s"))
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    back = alt.Chart(alt.InlineData(values=[row for row in rows if row["colour"] == OTHER]))
    front = alt.Chart(alt.InlineData(values=named))
    text: dict[str, Any] = {"align": "left", "dx": 9, "fontSize": 11.5, "fontWeight": 600, "limit": 130}
    layers = (
        back.mark_line(strokeWidth=1, color=FAINT).encode(x=x, y=y, detail="method:N"),
        front.mark_line(strokeWidth=2).encode(x=x, y=y, detail="method:N", color=colour),
        front.mark_point(filled=True, size=34, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        alt.Chart(alt.InlineData(values=labels)).mark_text(**text).encode(x=x, y="at:Q", text="method:N", color=colour),
    )
    return alt.layer(*layers).properties(width=NAMED + 20, height=HIGH)


def draw_amounts(data: Data) -> Any:
    """A row a method with a dot at an amount; a rule where all could be."""
    import altair as alt

    rows = data["rows"]
    base, width = alt.Chart(alt.InlineData(values=rows)), NAMED
    order = [row["method"] for row in rows]
    names = alt.Axis(labelPadding=10, labelLimit=160, labelOverlap=False)
    y = alt.Y("method:N", sort=order, title=None, scale=alt.Scale(type="band"), axis=names)
    kind = alt.Scale(type="log" if data["log"] else "linear", domain=_ends([row["x"] for row in rows], data["log"]))
    x = alt.X("x:Q", title=data["across"], scale=kind, axis=alt.Axis(grid=True, tickCount=5, format=".3~g"))
    colour, shape = alt.Color("colour:N", scale=None), alt.Shape("shape:N", scale=None)
    dot = base.mark_point(filled=True, size=44, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    told = base.mark_text(align="left", color=OTHER, fontSize=11).encode(x=alt.value(width + 12), y=y, text="told:N")
    return alt.layer(dot, told).properties(width=width, height=alt.Step(18))


def _dense(path: Sequence[tuple[float, float]], step: float = 4.0) -> list[tuple[float, float]]:
    """A path with points between its own, no farther than ``step`` apart across."""
    found = []
    for (x, y), (other, to) in itertools.pairwise(path):
        count = max(1, math.ceil((other - x) / step))
        found += [(x + (other - x) * i / count, y + (to - y) * i / count) for i in range(count)]
    return [*found, path[-1]]


def along(paths: Sequence[Sequence[tuple[float, float]]], names: Sequence[str]) -> list[tuple[float, float]]:
    """The middle of each path's name (pixels, y downwards): beside it, clear of paths and names, far from other paths.

    >>> along([[(100.0, 50.0), (104.0, 50.0)], [(100.0, 62.0), (104.0, 62.0)]], ["upper", "lower"])
    [(100.0, 38.0), (100.0, 74.0)]
    """
    found: list[tuple[float, float]] = []
    for path, name in zip(paths, names, strict=True):
        half = 3.6 * len(name) + 4
        spots = [(x, y + side) for x, y in path if half < x < WIDE - half for side in (-12, 12)]
        spots = [(x, y) for x, y in spots if 8 < y < LOW - 8] or [(WIDE / 2, LOW / 2)]

        others = [each for each in paths if each is not path]

        def room(spot: tuple[float, float], half: float = half, others: Any = others) -> tuple[float, float]:
            near = [abs(y - spot[1]) for each in paths for x, y in each if abs(x - spot[0]) <= half]
            clash = [abs(y - spot[1]) - 3 for x, y in found if abs(x - spot[0]) <= 2 * half]
            apart = [abs(y - spot[1]) for each in others for x, y in each if abs(x - spot[0]) <= 4]
            return round(min([*near, *clash, 10]), 1), round(min([*apart, 60]), 1)

        found.append(max(spots, key=room))
    return found


def spread(wanted: Sequence[float], gap: float, floor: float = -math.inf) -> list[float]:
    """The nearest positions (least squares) at least ``gap`` apart and none below ``floor``, for positions in falling
    order.

    >>> spread([10.0, 9.0, 2.0], 3)
    [11.0, 8.0, 2.0]
    >>> spread([1.0, 0.0], 3, floor=0.0)
    [3.0, 0.0]
    """
    pools: list[list[float]] = []  # of positions with the gaps taken out: falling, so neighbours that rise are merged
    for i, place in enumerate(wanted):
        pools.append([place + i * gap])
        while len(pools) > 1 and _mean(pools[-2]) < _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    lowest = floor + (len(wanted) - 1) * gap
    flat = [max(_mean(pool), lowest) for pool in pools for _ in pool]
    return [place - i * gap for i, place in enumerate(flat)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# -- SVG ---------------------------------------------------------------------------------------------------------------


def drawn(draw: Callable[[Data], Any], data: Data) -> str:
    """The drawing as SVG; from the cache where the same was drawn before."""
    shown = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")  # the renderer takes no lone surrogates
    key = hashlib.sha256(f"{_drawer()} {draw.__name__} ".encode() + shown).hexdigest()[:24]
    path = paths.local() / "charts" / f"{key}.svg"
    try:
        return path.read_text("utf-8")
    except OSError:
        text = render(draw(json.loads(shown)))
    _keep(path, text)
    return text


@cache
def _drawer() -> str:
    """What decides how data is drawn: this file and the libraries."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return f"{own} {version('altair')} {version('vl-convert-python')}"


def _keep(path: Path, text: str) -> None:
    with contextlib.suppress(StoreError, OSError):  # it saves time only; the page itself says where a disk is full
        write_atomically(path, text)


def tidy() -> None:
    """Remove the oldest drawings beyond :data:`KEPT`."""
    with contextlib.suppress(OSError):
        kept = sorted((paths.local() / "charts").glob("*.svg"), key=lambda file: file.stat().st_mtime)
        for file in kept[:-KEPT]:
            file.unlink(missing_ok=True)


def alone(svg: str) -> str:
    """An SVG as a file of its own, which knows its colours in the dark."""
    rules = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}' for light, dark in DARK.items()
    )
    return (
        svg.replace(">", f"><style>@media (prefers-color-scheme:dark){{svg{{background:{GROUND}}}{rules}}}</style>", 1)
        + "\n"
    )


def render(chart: Any) -> str:
    """A chart as compact SVG: transparent, no ids, coordinates to a hundredth of a pixel, the font named once."""
    import vl_convert

    text = {"labelFontSize": 11.5, "titleFontSize": 11.5, "titleFontWeight": 400, "titlePadding": 8, "labelPadding": 6}
    axis = text | {"labelColor": INK, "titleColor": OTHER, "gridColor": RULE}
    axis |= {"grid": False, "domain": False, "ticks": False}
    styled = chart.configure(
        aria=False, font=FONT, background="transparent", padding={"left": 12, "top": 6, "right": 16, "bottom": 2}
    )
    styled = styled.configure_axis(**axis).configure_view(stroke=None)
    svg = re.sub(r"<[^>]+>", _compact, vl_convert.vegalite_to_svg(styled.to_json()))
    return svg.replace('<path d="" display="none"/>', "").replace("<svg ", f'<svg font-family="{FONT}" ', 1)


def _compact(tag: re.Match[str]) -> str:
    """A tag without what serves interaction only or says the default; text between tags is left alone."""
    text = re.sub(r' (?:aria-[a-z]+|role|class|pointer-events|xmlns:xlink|version|font-family)="[^"]*"', "", tag[0])
    text = re.sub(r' (?:opacity="1"|stroke-width="1"|(?:fill|stroke)="transparent")', "", text)
    text = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)
    return CIRCLE.sub(r'<circle cx="\1" cy="\2" r="\3"', text)


CIRCLE = re.compile(  # as Vega draws one
    r'<path transform="translate\(([\d.-]+),([\d.-]+)\)" d="M([\d.]+),0A\3,\3,0,1,1,-\3,0A\3,\3,0,1,1,\3,0"'
)

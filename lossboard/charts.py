"""What charts show: data of boards, with a title, a caption and the table of the same numbers. ``drawing`` draws."""

from __future__ import annotations

import importlib
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from lossboard import board, drawing, paths
from lossboard.board import Board, Row
from lossboard.drawing import INK, OTHER, PALETTE, SHAPES
from lossboard.entries import Entry, Measures
from lossboard.names import stem
from lossboard.protocol import Suite, Task, Track
from lossboard.scales import SCALES, Scale

if TYPE_CHECKING:
    from reference.curves import Curves  # it needs torch

LARGEST_INLINE = 40_000  # characters: a larger drawing is a file beside the page
SHORT = 12  # rows of the chart on the first page


@dataclass(frozen=True)
class Figure:
    """A chart: its drawing, what it is called, what it says in words, the caption, and the table with its numbers."""

    name: str  # of its file, without suffix
    svg: str
    title: str
    label: str  # the alternative text
    caption: str
    table: str  # the file, without suffix, of the table with the same numbers
    leads: bool = False  # whether the page of the suite shows it too

    @property
    def inline(self) -> Markup | None:
        """The drawing for a page, with its alternative text; None if it is too large for one."""
        if len(self.svg) > LARGEST_INLINE:
            return None
        name = escape(self.label)
        text = self.svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
        return Markup(text.replace(">", f"><title>{name}</title>", 1))

    @property
    def file(self) -> str:
        """The drawing as a file of its own."""
        return drawing.alone(self.svg)

    @property
    def tall(self) -> bool:
        """Whether it has a row for each method."""
        return self.name.endswith(("-means", "-ranks", "-critical"))

    @property
    def size(self) -> tuple[str, str]:
        """Width and height in pixels, as the drawing says them."""
        return self.svg.split('width="', 1)[1].split('"')[0], self.svg.split('height="', 1)[1].split('"')[0]


# -- what a track shows ------------------------------------------------------------------------------------------------


def figures(
    track: Track,
    tuned: Board,
    default: Board,
    measures: Measures,
    suite: Suite,
    entries: Mapping[str, Sequence[Entry]],
) -> list[Figure]:
    """The charts of a track, the suite's own first; none below two ranked methods."""
    ranked = [row for row in tuned.rows if row.rank]
    if len(ranked) < 2:
        return []
    control = suite.controls[track.kind]
    colours = highlights(ranked, control)
    own = suite_figures(suite)
    return [
        *(own(track, tuned, entries) if own else []),
        _means(track, ranked, default, colours),
        *(_levels(track, ranked, colours, control) if suite.metrics.scale == "percent" else []),
        *([] if tuned.scale.smaller else _calibration(track, ranked, measures, suite, colours, tuned.scale)),
        *([] if suite.alone else _cost(track, ranked, measures, suite, colours, tuned.scale)),
        ranks(track, ranked, colours),
        *_critical(track, tuned, colours),
    ]


def suite_figures(suite: Suite) -> Callable[[Track, Board, Mapping[str, Sequence[Entry]]], list[Figure]] | None:
    """What draws charts of a suite's own, ``figures`` in suites/<suite>/charts.py; None where it has no such file."""
    if not (paths.suites() / suite.name / "charts.py").is_file():
        return None
    paths.importable()
    found: Callable[[Track, Board, Mapping[str, Sequence[Entry]]], list[Figure]]
    found = importlib.import_module(f"suites.{suite.name}.charts").figures
    return found


def highlights(ranked: Sequence[Row], control: str) -> dict[str, str]:
    """The methods that have a colour: the four best, and the control in ink."""
    best = [row.method for row in ranked if row.method != control][: len(PALETTE)]
    ink = {control: INK} if any(row.method == control for row in ranked) else {}
    return dict(zip(best, PALETTE, strict=False)) | ink


def short(track: Track, method: str) -> str:
    """What a chart calls a method: without the kind that all methods of the track are of."""
    return method.removeprefix(f"{track.kind}.")


def look(method: str, colours: Mapping[str, str]) -> dict[str, str]:
    """Colour and shape of a method's marks."""
    colour = colours.get(method, OTHER)
    return {"colour": colour, "shape": SHAPES[PALETTE.index(colour)] if colour in PALETTE else "circle"}


def rank(row: Row) -> str:
    """'1–4', '7', or a dash where a method is not ranked."""
    return "–" if row.rank is None else "–".join(map(str, dict.fromkeys(row.rank)))


def _means(track: Track, ranked: Sequence[Row], default: Board, colours: Mapping[str, str]) -> Figure:
    scale, tuned = default.scale, track.tunes
    other = {row.method: row.score for row in default.rows if row.rank and tuned}
    data: list[dict[str, Any]] = []
    for i, row in enumerate(ranked):
        half = row.half if math.isfinite(row.half) else 0.0
        data.append(
            {
                "method": short(track, row.method),
                "rank": rank(row),
                "mean": _shown(scale, row.score),
                "low": _shown(scale, row.score - half),
                "high": _shown(scale, row.score + half),
                "default": _shown(scale, other[row.method]) if row.method in other else None,
                **look(row.method, colours),
                "opens": i > 0 and row.group != ranked[i - 1].group,
            }
        )
    first = ranked[0]
    label = f"Mean score of {len(ranked)} methods, best first: {first.method} at {scale.text(first.score)}{scale.unit}"
    caption = "Filled: tuned, with the 95 % interval over seeds. Hollow: the author's defaults. At the right, the rank."
    if not tuned:
        caption = "With the 95 % interval over seeds. At the right, the rank."
    svg = drawing.drawn(drawing.draw_means, {"rows": data, "title": f"mean score ({scale.unit.strip()})"})
    return Figure(f"{track.name}-means", svg, "Mean score", label, caption, stem(track.name, "tuned"))


def _levels(track: Track, ranked: Sequence[Row], colours: Mapping[str, str], control: str) -> list[Figure]:
    found = []
    for name, (levels, datasets) in noises(track.tasks).items():
        data: list[dict[str, Any]] = []
        for row, (rate, names) in itertools.product(ranked, levels.items()):
            score = _shown(SCALES["percent"], sum(row.tasks[task].mean for task in names) / len(names))
            data.append({"method": short(track, row.method), "rate": rate, "score": score, **look(row.method, colours)})
        what, across = (f"{name} noise", "noise rate") if track.kind == "loss" else (name, "rate")
        label = f"Score of {len(ranked)} methods at {', '.join(f'{100 * rate:g} %' for rate in levels)} {what}"
        caption = _legend(len(ranked), colours, control, datasets)
        svg = drawing.drawn(drawing.draw_levels, {"rows": data, "across": across})
        found.append(
            Figure(
                f"{track.name}-noise-{name}",
                svg,
                f"Score against {what}",
                label,
                caption,
                stem(track.name, "noise"),
                leads=True,
            )
        )
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
        if "corruption" not in task.parts:
            continue
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


def ranks(track: Track, ranked: Sequence[Row], colours: Mapping[str, str], most: int | None = None) -> Figure:
    """Rank intervals, best mean first; of the first ``most`` methods, or of all."""
    shown = ranked[:most]
    rows = [
        {"method": short(track, row.method), "place": i, "low": row.rank[0], "high": row.rank[1], "rank": rank(row)}
        | look(row.method, colours)
        for i, row in enumerate(shown, 1)
        if row.rank
    ]
    label = f"Rank intervals of {len(rows)} methods: " + ", ".join(f"{r['method']} {r['rank']}" for r in rows[:SHORT])
    caption = "The bar is the rank interval, the dot the place in the order of means; all bars hold at once with 95 %."
    left = len(ranked) - len(shown)
    caption += f" {left} more methods are ranked below." if left else ""
    svg = drawing.drawn(drawing.draw_ranks, {"rows": rows, "last": len(ranked)})
    name = f"{track.name}-ranks" if most is None else f"{track.name}-best"
    return Figure(name, svg, "Rank intervals", label, caption, stem(track.name, "tuned"))


def _critical(track: Track, tuned: Board, colours: Mapping[str, str]) -> list[Figure]:
    tested = board.friedman(tuned, track)
    if tested is None:
        return []
    methods, found, blocks = tested
    half = found.difference / 2
    order = sorted(zip(found.mean_ranks, methods, strict=True))
    rows = [  # cut off at the ends of the scale: bars that overlap still do
        {"method": short(track, id), "rank": round(mean, 3), "low": round(max(mean - half, 1), 3)}
        | {"high": round(min(mean + half, len(methods)), 3)}
        | look(id, colours)
        for mean, id in order
    ]
    near = sum(mean - order[0][0] < found.difference for mean, _ in order[1:])
    label = (
        f"Mean ranks of {len(rows)} methods over {blocks} draws; the critical difference is {found.difference:.1f}. "
        f"First {order[0][1]} at {order[0][0]:.1f}; {near} others are within the critical difference of it"
    )
    caption = (
        f"Mean rank over {blocks} draws (dataset and seed); Friedman's test of equal methods: p {_p(found.p)}. Bars "
        f"are as long as Nemenyi's critical difference at 5 %, {found.difference:.1f} ranks: methods whose bars "
        "overlap are not told apart. The dashed line is where the bar of the first ends."
    )
    svg = drawing.drawn(drawing.draw_critical, {"rows": rows})
    return [Figure(f"{track.name}-critical", svg, "Critical difference", label, caption, stem(track.name, "tuned"))]


NAMED = "Named: the coloured methods, and those that no other beats in both, where there is room."


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"= {value:.3f}"


def _calibration(
    track: Track, ranked: Sequence[Row], measures: Measures, suite: Suite, colours: Mapping[str, str], scale: Scale
) -> list[Figure]:
    known = [row for row in ranked if "ece" in measures.get(row.method, {}) and "ece" in suite.metrics.columns]
    points = [(row, _shown(SCALES["percent"], measures[row.method]["ece"])) for row in known]
    caption = "Of the tuned trials, means over all tasks."
    label = f"Score of {len(points)} methods against their calibration error"
    axes = ("expected calibration error (%)", False)
    return _scatter(track, "calibration", "Score and calibration", label, caption, points, axes, colours, scale)


def _cost(
    track: Track, ranked: Sequence[Row], measures: Measures, suite: Suite, colours: Mapping[str, str], scale: Scale
) -> list[Figure]:
    """Against ``passes`` where a suite counts them: what they take does not depend on what ran beside."""
    key = "passes" if "passes" in suite.metrics.columns else "seconds"
    known = [row for row in ranked if measures.get(row.method, {}).get(key, 0) > 0]
    points = [(row, float(f"{measures[row.method][key]:.4g}")) for row in known]
    caption = "Processor seconds of one training run, mean over the tuned trials, on the machines of the records."
    what = "processor seconds of a run"
    if key == "passes":
        words = suite.metrics.columns[key]
        caption, what = f"{words[0].upper()}{words[1:]}: means over the tuned trials.", "passes of a training row"
    label = f"Score of {len(points)} methods against the {what}"
    axes = (f"{what}, log scale", True)
    return _scatter(track, "cost", "Score and cost", label, caption, points, axes, colours, scale)


def _scatter(
    track: Track,
    name: str,
    title: str,
    label: str,
    caption: str,
    points: Sequence[tuple[Row, float]],
    axes: tuple[str, bool],
    colours: Mapping[str, str],
    scale: Scale,
) -> list[Figure]:
    """A dot a method, the smaller ``points`` the better; nothing below two of them."""
    if len(points) < 2:
        return []
    front = undominated([(value, row.score) for row, value in points])
    least, most = fence([row.score for row, _ in points])[0], fence([value for _, value in points])[1]
    far = [row.method for row, value in points if row.score < least or (value > most and not axes[1])]
    rows: list[dict[str, Any]] = [
        {
            "method": short(track, row.method),
            "x": value,
            "y": _shown(scale, row.score),
            "named": row.method in colours or i in front,
        }
        | look(row.method, colours)
        for i, (row, value) in enumerate(points)
        if row.method not in far
    ]
    rows.sort(key=lambda row: (row["colour"] == OTHER, -row["y"]))  # the coloured are named first
    caption += f" Best is the {'lower' if scale.smaller else 'upper'} left. {NAMED}"
    caption += f" Outside the plot, far from the others: {', '.join(far)}." if far else ""
    data = {"rows": rows, "across": axes[0], "log": axes[1], "up": f"mean score ({scale.unit.strip()})"}
    svg = drawing.drawn(drawing.draw_scatter, data)
    return [Figure(f"{track.name}-{name}", svg, title, label, caption, stem(track.name, "tuned"))]


def fence(values: Sequence[float]) -> tuple[float, float]:
    """Tukey's fences, 1.5 interquartile ranges beyond the quartiles; nothing is beyond them below eight values."""
    if len(values) < 8:
        return -math.inf, math.inf
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low - 1.5 * (high - low), high + 1.5 * (high - low)


def undominated(points: Sequence[tuple[float, float]]) -> set[int]:
    """Which of these (cost, gain) no other one beats or equals in both and beats in one.

    >>> sorted(undominated([(1.0, 5.0), (2.0, 4.0), (3.0, 6.0)]))
    [0, 2]
    """
    beaten = {
        i
        for i, (cost, gain) in enumerate(points)
        if any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
    }
    return set(range(len(points))) - beaten


def _shown(scale: Scale, averaged: float) -> float:
    return float(f"{scale.plain(averaged):.{scale.digits + 1}f}")


# -- the shape of a loss -----------------------------------------------------------------------------------------------

WHAT = {
    "values": "The loss against the margin, the logit of the label",
    "weights": "How much a sample weighs: the norm of its gradient in the logits, against the softmax probability of "
    "its label",
}
HIGHEST = 8  # times the control's largest value: what lies above is cut off


def shape(id: str, own: Curves, control: str, other: Curves | None) -> list[Figure]:
    """Two charts of a loss, its value and the size of its gradient, beside those of the control."""
    both = f" beside {control} in grey" if other else ""
    setting = f"{own.classes} classes, all other logits 0"
    found = []
    for name, title, up, across, part in (
        ("value", "The loss", "loss", "margin", "values"),
        ("weight", "Its gradient", "gradient norm", "softmax probability of the label", "weights"),
    ):
        lines = [{"name": id, "colour": PALETTE[0], "y": getattr(own, part)}]
        lines += [{"name": control, "colour": OTHER, "y": getattr(other, part)}] if other else []
        low, high, cut = _domain(lines)
        where = own.margins if part == "values" else own.probabilities
        data = {"x": where, "lines": lines, "domain": [low, high], "across": across, "up": up}
        y = getattr(own, part)
        label = (
            f"{title} of {id}{both}: {y[0]:.3g} at {across} {where[0]:.3g}, {y[len(y) // 2]:.3g} at "
            f"{where[len(y) // 2]:.3g}, {y[-1]:.3g} at {where[-1]:.3g}"
        )
        caption = f"{WHAT[part]}, {setting}; author's defaults{both}.{cut}"
        found.append(Figure(name, drawing.drawn(drawing.draw_curve, data), title, label, caption, "curves"))
    return found


def _domain(lines: Sequence[Mapping[str, Any]]) -> tuple[float, float, str]:
    """Round ends of a scale that holds the lines, and a remark where it cuts them off."""
    most = HIGHEST * max(map(abs, lines[-1]["y"])) if len(lines) > 1 else math.inf
    values = [value for line in lines for value in line["y"]]
    inside = [value for value in values if abs(value) <= most] or values
    span = axis([(min(inside), max(inside))])
    return span.low, span.high, " What is larger is cut off." if len(inside) < len(values) else ""


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

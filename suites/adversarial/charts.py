"""Charts of the adversarial suite: the trade-off, accuracy against eps, the power law, regions and attacked images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import escape

from lossboard import drawing
from lossboard.board import Board
from lossboard.charts import NAMED, Figure, highlights, look
from lossboard.data.made import PLANE_HALF
from lossboard.drawing import INK, OTHER, PALETTE
from lossboard.entries import Entry
from lossboard.names import stem
from lossboard.protocol import Task, Track
from lossboard.tables import Table, number
from suites.adversarial.pictures import GRID, LEVELS, SHOWN, SIDE, unpacked

Entries = Mapping[str, Sequence[Entry]]  # task -> methods
CONTROL, PLAIN = "at", "standard"
SIZES = (0.125, 0.25, 0.5, 1.0, 1.5, 2.0)  # multiples of eps of the columns robust_at_...
CURVE = "curves"
LEARNT = 0.7  # of the best accuracy without attack: what has less is left out of the trade-off
SIDES = {"digits": 8}  # pixels a side of a picture, where it is not SIDE
CELL, GAP = 4, 22  # pixels of a cell of the plane; between panels


def figures(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """What a reader looks at first; each where the track has what it needs."""
    return [
        *_trade_off(track, board, entries),
        *_curves(track, board, entries),
        *_growth(track, board, entries),
        *_regions(track, board, entries),
        *_examples(track, board, entries),
    ]


def tables(track: Track, board: Board, entries: Entries) -> list[Table]:
    """The numbers of the curves."""
    lines = [
        {"task": task.name, "method": entry.method, "eps": number(eps), "accuracy": number(y)}
        | {"low": number(low), "high": number(high)}
        for task in track.tasks
        for entry in entries.get(task.name, ())
        for eps, y, low, high in _curve(task, entry)
    ]
    found = Table(stem(track.name, CURVE), "Accuracy under PGD on the margin against eps", lines)
    return [found] if lines else []


def _percent(share: float) -> float:
    return float(f"{100 * share:.2f}")


def _shown(board: Board) -> dict[str, str]:
    """The methods that lines and panels show, with their colours: the best, the control, and no defence at all."""
    ranked = [row for row in board.rows if row.rank]
    colours = highlights(ranked, CONTROL)
    return colours | ({PLAIN: OTHER} if PLAIN in {row.method for row in ranked} and PLAIN not in colours else {})


# -- clean and robust -------------------------------------------------------------------------------------------------


def _trade_off(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """A dot a method: accuracy without attack across, under the worst attack up; task by task."""
    colours = _shown(board)
    found: list[Figure] = []
    for task, own in entries.items():
        every = [entry for entry in own if {"clean", "robust"} <= entry.metrics.keys()]
        least = LEARNT * max((entry.metrics["clean"] for entry in every), default=0.0)
        points = [entry for entry in every if entry.metrics["clean"] >= least]
        if len(points) < 2:
            continue
        rows = [
            {"method": entry.method, "x": _percent(entry.metrics["clean"]), "y": _percent(entry.metrics["robust"])}
            | {"named": entry.method in colours}
            | look(entry.method, colours)
            | _ends(entry)
            for entry in points
        ]
        rows.sort(key=lambda row: row["colour"] == OTHER)
        data = {"rows": rows, "across": "accuracy without attack (%)", "log": False, "up": "robust accuracy (%)"}
        caption = (
            f"On {task}, of the tuned trials: the test rows that are right as they are, and those that stay right "
            f"under every attack. Lines are 95 % t intervals over seeds. Best is the upper right. {NAMED}"
        )
        if len(points) < len(every):
            caption += (
                f" Not shown: {len(every) - len(points)} that have less than {_percent(least):g} % without attack."
            )
        label = f"Robust accuracy of {len(points)} methods against their accuracy without attack on {task}"
        svg = drawing.drawn(drawing.draw_scatter, data)
        name = f"{track.name}-trade-off-{stem(task)}"
        numbers = stem(track.name, "tasks")
        found.append(Figure(name, svg, f"Clean and robust, {task}", label, caption, numbers, leads=not found))
    return found


def _ends(entry: Entry) -> dict[str, float]:
    """The ends of both intervals, where there are any."""
    halves = [entry.halves.get(name, math.nan) for name in ("clean", "robust")]
    if not all(map(math.isfinite, halves)):
        return {}
    (left, right), (low, high) = (
        (_percent(max(mean - half, 0.0)), _percent(min(mean + half, 1.0)))
        for mean, half in zip((entry.metrics["clean"], entry.metrics["robust"]), halves, strict=True)
    )
    return {"left": left, "right": right, "low": low, "high": high}


# -- accuracy against eps ---------------------------------------------------------------------------------------------


def _curve(task: Task, entry: Entry) -> Iterator[tuple[float, float, float, float]]:
    """eps, accuracy and the ends of its interval, from no attack to twice the task's eps."""
    for size in (0.0, *SIZES):
        name = f"robust_at_{size:g}" if size else "clean"
        if name in entry.metrics:
            mean, half = entry.metrics[name], entry.halves.get(name, math.nan)
            half = half if math.isfinite(half) else 0.0
            yield size * task.parts["threat"].eps, mean, max(mean - half, 0.0), min(mean + half, 1.0)


def _curves(track: Track, board: Board, entries: Entries) -> list[Figure]:
    colours = _shown(board)
    found: list[Figure] = []
    for task in track.tasks:
        rows = [
            {"name": entry.method, "x": float(f"{eps:.4g}"), "y": _percent(y), "low": _percent(low)}
            | {"high": _percent(high)}
            | look(entry.method, colours)
            for entry in entries.get(task.name, ())
            if entry.method in colours
            for eps, y, low, high in _curve(task, entry)
        ]
        if not rows:
            continue
        told = "the largest change of a feature" if task.parts["threat"].norm == "linf" else "the length of a change"
        caption = (
            f"On {task.name}: accuracy under PGD on the margin within eps, {told}; training is at {_eps(task):g}. "
            "With 95 % t intervals over seeds."
        )
        names = ", ".join(dict.fromkeys(str(row["name"]) for row in rows))
        label = f"Accuracy under attack against eps on {task.name}: {names}"
        svg = drawing.drawn(drawing.draw_lines, {"rows": rows, "across": "eps", "up": "accuracy under attack (%)"})
        name, title = f"{track.name}-curve-{stem(task.name)}", f"Accuracy against eps, {task.name}"
        found.append(Figure(name, svg, title, label, caption, stem(track.name, CURVE), leads=not found))
    return found


def _eps(task: Task) -> float:
    return float(task.parts["threat"].eps)


def _growth(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """The share of rows that an attack fools against eps, both in logarithms: a power law is a line."""
    colours = _shown(board)
    found: list[Figure] = []
    for task in track.tasks:
        own = {entry.method: entry for entry in entries.get(task.name, ()) if entry.method in colours}
        rows = []
        for method, entry in own.items():
            clean, *attacked = _curve(task, entry)
            errors = [(eps, clean[1] - y) for eps, y, *_ in attacked if eps <= _eps(task)]
            if len(errors) == 4 and all(error > 0 for _, error in errors):
                points = [(eps, float(f"{math.log10(100 * error):.4g}")) for eps, error in errors]
                rows += [
                    {"name": method, "x": float(f"{eps:.4g}"), "y": y, "low": y, "high": y} | look(method, colours)
                    for eps, y in points
                ]
        if not rows:
            continue
        named = dict.fromkeys(str(row["name"]) for row in rows)
        laws = ", ".join(f"{m} {own[m].metrics['power']:.2f}" for m in named if "power" in own[m].metrics)
        caption = (
            f"On {task.name}: points of accuracy that PGD on the margin takes within eps, means over seeds. On a line "
            f"it is a power of eps. Exponents, means of those of each seed: {laws}."
        )
        data = {"rows": rows, "across": "eps (log scale)", "up": "log10 of the points lost", "log": True}
        svg = drawing.drawn(drawing.draw_lines, data)
        label = f"Points of accuracy lost against eps in logarithms on {task.name}; exponents {laws}"
        name, title = f"{track.name}-growth-{stem(task.name)}", f"Growth with eps, {task.name}"
        found.append(Figure(name, svg, title, label, caption, stem(track.name, CURVE)))
    return found


# -- pictures ---------------------------------------------------------------------------------------------------------


def _panels(board: Board, known: Mapping[str, Any]) -> list[str]:
    """No defence, the control and the best others, of those that are known."""
    wanted = [PLAIN, CONTROL, *(row.method for row in board.rows if row.rank)]
    return list(dict.fromkeys(method for method in wanted if method in known))[:4]


def _regions(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """Which class a network predicts where in the plane, with the squares that the data comes from."""
    found: list[Figure] = []
    for task in (task for task in track.tasks if task.dataset == "plane"):
        grids = {entry.method: unpacked("region", entry.metrics, GRID * GRID) for entry in entries.get(task.name, ())}
        methods = _panels(board, {method: grid for method, grid in grids.items() if grid})
        if not methods:
            continue
        side = GRID * CELL
        parts = [_panel(method, grids[method], i * (side + GAP)) for i, method in enumerate(methods)]
        svg = _drawing("".join(parts), len(methods) * (side + GAP), side + 18)
        caption = (
            f"On {task.name}, the network of seed 0: the class that it predicts at each point of the unit square, and "
            "the squares that the rows are drawn from. The adversary may move a point by "
            f"{_eps(task):g} in each direction."
        )
        label = f"Decision regions of {', '.join(methods)}"
        name = f"{track.name}-regions"
        found.append(Figure(name, svg, "Decision regions", label, caption, stem(track.name, "tasks"), leads=True))
    return found


def _panel(method: str, grid: Sequence[int], left: int) -> str:
    marks = []
    for label, colour in enumerate(PALETTE):
        cells = "".join(
            f"M{left + CELL * (i % GRID)} {16 + CELL * (i // GRID)}h{CELL}v{CELL}h-{CELL}z"
            for i, said in enumerate(grid)
            if said == label
        )
        marks.append(f'<path d="{cells}" fill="{colour}" fill-opacity="0.45"/>')
    side, top = GRID * CELL, 5 / 6 + PLANE_HALF  # features are divided by their largest
    for a, b in [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)]:
        x, y = ((2 * place + 1) / 6 - PLANE_HALF for place in (a, b))
        size = 2 * PLANE_HALF / top * side
        marks.append(
            f'<rect x="{left + x / top * side:.1f}" y="{16 + y / top * side:.1f}" width="{size:.1f}" '
            f'height="{size:.1f}" fill="none" stroke="{INK}" stroke-width="0.6"/>'
        )
    return _title(method, left) + "".join(marks)


def _title(text: str, left: float, top: float = 10) -> str:
    return f'<text x="{left}" y="{top}" font-size="11" fill="{INK}">{escape(text)}</text>'


def _drawing(inside: str, width: float, height: float) -> str:
    return (
        f'<svg font-family="{drawing.FONT}" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{inside}</svg>'
    )


def _examples(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """Test images, and what an attack makes of them for some networks, with what each says."""
    found: list[Figure] = []
    for task in track.tasks:
        side = SIDES.get(task.dataset, SIDE)
        own = {entry.method: entry.metrics for entry in entries.get(task.name, ())}
        seen = {m for m, metrics in own.items() if unpacked("example0_attacked", metrics, side * side)}
        methods = _panels(board, {method: own[method] for method in own if method in seen})
        if not methods:
            continue
        size, left = 56, 92
        parts = [_title("as it is", 0, 34), *(_title(m, 0, 34 + (i + 1) * (size + 18)) for i, m in enumerate(methods))]
        for k in range(SHOWN):
            column = left + k * (size + 10)
            clean = unpacked(f"example{k}", own[methods[0]], side * side)
            if not clean:
                continue
            parts.append(_image(clean, side, column, 0, size))
            parts.append(_title(f"is {own[methods[0]][f'example{k}_label']:.0f}", column, size + 11))
            for i, method in enumerate(methods, 1):
                top = i * (size + 18)
                attacked = unpacked(f"example{k}_attacked", own[method], side * side)
                said, label = (own[method][f"example{k}_{what}"] for what in ("attacked_said", "label"))
                parts.append(_image(attacked, side, column, top, size))
                words = f"{said:.0f}" + (", wrong" if said != label else "")
                parts.append(_title(words, column, top + size + 11))
        svg = _drawing("".join(parts), left + SHOWN * (size + 10), (len(methods) + 1) * (size + 18))
        caption = (
            f"On {task.name}, the networks of seed 0: the first test image of each of four classes, below it what "
            f"Auto-PGD within eps = {_eps(task):.3g} makes of it for each network, and the class that the network says."
        )
        told = f"Test images of {task.name} before and after an attack on {', '.join(methods)}"
        name, title = f"{track.name}-examples-{stem(task.name)}", f"Attacked images, {task.name}"
        found.append(Figure(name, svg, title, told, caption, stem(track.name, "tasks"), leads=not found))
    return found


def _image(digits: Sequence[int], side: int, left: float, top: float, size: float) -> str:
    """Grey levels as squares: one path for each level."""
    each = size / side
    paths = [f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="{OTHER}"/>']
    for level in sorted(set(digits) - {0}):
        cells = "".join(
            f"M{left + each * (i % side):.1f} {top + each * (i // side):.1f}h{each:.1f}v{each:.1f}h-{each:.1f}z"
            for i, value in enumerate(digits)
            if value == level
        )
        paths.append(f'<path d="{cells}" fill="{INK}" fill-opacity="{level / LEVELS:.2f}"/>')
    return "".join(paths)

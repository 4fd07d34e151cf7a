"""Charts of the compression suite: accuracy against bytes, and what each layer is left with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lossboard import drawing
from lossboard.board import Board, Score
from lossboard.charts import Figure, highlights, look
from lossboard.entries import Entry
from lossboard.names import stem
from lossboard.protocol import Task, Track
from suites.compression.settings import Setting

Entries = Mapping[str, Sequence[Entry]]  # task -> methods


def figures(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """For every network of the track its front, and a map of its layers at the setting in the middle."""
    ranked = [row for row in board.rows if row.rank]
    if any(task.parts["training"].twice for task in track.tasks):
        return _regimes(track, entries)
    colours = highlights(ranked, {"quantization": "rtn", "pruning": "magnitude"}[track.kind])
    found = []
    for name, tasks in networks(track).items():
        found += _front(track, name, tasks, entries, colours)
        found += _layers(track, name, tasks, entries, [row.method for row in ranked])
    return found


REGIMES = {  # what is mapped, what it is called, and in which unit
    "accuracy": ("Accuracy of {method} (%)", 100),
    "connectivity": ("Mode connectivity (points of error)", 100),
    "cka": ("Alignment of outputs (CKA, %)", 100),
}


def _regimes(track: Track, entries: Entries) -> list[Figure]:
    """Maps of the training's batch against the share that is cut, for the method that was trained twice."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in REGIMES}
    seen = set()
    for task in sorted(track.tasks, key=lambda task: task.parts["setting"].sparsity):
        for entry in (each for each in entries[task.name] if "connectivity" in each.metrics and each.tuned):
            values = dict(entry.metrics) | {"accuracy": entry.tuned.mean if entry.tuned else math.nan}
            place = {"method": f"{100 * task.parts['setting'].sparsity:g} % cut", "layer": task.parts["training"].batch}
            for name, (_, unit) in REGIMES.items():
                shown = f"{unit * values[name]:.1f}"
                rows[name].append(place | {"value": float(shown), "told": shown})
            seen.add(entry.method)
    if not seen:
        return []
    method, where = ", ".join(sorted(seen)), named(track.tasks[0])
    caption = (
        f"{where}: {method} after training with batches of so many rows, small ones being hot. Mean over seeds. Two "
        "networks are trained from the same weights with other batches, cut, and trained further. Zhou et al. (2023) "
        "tell apart where a barrier lies between them (connectivity below 0), where none does and their outputs "
        "differ, and where none does and they are alike."
    )
    found = []
    for name, (title, _) in REGIMES.items():
        words = title.format(method=method)
        svg = drawing.drawn(drawing.draw_map, {"rows": rows[name], "across": "rows of a batch in training"})
        told = f"{words} by batch of the training and share cut: {where}"
        key = stem(track.name, "regimes", name)
        found.append(Figure(key, svg, words, told, caption, stem(track.name, "tasks"), leads=name == "accuracy"))
    return found


def networks(track: Track) -> dict[str, list[Task]]:
    """The tasks of each network: 'digits, mlp, ce' -> its settings."""
    found: dict[str, list[Task]] = {}
    for task in track.tasks:
        found.setdefault(named(task), []).append(task)
    return found


def named(task: Task) -> str:
    """'digits, 2 x 128 mlp, ce' of a task, 'and activations of 4 bits' where they are rounded."""
    model, bits = task.model, task.parts["setting"].activations
    size = f"{model.layers} x {model.width} " if model.layers else f"{model.width} wide " if model.width else ""
    kind = model.repository.rsplit("/", 1)[-1] or model.kind
    rounded = f" and activations of {bits} bits" if bits else ""
    return f"{task.dataset}, {size}{kind}, {task.parts['loss'].method}{rounded}"


def _front(
    track: Track, name: str, tasks: Sequence[Task], entries: Entries, colours: Mapping[str, str]
) -> list[Figure]:
    known = [
        (entry, entry.tuned)
        for task in tasks
        for entry in entries[task.name]
        if entry.tuned and "bytes" in entry.metrics
    ]
    if len(tasks) < 2 or len({entry.method for entry, _ in known}) < 2:
        return []
    rows: list[dict[str, Any]] = [
        {"method": entry.method, "x": float(f"{entry.metrics['bytes'] / 1000:.4g}")}
        | _interval(score)
        | look(entry.method, colours)
        for entry, score in known
    ]
    full = 100 * sum(entry.metrics["full"] for entry, _ in known) / len(known)
    told = f"Accuracy of {len({row['method'] for row in rows})} methods against the bytes of the file: {name}"
    caption = (
        f"{name}. Mean and 95 % interval over seeds at each setting; the stepped line joins what no other point beats "
        f"in both. Before compression: {full:.1f} %. In colour the best of the board."
    )
    data = {"rows": rows, "front": front(rows), "across": "kB of the file (log scale)", "up": "accuracy (%)"}
    svg = drawing.drawn(drawing.draw_front, data)
    key = stem(track.name, "front", *_slug(tasks[0]))
    return [Figure(key, svg, f"Accuracy against size: {name}", told, caption, stem(track.name, "tasks"), leads=True)]


def _interval(score: Score) -> dict[str, float]:
    """Mean and interval in percent; of one seed the interval is the mean."""
    half = score.half if math.isfinite(score.half) else 0.0
    ends = {"y": score.mean, "low": score.mean - half, "high": score.mean + half}
    return {key: round(100 * value, 2) for key, value in ends.items()}


def _slug(task: Task) -> list[str]:
    loss = task.parts["loss"].method
    bits = task.parts["setting"].activations
    rounded = [f"act{bits}"] if bits else []
    return [task.dataset, task.name.split("/")[1].partition(f"-{loss}-")[0], loss, *rounded]


def front(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The points that no other has more of in fewer bytes, from left to right.

    >>> front([{"x": 1, "y": 5}, {"x": 2, "y": 4}, {"x": 3, "y": 6}])
    [{'x': 1, 'y': 5}, {'x': 3, 'y': 6}]
    """
    found: list[dict[str, float]] = []
    for row in sorted(rows, key=lambda row: (row["x"], -row["y"])):
        if not found or row["y"] > found[-1]["y"]:
            found.append({"x": row["x"], "y": row["y"]})
    return found


def _layers(track: Track, name: str, tasks: Sequence[Task], entries: Entries, ranked: Sequence[str]) -> list[Figure]:
    """Bits or zeros of every layer, of each ranked method."""
    task = tasks[len(tasks) // 2]
    setting: Setting = task.parts["setting"]
    prefix, what = ("bits", "bits a weight, with scales") if setting.bits else ("zeros", "share of zeros (%)")
    order = {method: i for i, method in enumerate(ranked)}
    rows = []
    for entry in sorted((e for e in entries[task.name] if e.method in order), key=lambda e: order[e.method]):
        layers = {key: value for key, value in sorted(entry.metrics.items()) if key.removeprefix(prefix).isdigit()}
        for key, value in layers.items():
            shown = value if setting.bits else 100 * value
            rows.append(
                {"method": entry.method, "layer": int(key.removeprefix(prefix)), "value": float(f"{shown:.3g}")}
            )
    if len({row["layer"] for row in rows}) < 2:
        return []
    rows = [row | {"told": f"{row['value']:g}"} for row in rows]
    label = task.name.split("/")[1]
    told = f"{what.capitalize()} of each layer at {label}: {name}"
    caption = (
        f"{name}, at {label}: {what}, the mean over seeds. Layers in the order in which the network declares them."
    )
    svg = drawing.drawn(drawing.draw_map, {"rows": rows, "across": "layer"})
    key = stem(track.name, "layers", *_slug(task))
    return [Figure(key, svg, f"Layer by layer: {name}", told, caption, stem(track.name, "tasks"))]

"""Charts of the kernel suite: time against size, memory, share of the roofline, and error against time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from lossboard import drawing
from lossboard.board import Board
from lossboard.charts import Figure, highlights, look, short
from lossboard.entries import Entry
from lossboard.markup import metric
from lossboard.names import stem
from lossboard.protocol import Track
from suites.kernels.shapes import COARSER

Entries = Mapping[str, Sequence[Entry]]  # task -> methods


def figures(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """What a kernel engineer looks at first; each where the track has what it needs."""
    ranked = [row for row in board.rows if row.rank]
    colours = highlights(ranked, f"{track.kind}.eager")
    return [
        *_sizes(track, entries, colours),
        *_classes(track, entries, colours),
        *_amounts(track, entries, colours, "extra_bytes", "Memory", "MiB beyond inputs and outputs", 2.0**20),
        *_amounts(
            track,
            entries,
            colours,
            "roofline_share",
            "Share of the roofline",
            "percent of what this machine can do",
            0.01,
        ),
        *_errors(track, entries, colours),
    ]


def _single_rows(track: Track) -> dict[str, int]:
    """Tasks that are one row, and its length."""
    sizes = {task.name: task.parts["shape"].sizes for task in track.tasks}
    return {name: size[1] for name, size in sizes.items() if len(size) == 2 and size[0] == 1}


def _sizes(track: Track, entries: Entries, colours: Mapping[str, str]) -> list[Figure]:
    lengths = _single_rows(track)
    if len(lengths) < 3:
        return []
    rows = [
        {"method": short(track, entry.method), "x": n, "y": float(f"{1e12 * entry.metrics['forward_s'] / n:.4g}")}
        | look(entry.method, colours)
        for name, n in lengths.items()
        for entry in entries[name]
        if "forward_s" in entry.metrics
    ]
    told = f"Time of {track.kind} for each element, of rows of {min(lengths.values())} to {max(lengths.values())}"
    caption = "Picoseconds for each element of one row, the mean over processes of their medians. In colour the best."
    data = {"rows": rows, "across": "elements of the row", "up": "ps an element"}
    svg = drawing.drawn(drawing.draw_sizes, data)
    return [
        Figure(f"{track.name}-sizes", svg, "Time against size", told, caption, stem(track.name, "tasks"), leads=True)
    ]


def _classes(track: Track, entries: Entries, colours: Mapping[str, str]) -> list[Figure]:
    """Memory against the number of classes, of drawn inputs."""
    shapes = {task.name: task.parts["shape"] for task in track.tasks}
    wanted = {
        name: s for name, s in shapes.items() if len(s.sizes) == 3 and (s.inputs, s.precision) == ("zipf", "highest")
    }
    if len({shape.sizes[2] for shape in wanted.values()}) < 2:
        return []
    rows = [
        {"method": short(track, entry.method), "x": shape.sizes[2]}
        | {"y": float(f"{max(entry.metrics['extra_bytes'], 2.0**12) / 2.0**20:.4g}")}
        | look(entry.method, colours)
        for name, shape in wanted.items()
        for entry in entries[name]
        if "extra_bytes" in entry.metrics
    ]
    if not rows:
        return []
    told = f"Memory against the number of classes, of {len({row['method'] for row in rows})} implementations"
    where = ", ".join(name.split("/")[1] for name in wanted)
    caption = f"MiB at the peak beyond inputs and gradients, at {where} (rows x width x classes)."
    svg = drawing.drawn(drawing.draw_sizes, {"rows": rows, "across": "classes", "up": "MiB"})
    return [
        Figure(f"{track.name}-classes", svg, "Memory against classes", told, caption, stem(track.name, "tasks"), True)
    ]


def _largest(track: Track, entries: Entries, key: str) -> tuple[str, list[Entry]] | None:
    """The task with the most work on which this was measured, and its entries that have it."""
    known = {name: [entry for entry in own if key in entry.metrics] for name, own in entries.items()}
    sized = [task for task in track.tasks if known.get(task.name)]
    if not sized:
        return None
    name = max(sized, key=lambda task: _work(task.parts["shape"].sizes)).name
    return name, known[name]


def _work(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _amounts(
    track: Track, entries: Entries, colours: Mapping[str, str], key: str, title: str, across: str, unit: float
) -> list[Figure]:
    found = _largest(track, entries, key)
    if found is None:
        return []
    name, own = found
    bytes_ = key.endswith("_bytes")
    least = 2.0**12 if bytes_ else 0.0
    rows = [
        {"method": short(track, entry.method), "x": float(f"{max(entry.metrics[key], least) / unit:.4g}")}
        | {"told": metric(entry.metrics[key], key)}
        | look(entry.method, colours)
        for entry in sorted(own, key=lambda entry: entry.metrics[key] * (1 if bytes_ else -1))
    ]
    where = name.split("/")[1]
    told = f"{title} of {len(rows)} implementations at {where}: best {rows[0]['method']}, {rows[0]['told']}"
    caption = f"At {where}, the largest shape of the track."
    svg = drawing.drawn(drawing.draw_amounts, {"rows": rows, "across": across, "log": bytes_})
    slug = re.sub("[^a-z]", "", key)
    return [Figure(f"{track.name}-{slug}", svg, title, told, caption, stem(track.name, "tasks"), leads=True)]


def _errors(track: Track, entries: Entries, colours: Mapping[str, str]) -> list[Figure]:
    found = _largest(track, entries, "largest_error")
    if found is None or not any("eps8_s" in entry.metrics for entry in found[1]):
        return []
    name, own = found
    rows = [
        {"method": text, "x": float(f"{seconds:.4g}"), "y": float(f"{error:.3g}"), "named": True}
        | look(entry.method, colours)
        for entry in own
        for text, seconds, error in _settings(short(track, entry.method), entry.metrics)
        if error > 0
    ]
    where = name.split("/")[1]
    data = {"rows": rows, "across": "seconds, forward and backward (log scale)", "log": True, "up": "largest error"}
    told = f"Largest error of a gradient against seconds, of {len(rows)} implementations at {where}"
    caption = (
        f"At {where}: the largest error of a gradient over its largest magnitude. Lower left is best. Approximations "
        "leave out gradients below a threshold: their own, 2^-8 and 2^-16."
    )
    svg = drawing.drawn(drawing.draw_scatter, data | {"log_up": True})
    return [
        Figure(f"{track.name}-errors", svg, "Error against time", told, caption, stem(track.name, "tasks"), leads=True)
    ]


def _settings(name: str, metrics: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Time and error of an implementation, and of its other thresholds."""
    found = [(name, metrics["both_s"], metrics["largest_error"])]
    for other, eps in COARSER.items():
        if f"{other}_s" in metrics:
            found.append((f"{name} 2^{round(math.log2(eps))}", metrics[f"{other}_s"], metrics[f"{other}_error"]))
    return found

"""Charts of the multi-label suite: frequent labels beside rare ones, and what a method gains where labels are rare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lossboard import drawing
from lossboard.board import Board
from lossboard.charts import Figure, highlights, look
from lossboard.drawing import OTHER
from lossboard.entries import Entry
from lossboard.names import stem
from lossboard.protocol import Track
from suites.multilabel.density import DENSITY

Entries = Mapping[str, Sequence[Entry]]  # task -> methods

GROUPS = {"head": "over 100 training rows", "medium": "20 to 100", "tail": "fewer than 20"}


def figures(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """Each where the track has what it needs."""
    ranked = [row.method for row in board.rows if row.rank]
    return [*_groups(track, ranked, entries), *_gains(track, board, entries)]


def _groups(track: Track, ranked: Sequence[str], entries: Entries) -> list[Figure]:
    """Of every method the score of frequent and of rare labels, over the tasks where all have it."""
    prefix, what = ("recall", "mean recall") if track.kind == "longtail" else ("map", "mean average precision")
    rows, counts = [], {}
    for group in GROUPS:
        key = f"{prefix}_{group}"
        known = [
            {entry.method: entry.metrics[key] for entry in own if key in entry.metrics} for own in entries.values()
        ]
        tasks = [each for each in known if each.keys() >= set(ranked)]
        counts[group] = len(tasks)
        for method in ranked if tasks else ():
            mean = 100 * sum(each[method] for each in tasks) / len(tasks)
            rows.append({"method": method, "group": group, "x": float(f"{mean:.4g}")})
    present = [group for group, count in counts.items() if count]
    if len(present) < 2:
        return []
    told = f"{what.capitalize()} of {len(ranked)} methods in groups of labels by how many training rows have them"
    each = ", ".join(f"{group}: {GROUPS[group]} ({counts[group]} tasks)" for group in present)
    caption = f"Of the tuned trials. {each}. Groups are of different labels: compare methods within one."
    order = {method: i for i, method in enumerate(ranked)}
    rows.sort(key=lambda row: order[str(row["method"])])
    svg = drawing.drawn(drawing.draw_groups, {"rows": rows, "across": f"{what} (%)"})
    name = f"{track.name}-groups"
    return [Figure(name, svg, "Frequent and rare labels", told, caption, stem(track.name, "tasks"), leads=True)]


def _gains(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """The difference to the control against the share of entries that are present, data set by data set."""
    control = {"multilabel": "bce"}.get(track.kind)
    ranked = [row for row in board.rows if row.rank]
    if control is None or control not in {row.method for row in ranked}:
        return []
    known: dict[str, dict[str, list[float]]] = {}
    for task in (task for task in track.tasks if task.dataset in DENSITY):
        scores = {entry.method: entry.tuned.mean for entry in entries[task.name] if entry.tuned}
        for row in ranked:
            known.setdefault(task.dataset, {}).setdefault(row.method, []).append(scores[row.method] - scores[control])
    if len(known) < 3:
        return []
    colours = highlights(ranked, control)
    rarest = min(known, key=lambda name: DENSITY[name])
    rows = [
        {"method": method, "x": 100 * DENSITY[name], "y": float(f"{100 * sum(each) / len(each):.4g}")}
        | {"named": name == rarest and method in colours and method != control}
        | look(method, colours)
        for name, own in known.items()
        for method, each in own.items()
        if method != control
    ]
    rows.sort(key=lambda row: row["colour"] == OTHER)
    sets = ", ".join(sorted(known, key=lambda name: DENSITY[name]))
    told = f"Difference to {control} of {len(ranked) - 1} methods against the share of present entries, on {sets}"
    caption = f"Points above {control}, tuned; from left to right {sets}. In colour the best of the board."
    data = {"rows": rows, "across": "present entries (%, log scale)", "log": True, "up": f"points above {control}"}
    svg = drawing.drawn(drawing.draw_scatter, data)
    name = f"{track.name}-imbalance"
    return [Figure(name, svg, "Gain against imbalance", told, caption, stem(track.name, "tasks"), leads=True)]

"""Charts of the calibration suite: reliability, error against accuracy, the reject option, the estimators' own bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lossboard import drawing
from lossboard.board import Board
from lossboard.charts import NAMED, Figure, fence, highlights, look, undominated
from lossboard.drawing import INK, PALETTE, SHAPES
from lossboard.entries import Entry
from lossboard.names import stem
from lossboard.protocol import Track
from lossboard.tables import Table, number

Entries = Mapping[str, Sequence[Entry]]  # task -> methods
CONTROL, CALIBRATOR = "ce", "temperature"
MOST = 4  # reliability diagrams of a track
FEWEST = 2.0  # samples of a bin that is drawn
BINS, Z = 10, 1.96
COVERAGES = tuple(range(10, 101, 10))
SCORES = ("confidence", "margin", "entropy", "logistic", "learned")
BIAS, REJECT, RISKS, RELIABILITY = "estimators", "reject", "risks", "reliability"


def figures(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """What a reader looks at first; each where the track has what it needs."""
    return [
        *_accuracy(track, board, entries),
        *_reliability(track, board, entries),
        *_risk(track, entries),
        *_bias(track),
    ]


def tables(track: Track, board: Board, entries: Entries) -> list[Table]:
    """The numbers of these charts."""
    bins = [
        {"task": task, "method": entry.method, "bin": k, "samples": number(n)}
        | {"confidence": number(conf), "accuracy": number(accuracy), "low": number(low), "high": number(high)}
        for task, own in entries.items()
        for entry in own
        for k, n, conf, accuracy, low, high in _bins(entry)
    ]
    rejects = [
        {"task": task, "score": name, "aurc": number(control.metrics[f"reject_{name}_aurc"])}
        | {f"{what}_at_5": number(control.metrics[f"reject_{name}_{what}"]) for what in ("accepted", "risk")}
        for task, control in _controls(entries)
        for name in SCORES
    ]
    found = [
        Table(stem(track.name, RELIABILITY), "Confidence and accuracy, bin by bin", bins),
        Table(stem(track.name, REJECT), "The control's reject option, task by task: thresholds set for 5 %", rejects),
        Table(stem(track.name, RISKS), "Risk against coverage, the control's predictions", _risks(entries)),
        Table(stem(track.name, BIAS), "The estimators' own bias, on simulated predictions", _biases()),
    ]
    return [table for table in found if table.rows]


def wilson(hits: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of n samples (Wilson, JASA 1927).

    >>> low, high = wilson(50, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    p, grown = hits / n, n + Z**2
    centre, half = (hits + Z**2 / 2) / grown, Z / grown * math.sqrt(max(p * (1 - p), 0) * n + Z**2 / 4)
    return max(centre - half, 0.0), min(centre + half, 1.0)


# -- reliability ------------------------------------------------------------------------------------------------------


def _bins(entry: Entry) -> Iterator[tuple[int, float, float, float, float, float]]:
    """Bin, samples of a seed, mean confidence, accuracy and the ends of its interval, of the bins that have a sample.

    The interval is that of one seed's samples: the seeds of most tasks share their test rows.
    """
    for k in range(1, BINS + 1):
        n, conf, right = (entry.metrics.get(f"bin{k:02}_{what}", 0.0) for what in ("n", "conf", "right"))
        if n > 0:
            yield k, n, conf / n, right / n, *wilson(right, n)


def _reliability(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """The control, a calibrator behind it and the best method, on each task."""
    best = next((row.method for row in board.rows if row.rank and row.method not in (CONTROL, CALIBRATOR)), "")
    found: list[Figure] = []
    for task in list(entries)[:MOST]:
        known = {entry.method: entry for entry in entries[task]}
        shown = [id for id in (CONTROL, CALIBRATOR, best) if id in known]
        marks = dict(zip(shown, (INK, *PALETTE), strict=False))
        rows = [
            {"method": id, "x": _percent(conf), "y": _percent(accuracy), "low": _percent(low), "high": _percent(high)}
            | {"n": float(f"{n:.4g}"), **look(id, marks)}
            for id in shown
            for _, n, conf, accuracy, low, high in _bins(known[id])
            if n >= FEWEST
        ]
        if not rows:
            continue
        said = ", ".join(f"{id} {_percent(known[id].metrics['ece']):.1f} %" for id in shown)
        caption = (
            f"On {task}: accuracy in 10 bins of confidence with 95 % intervals of a seed's test rows, and how many "
            "rows a bin has (log scale, from two on), means over seeds. On the dashed line confidence is right. "
            f"Expected calibration error: {said}."
        )
        data = {"rows": rows, "names": [[id, marks[id]] for id in shown]}
        svg = drawing.drawn(drawing.draw_reliability, data)
        label = f"Reliability diagram of {', '.join(shown)} on {task}; expected calibration error {said}"
        name = f"{track.name}-reliability-{stem(task)}"
        numbers = stem(track.name, RELIABILITY)
        found.append(Figure(name, svg, f"Reliability on {task}", label, caption, numbers, leads=not found))
    return found


def _percent(share: float) -> float:
    return float(f"{100 * share:.2f}")


# -- accuracy ---------------------------------------------------------------------------------------------------------


def _accuracy(track: Track, board: Board, entries: Entries) -> list[Figure]:
    """A dot a method: its calibration error across, its accuracy up."""
    ranked = [row for row in board.rows if row.rank]
    colours = highlights(ranked, CONTROL)
    points: list[tuple[str, float, float]] = []
    for row in ranked:
        own = [entry for each in entries.values() for entry in each if entry.method == row.method and entry.metrics]
        if len(own) == len(entries):
            error, accuracy = (sum(e.metrics[key] for e in own) / len(own) for key in ("smooth_ece", "accuracy"))
            points.append((row.method, error, accuracy))
    if len(points) < 2:
        return []
    front = undominated([(error, accuracy) for _, error, accuracy in points])
    most, least = fence([error for _, error, _ in points])[1], fence([accuracy for *_, accuracy in points])[0]
    far = [id for id, error, accuracy in points if error > most or accuracy < least]
    rows = [
        {"method": id, "x": _percent(error), "y": _percent(accuracy), "named": id in colours or i in front}
        | look(id, colours)
        for i, (id, error, accuracy) in enumerate(points)
        if id not in far
    ]
    data = {"rows": rows, "across": "smooth calibration error (%)", "log": False, "up": "accuracy (%)"}
    caption = (
        "Of the tuned trials, means over all tasks. Best is the upper left: what predicts base rates has no "
        f"calibration error and little accuracy. {NAMED}"
    )
    caption += f" Outside the plot, far from the others: {', '.join(far)}." if far else ""
    label = f"Accuracy of {len(points)} methods against their smooth calibration error"
    svg = drawing.drawn(drawing.draw_scatter, data)
    numbers = stem(track.name, "tuned")
    return [Figure(f"{track.name}-accuracy", svg, "Accuracy and calibration", label, caption, numbers, leads=True)]


# -- the reject option ------------------------------------------------------------------------------------------------


def _controls(entries: Entries) -> list[tuple[str, Entry]]:
    """The tasks on which rejecting was measured, with the control's entry."""
    found = [(task, entry) for task, own in entries.items() for entry in own if entry.method == CONTROL]
    return [(task, entry) for task, entry in found if f"reject_{SCORES[0]}_aurc" in entry.metrics]


def _risks(entries: Entries) -> list[dict[str, Any]]:
    """Of each score and coverage the risk, all tasks' test rows together, with the ends of its interval."""
    controls = _controls(entries)
    found: list[dict[str, Any]] = []
    sizes = [sum(entry.metrics[f"bin{k:02}_n"] for k in range(1, BINS + 1)) for _, entry in controls]
    for name in SCORES if controls else ():
        for c in COVERAGES:
            n = sum(size * c / 100 for size in sizes)
            risks = [entry.metrics[f"reject_{name}_at{c}"] for _, entry in controls]
            errors = sum(risk * size * c / 100 for risk, size in zip(risks, sizes, strict=True))
            low, high = wilson(errors, n)
            found.append(
                {
                    "score": name,
                    "coverage": c / 100,
                    "risk": number(errors / n),
                    "low": number(low),
                    "high": number(high),
                }
            )
    return found


def _risk(track: Track, entries: Entries) -> list[Figure]:
    found = _risks(entries)
    if not found:
        return []
    rows = [
        {"name": each["score"], "x": 100 * each["coverage"], "y": _percent(each["risk"])}
        | {end: _percent(each[end]) for end in ("low", "high")}
        | _line(SCORES.index(each["score"]))
        for each in found
    ]
    tasks = [task for task, _ in _controls(entries)]
    caption = (
        f"Errors among the predictions of {CONTROL} that are accepted, by how many are: by thresholds on confidence, "
        "margin and entropy, by a logistic regression, and by the learned rejector, both fitted to validation rows. "
        f"All test rows of {len(tasks)} tasks together, means over seeds, with 95 % intervals of one seed's rows."
    )
    label = f"Risk against coverage for {', '.join(SCORES)}"
    data = {"rows": rows, "across": "coverage (%)", "up": "errors among the accepted (%)"}
    svg = drawing.drawn(drawing.draw_lines, data)
    numbers = stem(track.name, RISKS)
    return [Figure(f"{track.name}-risk", svg, "Risk and coverage", label, caption, numbers, leads=True)]


def _line(place: int) -> dict[str, str]:
    """Colour and shape of a line: ink first."""
    if place == 0:
        return {"colour": INK, "shape": "circle"}
    return {"colour": PALETTE[(place - 1) % len(PALETTE)], "shape": SHAPES[(place - 1) % len(SHAPES)]}


# -- the estimators ---------------------------------------------------------------------------------------------------


def _biases() -> list[dict[str, Any]]:
    from suites.calibration.bias import lines

    return [
        {"case": each.case, "truth": number(each.truth), "estimator": each.estimator, "samples": each.samples}
        | {"bias": number(each.bias), "low": number(each.bias - each.margin), "high": number(each.bias + each.margin)}
        for each in lines()
    ]


def _bias(track: Track) -> list[Figure]:
    """How far each estimator's mean lies from the truth, for calibrated predictions and for others."""
    from reference.metrics.kernel import SAMPLES

    found = []
    rows = _biases()
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        points = [
            {"name": row["estimator"], "x": row["samples"], "y": _percent(row["bias"])}
            | {end: _percent(row[end]) for end in ("low", "high")}
            | _line(names.index(row["estimator"]))
            for row in own
        ]
        truth = _percent(own[0]["truth"])
        caption = (
            f"Simulated predictions of ten classes that are {case}, with a true calibration error of {truth:g} %: the "
            "mean estimate less the truth, with two standard errors. Part of what a small test set shows is its own. "
            "The kernel estimate's bandwidth is chosen by the likelihood of the confidences, beyond "
            f"{SAMPLES:,} samples by that of as many quantiles, which is wider."
        )
        data = {"rows": points, "across": "test samples (log scale)", "up": "bias (points)", "log": True}
        svg = drawing.drawn(drawing.draw_lines, data)
        label = (
            f"Bias of {len(names)} estimators of calibration error against the number of samples, {case} predictions"
        )
        name = f"{track.name}-bias-{case.replace(' ', '-')}"
        title = f"The estimators' bias, {case}"
        found.append(Figure(name, svg, title, label, caption, stem(track.name, BIAS)))
    return found

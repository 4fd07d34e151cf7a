"""Tables for programs: every table of the site as CSV, JSON and Parquet, the same bytes at every build."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lossboard import board, charts, paths
from lossboard.board import Board, Score
from lossboard.markup import spell
from lossboard.names import stem
from lossboard.protocol import Suite, Task, Track
from lossboard.scales import Scale

if TYPE_CHECKING:
    from lossboard.entries import Entry
    from lossboard.views import SuiteView, TrackView
    from reference.curves import Curves

DIGITS = 8  # significant: more than a record has
KINDS = {  # of columns, by name; all others hold numbers, or text where a suite names them
    **dict.fromkeys(("track", "task", "id", "dataset", "data", "noise", "split", "network", "seeds_pinned"), "text"),
    **dict.fromkeys(("method", "summary", "citation", "formula", "tags", "defaults", "params", "batches"), "text"),
    **dict.fromkeys(("measured_first", "measured_last", "datasets"), "text"),
    **dict.fromkeys(("claim", "statement", "source", "evidence", "claim_verdict", "ours", "other", "asks"), "text"),
    **dict.fromkeys(("metric", "on", "verdict", "tasks", "reason"), "text"),
    **dict.fromkeys(("machine", "environment", "benchmark", "setting", "commit", "day", "unit"), "text"),
    **dict.fromkeys(("rank_low", "rank_high", "group", "failures", "seeds", "trial", "trials"), "count"),
    **dict.fromkeys(("epochs", "batch"), "count"),
    "stale": "flag",
}

Line = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows with the same keys. A number that does not exist is None."""

    name: str  # of its files, without suffix
    title: str
    rows: Sequence[Line]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.rows[0]) if self.rows else ()

    def files(self) -> dict[str, str | bytes]:
        """File name -> content, in every format."""
        return {f"{self.name}.{suffix}": write(self) for suffix, write in FORMATS.items()}


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_plain, table.columns))
    writer.writerows(map(_plain, row.values()) for row in table.rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """A value as CSV has it. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def _json(table: Table) -> str:
    lines = ",\n".join(map(json.dumps, table.rows))
    return f'{{"title": {json.dumps(table.title)}, "rows": [\n{lines}\n]}}\n'


def _parquet(table: Table) -> bytes:
    import pyarrow
    from pyarrow import parquet

    types = {"text": pyarrow.string(), "count": pyarrow.int64(), "flag": pyarrow.bool_(), "number": pyarrow.float64()}
    arrays = [
        pyarrow.array([_valid(row[name]) for row in table.rows], types[_kind(table, name)]) for name in table.columns
    ]
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=[_valid(name) for name in table.columns]), out)
    return out.getvalue()


def _kind(table: Table, name: str) -> str:
    """What a column holds: by its name, or where a suite named it, text if there is some."""
    text = any(isinstance(row[name], str) for row in table.rows)
    return KINDS.get(name, "text" if text else "number")


def _valid(value: Any) -> Any:
    """A text without lone surrogates, which UTF-8 cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


FORMATS: dict[str, Callable[[Table], str | bytes]] = {"csv": _csv, "json": _json, "parquet": _parquet}


def interval(mean: float, half: float, scale: Scale) -> tuple[float | None, float | None]:
    """A mean and half the width of its interval, as values of the metric that records have."""
    known = math.isfinite(mean)
    return number(scale.outward(mean)) if known else None, number(scale.width(mean, half)) if known else None


def number(value: float | None) -> float | None:
    """A number as tables hold it; None where there is none."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


# -- of a suite --------------------------------------------------------------------------------------------------------


def of_suite(view: SuiteView, shapes: Mapping[str, Curves | str]) -> list[Table]:
    """The tables of what a suite compares, and on what; with the curves of its losses."""
    tables = [
        Table("methods", "The methods of the suite", [_method(view, id) for id in view.ids]),
        Table("tasks", "The tasks of every track, as they are pinned", _pins(view)),
        Table("claims", "Claims of papers, comparison by comparison", _claims(view)),
        Table("curves", "The shapes of the losses", _curves(shapes)),
    ]
    return [table for table in tables if table.rows]


def of_track(view: SuiteView, shown: TrackView) -> list[Table]:
    """Both boards, every method on every task, and scores against the noise rate where a chart shows them."""
    track, metrics = shown.track.name, tuple(view.suite.metrics.columns)
    results = [
        _result(shown.task(task).id, task, entry, metrics, view.scale)
        for task, entries in shown.entries.items()
        for entry in entries
    ]
    tables = [
        Table(stem(track, "tuned"), "Board, tuned", _board(shown, shown.tuned, metrics)),
        Table(stem(track, "default"), "Board, authors' defaults", _board(shown, shown.default, ())),
        Table(stem(track, "tasks"), "Every method on every task", results),
        Table(stem(track, "noise"), "Scores against the noise rate", _noise(shown)),
    ]
    own = _of_suite_itself(view.suite)
    tables += own(shown.track, shown.tuned, shown.entries) if own else []
    return [table for table in tables if table.rows]


def _of_suite_itself(suite: Suite) -> Callable[[Track, Board, Mapping[str, Sequence[Entry]]], list[Table]] | None:
    """What makes tables of the numbers in a suite's own charts, ``tables`` in its charts.py; None where it has none."""
    if not (paths.suites() / suite.name / "charts.py").is_file():
        return None
    paths.importable()
    return getattr(importlib.import_module(f"suites.{suite.name}.charts"), "tables", None)


def _method(view: SuiteView, id: str) -> Line:
    method = view.methods.get(id)
    return {
        "method": id,
        "summary": method.summary if method else None,
        "citation": method.citation if method else None,
        "formula": method.formula if method and method.formula else None,
        "tags": " ".join(method.tags) if method else None,
        "defaults": json.dumps(dict(method.defaults), sort_keys=True) if method else None,
    }


def _claims(view: SuiteView) -> list[Line]:
    return [
        {
            "claim": each.claim.id,
            "statement": each.claim.statement,
            "source": each.claim.source,
            "evidence": each.claim.evidence,
            "claim_verdict": each.verdict,
            "track": one.track,
            "ours": found.part.ours,
            "other": found.part.other,
            "asks": found.part.asks,
            "metric": found.part.metric or view.suite.metrics.rank,
            "on": found.part.where,
            "verdict": found.verdict,
            "effect": number(found.effect),
            "low": number(found.low),
            "high": number(found.high),
            "tasks": " ".join(found.tasks),
            "seeds": found.seeds,
            "reason": found.reason,
        }
        for each in view.claims
        for one in each.verdicts
        for found in one.findings
    ]


def _pins(view: SuiteView) -> list[Line]:
    lines = [
        {
            "track": track.name,
            "task": task.name,
            "id": task.id,
            "dataset": task.dataset,
            "data": task.data,
            **_parts(task),
            "seeds_pinned": " ".join(map(str, block.seeds)),
            "trials": len(block.budget.learning_rates(task.rate, "")),
        }
        for track in view.suite.tracks.values()
        for block in track.blocks
        for task in block.tasks
    ]
    names = dict.fromkeys(name for line in lines for name in line)  # tasks may leave parts out
    return [{name: line.get(name) for name in names} for line in lines]


def _parts(task: Task) -> Line:
    """What a task is made of: of those that train, what people look for first; of others, every field."""
    if {"recipe", "corruption"} <= task.parts.keys():
        return {
            "noise": task.corruption.kind,
            "rate": task.corruption.rate,
            "split": task.split.kind,
            "network": task.model.kind,
            "epochs": task.recipe.epochs,
            "batch": task.recipe.batch,
            "lr": task.recipe.lr,
        }
    return {section: spell(part) for section, part in task.parts.items()}


def _curves(shapes: Mapping[str, Curves | str]) -> list[Line]:
    return [
        {"method": id, "margin": margin, "probability": p, "loss": value, "gradient": weight}
        for id, own in shapes.items()
        if not isinstance(own, str)
        for margin, p, value, weight in zip(own.margins, own.probabilities, own.values, own.weights, strict=True)
    ]


def _board(view: TrackView, shown: board.Board, metrics: Sequence[str]) -> list[Line]:
    """A row a method, as on the board; with the means over tasks of these metrics of its tuned trials."""
    tested = board.friedman(shown, view.track)
    mean_ranks = dict(zip(tested[0], tested[1].mean_ranks, strict=True)) if tested else {}
    lines = []
    for row in shown.rows:
        low, high = row.rank or (None, None)
        days = view.days.get(row.method) or (None,)
        mean, half = interval(row.score, row.half, shown.scale)
        line: Line = {"method": row.method, "rank_low": low, "rank_high": high, "group": row.group}
        line |= {"mean_rank": number(mean_ranks.get(row.method)), "mean": mean, "half": half}
        line |= {"coverage": number(row.coverage), "stale": row.stale, "failures": row.failures}
        line |= {"measured_first": days[0], "measured_last": days[-1]}
        own = view.measures.get(row.method, {})
        line |= {f"mean_{name}": number(own.get(name)) for name in ((*metrics, "seconds") if metrics else ())}
        for task in shown.tasks:
            score = row.tasks.get(task)
            both = interval(score.mean, score.half, shown.scale) if score else (None, None)
            line |= dict(zip((task, f"{task} half"), both, strict=True))
        lines.append(line)
    return lines


def _result(id: str, task: str, entry: Entry, metrics: Sequence[str], scale: Scale) -> Line:
    line: Line = {"task": task, "id": id, "method": entry.method, "stale": entry.stale}
    line |= _score(entry.tuned, scale)
    line |= {f"default_{key}": value for key, value in list(_score(entry.default, scale).items())[:2]}
    line |= {name: number(entry.metrics.get(name)) for name in metrics}
    return line | {"seconds": number(entry.seconds), "batches": " ".join(entry.files)}


def _score(score: Score | None, scale: Scale) -> Line:
    if score is None:
        return dict.fromkeys(("mean", "half", "seeds", "trial", "params", "failures"))
    mean, half = interval(score.mean, score.half, scale)
    return {
        "mean": mean,
        "half": half,
        "seeds": len(score.seeds),
        "trial": score.trial,
        "params": json.dumps({key: number(value) for key, value in sorted(score.params.items())}),
        "failures": score.failures,
    }


def _noise(view: TrackView) -> list[Line]:
    return [
        {
            "noise": name,
            "rate": rate,
            "method": row.method,
            "mean": number(sum(row.tasks[task].mean for task in names) / len(names)),
            "datasets": " ".join(datasets),
        }
        for name, (levels, datasets) in charts.noises(view.track.tasks).items()
        for row in view.tuned.rows
        if row.rank
        for rate, names in levels.items()
    ]

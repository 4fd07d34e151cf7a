"""Tables for programs: every table of the site as CSV, JSON and Parquet, the same bytes at every build."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lossboard import board, charts
from lossboard.names import stem

if TYPE_CHECKING:
    from lossboard.views import Entry, SuiteView, TrackView

DIGITS = 8  # significant: more than a record has


@dataclass(frozen=True)
class Table:
    """Rows of one kind. A column's type is that of its values; a number that does not exist is None."""

    name: str  # of its files, without suffix
    title: str
    columns: Mapping[str, str]  # name -> "text", "number", "count" or "flag"
    rows: Sequence[Sequence[Any]]

    def files(self) -> dict[str, str | bytes]:
        """File name -> content, in every format."""
        return {f"{self.name}.{suffix}": write(self) for suffix, write in FORMATS.items()}


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_plain(value) for value in row] for row in table.rows)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """A value as CSV has it. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def _json(table: Table) -> str:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{{"title": {json.dumps(table.title)}, "rows": [\n{lines}\n]}}\n'


def _parquet(table: Table) -> bytes:
    import pyarrow
    from pyarrow import parquet

    kinds = {"text": pyarrow.string(), "number": pyarrow.float64(), "count": pyarrow.int64(), "flag": pyarrow.bool_()}
    cells = [[_valid(row[i]) for row in table.rows] for i in range(len(table.columns))]
    arrays = [pyarrow.array(cell, kinds[kind]) for cell, kind in zip(cells, table.columns.values(), strict=True)]
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=[_valid(name) for name in table.columns]), out)
    return out.getvalue()


def _valid(value: Any) -> Any:
    """A text without lone surrogates, which UTF-8 cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


FORMATS: dict[str, Callable[[Table], str | bytes]] = {"csv": _csv, "json": _json, "parquet": _parquet}


def number(value: float | None) -> float | None:
    """A number as tables hold it; None where there is none."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


# -- of a suite --------------------------------------------------------------------------------------------------------


def of_suite(view: SuiteView) -> list[Table]:
    """The tables of what a suite compares, and on what."""
    return [_methods(view), _tasks(view)]


def of_track(view: SuiteView, track: TrackView) -> list[Table]:
    """Both boards, every method on every task, and scores against the noise rate where the track has a chart of them."""
    noise = _noise(track)
    boards = [_board(view, track, shown) for shown in track.boards]
    return [*boards, _results(view, track), *([noise] if noise.rows else [])]


def _methods(view: SuiteView) -> Table:
    known = [(id, view.methods.get(id)) for id in view.ids]
    rows = [
        (
            *(id, method.summary if method else None, method.citation if method else None),
            *(method.formula or None if method else None, ", ".join(method.tags) if method else None),
            json.dumps(dict(method.defaults), sort_keys=True) if method else None,
        )
        for id, method in known
    ]
    columns = dict.fromkeys(("method", "summary", "citation", "formula", "tags", "defaults"), "text")
    return Table("methods", "The methods of the suite", columns, rows)


def _tasks(view: SuiteView) -> Table:
    rows = [
        (
            *(track.name, task.name, task.id, task.dataset, task.data, task.corruption.kind, task.corruption.rate),
            *(task.split.kind, task.model.kind, task.recipe.epochs, task.recipe.batch, task.recipe.lr),
            *(" ".join(map(str, block.seeds)), len(block.budget.learning_rates(task.recipe, ""))),
        )
        for track in view.suite.tracks.values()
        for block in track.blocks
        for task in block.tasks
    ]
    columns = {
        **dict.fromkeys(("track", "task", "id", "dataset", "data", "noise"), "text"),
        **{"rate": "number", "split": "text", "network": "text", "epochs": "count", "batch": "count", "lr": "number"},
        **{"seeds": "text", "trials": "count"},
    }
    return Table("tasks", "The tasks of every track, as they are pinned", columns, rows)


def _board(view: SuiteView, track: TrackView, shown: board.Board) -> Table:
    tested = board.friedman(shown, track.track)
    mean_ranks = dict(zip(tested[0], tested[1].mean_ranks, strict=True)) if tested else {}
    measured = track.measures if shown.kind == "tuned" else {}
    extra = [name for name in (*view.suite.metrics.columns, "seconds") if any(name in m for m in measured.values())]
    rows = []
    for row in shown.rows:
        low, high = row.rank or (None, None)
        own = measured.get(row.method, {})
        scores = [number(row.tasks[task].mean) if task in row.tasks else None for task in shown.tasks]
        halves = [number(row.tasks[task].half) if task in row.tasks else None for task in shown.tasks]
        rows.append(
            (
                *(row.method, low, high, row.group, number(mean_ranks.get(row.method)), number(row.score)),
                *(number(row.half), number(row.coverage), row.stale, row.failures),
                *(track.days.get(row.method, (None,))[0], track.days.get(row.method, (None,))[-1]),
                *(number(own.get(name)) for name in extra),
                *(value for pair in zip(scores, halves, strict=True) for value in pair),
            )
        )
    columns = {
        **{"method": "text", "rank_low": "count", "rank_high": "count", "group": "count", "mean_rank": "number"},
        **{"mean": "number", "half": "number", "coverage": "number", "stale": "flag", "failures": "count"},
        **{"measured_first": "text", "measured_last": "text"},
        **{f"mean_{name}": "number" for name in extra},
        **{f"{task}{part}": "number" for task in shown.tasks for part in ("", " half")},
    }
    kind = "tuned" if shown.kind == "tuned" else "author's defaults"
    return Table(stem(shown.track, shown.kind), f"Board, {kind}", columns, rows)


def _results(view: SuiteView, track: TrackView) -> Table:
    names = list(view.suite.metrics.columns)
    rows = [
        _result(track.task(task).id, task, entry, names) for task, entries in track.entries.items() for entry in entries
    ]
    columns = {
        **{"task": "text", "id": "text", "method": "text", "mean": "number", "half": "number", "seeds": "count"},
        **{"trial": "count", "params": "text", "failures": "count", "default_mean": "number", "default_half": "number"},
        **{"stale": "flag", **dict.fromkeys(names, "number"), "seconds": "number", "batches": "text"},
    }
    return Table(stem(track.track.name, "tasks"), "Every method on every task", columns, rows)


def _result(id: str, task: str, entry: Entry, names: Iterable[str]) -> tuple[Any, ...]:
    tuned, default = entry.tuned, entry.default
    first = (number(tuned.mean), number(tuned.half), len(tuned.seeds), tuned.trial) if tuned else (None,) * 4
    params = json.dumps({key: number(value) for key, value in sorted(tuned.params.items())}) if tuned else None
    return (
        *(task, id, entry.method, *first, params, tuned.failures if tuned else None),
        *(number(default.mean) if default else None, number(default.half) if default else None, entry.stale),
        *(number(entry.metrics.get(name)) for name in names),
        *(number(entry.seconds), " ".join(entry.files)),
    )


def _noise(track: TrackView) -> Table:
    ranked = [row for row in track.tuned.rows if row.rank]
    rows = [
        (name, rate, row.method, number(sum(row.tasks[task].mean for task in names) / len(names)), " ".join(datasets))
        for name, (levels, datasets) in charts.noises(track.track.tasks).items()
        for row in ranked
        for rate, names in levels.items()
    ]
    columns = {"noise": "text", "rate": "number", "method": "text", "mean": "number", "datasets": "text"}
    return Table(stem(track.track.name, "noise"), "Scores against the noise rate", columns, rows)

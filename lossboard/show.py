"""What the terminal shows: progress with time left, boards, plans. Formatting lives here, at the edge."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lossboard.board import Board, Row, Score
from lossboard.claims import Assessment, Finding
from lossboard.markup import metric
from lossboard.records import Record
from lossboard.statistics import FEWEST

if TYPE_CHECKING:
    from lossboard.comparison import Comparison
    from lossboard.entries import Entry
    from lossboard.fidelity import Card
    from lossboard.reproduced import Reproduction

console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)  # contributed text
errors = Console(stderr=True, markup=False, highlight=False)

Report = Callable[[float, list[Record]], None]


def duration(seconds: float | None) -> str:
    """Seconds as people say them; '?' if not known.

    >>> duration(75), duration(4), duration(None)
    ('1 min 15 s', '4 s', '?')
    """
    if seconds is None or not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bold(text: object) -> Text:
    return Text(str(text), style="bold")


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{duration(task.time_remaining)} left" if task.completed else "", style="cyan")


@contextmanager
def progress(title: str, cells: int, cost: float) -> Iterator[Report]:
    """A bar on a terminal, a line every ten seconds elsewhere; yields what to call as units finish."""
    if not console.is_terminal:
        yield _lines(title, cells, cost)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]:,}/{task.fields[cells]:,} cells"),
        TimeElapsedColumn(),
        _TimeLeft(),
        TextColumn("{task.fields[last]}", style="dim"),
    )
    with Progress(*columns, console=console, speed_estimate_period=3600) as bar:
        task = bar.add_task(title, total=cost, cells=cells, done=0, last="")
        done = 0

        def report(part: float, finished: list[Record]) -> None:
            nonlocal done
            done += len(finished)
            last = f"{finished[-1].method} {finished[-1].task.split('/')[0]}" if finished else ""
            bar.update(task, advance=part, done=done, last=last)

        yield report


def _lines(title: str, cells: int, cost: float) -> Report:
    start = shown = time.monotonic()
    spent, done = 0.0, 0

    def report(part: float, finished: list[Record]) -> None:
        nonlocal spent, done, shown
        spent, done, now = spent + part, done + len(finished), time.monotonic()
        if now - shown >= 10:
            shown = now
            print(f"{title}: {done:,}/{cells:,} cells, {duration((now - start) * (cost / spent - 1))} left", flush=True)

    return report


def board_table(board: Board, marks: dict[str, str] | None = None) -> Table:
    """The board as a terminal table; a line between tie groups. ``marks`` annotates methods."""
    kind = f" · {board.kind}" if board.kind != "tuned" or board.tunes else ""
    what = f"{board.suite} · {board.track}{kind}: {board.metric} ({board.scale.unit.strip()})"
    title = f"{what}, mean ± 95 % t interval, {_seeds(len(board.seeds))}"
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    shown = board.tasks if len(board.tasks) <= 8 else ()
    wide = console.width >= 30 + 11 * len(shown)
    for name in shown:
        short = name.split("/", 1)[1] if _one_dataset(board) else name
        table.add_column(short.replace("-", "\n"), justify="right", no_wrap=True)
    notes = [" ".join(filter(None, (_note(row), (marks or {}).get(row.method, "")))) for row in board.rows]
    if any(notes):
        table.add_column("", style="dim")
    for i, row in enumerate(board.rows):
        after = board.rows[i + 1] if i + 1 < len(board.rows) else None
        note = notes[i : i + 1] if any(notes) else []
        scores = [score(board, row.tasks.get(name), wide) for name in shown]
        mean = board.scale.interval(row.score, row.half)
        table.add_row(
            rank(row), row.method, mean, *scores, *note, end_section=after is not None and after.group != row.group
        )
    return table


def details_table(board: Board, entries: Mapping[str, Sequence[Entry]], beside: Sequence[str]) -> Table:
    """Every method on every task, the best first, with what was measured beside the score."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("task", "method", board.metric, *beside, ""):
        table.add_column(name, no_wrap=True, justify="left" if name in ("task", "method", "") else "right")
    for task, own in entries.items():
        for i, entry in enumerate(own):
            values = [metric(entry.metrics[key], key) if key in entry.metrics else "" for key in beside]
            failed = entry.tuned is not None and entry.tuned.failures > 0
            mean = "" if failed else score(board, entry.tuned)
            table.add_row(bold("" if i else task), entry.method, mean, *values, "failed" if failed else "")
        table.add_section()
    return table


def reproductions_table(found: Sequence[Reproduction]) -> Table:
    """Cells that were measured again, those that differ first."""
    from lossboard.reproduced import VERDICTS

    table = Table(box=box.SIMPLE_HEAD)
    for name, side in (("cell", "left"), ("verdict", "left"), ("differs most", "right"), ("in", "left")):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    order = {verdict: -place for place, verdict in enumerate(VERDICTS)}
    for each in sorted(found, key=lambda each: (order[each.verdict], each.record.key)):
        record = each.record
        largest = f"{each.largest:.3g}" if math.isfinite(each.largest) and each.metric else ""
        cell = f"{record.method}/{record.task}/{record.seed}/{record.trial}"
        table.add_row(Text(cell), each.verdict, largest, Text(each.metric))
    return table


def fidelity_card(found: Card) -> Table:
    """What was found of a loss, line by line."""
    table = Table(title=f"{found.id}, at the author's defaults", title_justify="left", box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def span(ends: tuple[float, float]) -> str:
        return f"{ends[0]:.6g} to {ends[1]:.6g}"

    for logits, values in found.values.items():
        table.add_row(
            f"at {', '.join(f'{z:g}' for z in logits)}", ", ".join(f"{v:.8g}" for v in values) + "  for each label"
        )
    constant = found.sums[1] - found.sums[0] <= 1e-9 * max(1.0, abs(found.sums[0]))
    sums = f"{found.sums[0]:.8g} at every logits: symmetric" if constant else f"{span(found.sums)}: not symmetric"
    table.add_row("sum over labels", sums if math.isfinite(found.sums[0]) else "a batchwise loss has none")
    table.add_row("values", f"{span(found.range)}, over drawn logits and logits of 1e4")
    table.add_row("at logits of 1e4", "values and gradients are finite" if found.finite else "NOT FINITE")
    table.add_row("gradient", f"off by {found.gradient:.1e} of the largest slope from finite differences")
    table.add_row("the same as", Text("; ".join(found.same) or "no other loss of the catalogue"))
    table.add_row("time", f"{found.time_s / found.plain_s:.2f} times ce ({found.time_s * 1e3:.2f} ms)")
    table.add_row("memory", f"{found.memory_bytes / 2**20:.1f} MiB beside {found.plain_bytes / 2**20:.1f} of ce")
    return table


def comparison_table(found: Comparison) -> Table:
    """One method, batch or commit beside another: the mean over the tasks that both have, then each task."""
    scale, kinds = found.scale, found.scale.apart
    title = f"{found.ours} less {found.theirs} on {found.track}, {kinds}, 95 % t interval of differences paired by seed"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name, side in (("task", "left"), (found.ours, "right"), (found.theirs, "right"), ("difference", "right")):
        table.add_column(Text(name), justify=side, overflow="fold")  # type: ignore[arg-type]
    table.add_column("cells with the same bits", justify="right")
    for line in found.lines:
        apart = line.difference
        text = "" if apart is None else scale.difference(apart[0]) + scale.half(*apart)
        same = f"{line.same_bits:,} of {line.cells:,}" if line.cells else ""
        table.add_row(Text(line.task), scale.interval(*line.ours), scale.interval(*line.theirs), text, same)
    return table


def claims_table(found: Sequence[Assessment]) -> Table:
    """Every claim with its verdict, and the comparisons that decide it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("verdict", "claim", "beside", "effect (interval)", ""):
        table.add_column(name, no_wrap=name in ("verdict", "beside"))
    for each in found:
        head = f"{each.claim.id}: {each.claim.statement}"
        table.add_row(bold(each.verdict), bold(head), "", "", "")
        for track, one in ((shown.track, one) for shown in each.shown for one in shown.findings):
            beside = f"{one.part.ours} – {one.part.other}"
            table.add_row(one.verdict, f"  {about(one)}", beside, one.words or one.reason, track)
        for other in each.dissenting:
            table.add_row(other.verdict, "  on a track of fewer datasets", "", "", other.track)
        table.add_section()
    return table


def about(found: Finding) -> str:
    """'better, top5: uniform noise, 3 tasks of 1 dataset, 10 seeds'."""
    part = found.part
    metric = f", {part.metric}{' (smaller is better)' if part.smaller else ''}" if part.metric else ""
    where = f"{part.asks}{metric}: {part.where}"
    if not found.tasks:
        return where
    datasets = len({task.split("/")[0] for task in found.tasks})
    tasks = f"{len(found.tasks)} task{'s' if len(found.tasks) > 1 else ''}"
    return f"{where}; {tasks} of {datasets} dataset{'s' if datasets > 1 else ''}, {found.seeds} seeds"


def board_markdown(board: Board) -> str:
    """The ranked methods as a Markdown table."""
    names = [name.split("/", 1)[1] if _one_dataset(board) else name for name in board.tasks]
    lines = [f"| rank | method | mean | {' | '.join(names)} |", f"|--:|:--|--:|{'--:|' * len(names)}"]
    for row in board.rows:
        scores = " | ".join(score(board, row.tasks.get(name)) for name in board.tasks)
        lines.append(f"| {rank(row)} | `{row.method}` | {board.scale.interval(row.score, row.half)} | {scores} |")
    return "\n".join(lines)


def _seeds(count: int) -> str:
    few = f": fewer than {FEWEST}, so nothing is told apart" if count < FEWEST else ""
    return f"{count} seed{'s' if count > 1 else ''}{few}"


def _one_dataset(board: Board) -> bool:
    return len({name.split("/", 1)[0] for name in board.tasks}) == 1


def rank(row: Row) -> str:
    """A rank interval: '1-4', '7', or '-' where a method is not ranked."""
    if row.rank is None:
        return "-"
    low, high = row.rank
    return f"{low}" if low == high else f"{low}-{high}"


def score(board: Board, score: Score | None, interval: bool = True) -> str:
    """A score with its interval; '' where there is none."""
    return "" if score is None else board.scale.interval(score.mean, score.half if interval else math.nan)


def _note(row: Row) -> str:
    notes = []
    if row.stale:
        notes.append("stale")
    if row.coverage < 1:
        notes.append(f"{math.floor(100 * row.coverage)} % covered")
    if row.failures:
        notes.append(f"{row.failures} failed")
    return ", ".join(notes)


def warn(message: str) -> None:
    errors.print(Text(f"warning: {message}", style="yellow"), soft_wrap=True)


def fail(message: str, code: int) -> None:
    """Print an error and end the process with this code."""
    errors.print(Text(f"error: {message}", style="red"), soft_wrap=True)
    sys.exit(code)

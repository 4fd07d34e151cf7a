"""What the pages' scripts read: methods to search, and scores by seed to compare.

Both are scripts that hand over data, because a page opened from disk may load a script but may not fetch a file. What
came with a contribution is JSON in ASCII here, and the scripts in ``site/assets`` put it on a page as text only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lossboard import markup, statistics
from lossboard.board import Board
from reference.methods import Method

FREEDOM = 40  # degrees of freedom up to which quantiles are written; the script interpolates, beyond too


@dataclass(frozen=True)
class Entry:
    """A page of a method. ``href`` is relative to the site's root; ``method`` is None where the checkout has none."""

    href: str
    id: str
    suite: str  # its title
    method: Method | None

    @property
    def tags(self) -> list[str]:
        """What a board can be filtered by."""
        return list(dict.fromkeys((*self.method.tags, *markup.flags(self.method)))) if self.method else []


def index(entries: Iterable[Entry]) -> str:
    """The script that names every method: its page, id, suite, summary, citation and tags."""
    rows = []
    for entry in entries:
        summary, citation = (entry.method.summary, entry.method.citation) if entry.method else ("", "")
        rows.append([entry.href, entry.id, entry.suite, _plain(summary), _plain(citation), entry.tags])
    return f"globalThis.lossboardMethods = {_lines(rows)};\n"


def scores(board: Board, strata: Mapping[str, Sequence[str]]) -> str:
    """The script that tells the scores of a board: (tasks, seeds) for each method, null where one is missing.

    ``strata`` maps a dataset to its tasks. Means over tasks and paired differences are left to the script, as ``board``
    takes them: seed by seed within a dataset, datasets independent.
    """
    rows = [
        [
            row.method,
            [
                [_rounded(row.tasks[task].seeds.get(seed)) if task in row.tasks else None for seed in board.seeds]
                for task in board.tasks
            ],
        ]
        for row in board.rows
    ]
    home = {task: dataset for dataset, tasks in strata.items() for task in tasks}
    quantiles = [round(statistics.quantile(0.975, freedom), 5) for freedom in range(1, FREEDOM + 1)]
    name = json.dumps(f"{board.suite}/{board.track}-{board.kind}")
    head = f'"tasks": {json.dumps([[task, home[task]] for task in board.tasks])},\n"quantiles": {json.dumps(quantiles)}'
    scale = {key: getattr(board.scale, key) for key in ("name", "words", "apart", "shown", "digits")}
    head += f',\n"scale": {json.dumps(scale)}'
    return f'globalThis.lossboardScores({name}, {{{head},\n"methods": {_lines(rows)}}});\n'


def _lines(rows: Sequence[object]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 6)


def _plain(text: str) -> str:
    """Docstring text without its marks of code."""
    return text.replace("``", "")

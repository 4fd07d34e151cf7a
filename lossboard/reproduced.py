"""What was reproduced, kept in ``results/reproductions/<suite>/<hash>.jsonl``, named by its content, never edited.

A first line of provenance, then a line for every cell that was measured again. No torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossboard import paths, records
from lossboard.environment import Provenance
from lossboard.protocol import Suite
from lossboard.records import BadFile, Record, plain

BITWISE, WITHIN, DIFFERS = "bitwise", "within tolerance", "differs"
VERDICTS = (BITWISE, WITHIN, DIFFERS)
FOLDER = "reproductions"  # of results/
SCHEMA = 1


@dataclass(frozen=True)
class Reproduction:
    """A published record and what measuring its cell again gave."""

    record: Record
    again: Record
    verdict: str
    largest: float  # of the differences of metrics that both have; nan where there is none
    metric: str  # the one that differs most; '' where none does
    reasons: tuple[str, ...]  # what is not as it was


@dataclass(frozen=True)
class Kept:
    """A line of a kept file: which record was reproduced, when, and what came of it."""

    method: str
    batch: str
    task: str
    seed: int
    trial: int
    verdict: str
    day: str
    cpu: str


def keep(suite: Suite, found: Sequence[Reproduction], provenance: Provenance) -> Path:
    """Write reproductions of one run under ``results/``, to be committed; returns the file."""
    header = {"schema": SCHEMA, "kind": "reproduction", "suite": suite.name, **provenance.header()}
    rows = [
        {
            "method": r.record.method,
            "batch": r.record.header.file if r.record.header else "",
            "task": r.record.task,
            "id": r.record.id,
            "seed": r.record.seed,
            "trial": r.record.trial,
            "verdict": r.verdict,
            "metric": r.metric,
            "largest": plain(r.largest),
        }
        for r in sorted(found, key=lambda r: r.record.key)
    ]
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=True) + "\n" for line in (header, *rows))
    folder = paths.results() / FOLDER / suite.name
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    records.write_atomically(path, text)
    return path


def read(suite: str) -> tuple[list[Kept], list[str]]:
    """Every kept reproduction of a suite, and a message for each bad file."""
    found: list[Kept] = []
    problems = []
    for path in sorted((paths.results() / FOLDER / suite).glob("*.jsonl")):
        try:
            found += read_file(path)
        except BadFile as error:
            problems.append(str(error))
    return found, problems


def read_file(path: Path) -> list[Kept]:
    """The lines of one kept file, checked: format, name against content, folder against header.

    Raises:
        BadFile: what is wrong.
    """
    try:
        return _read(path, path.parent.name)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise BadFile(f"{path}: {error!r}") from error


def _read(path: Path, suite: str) -> list[Kept]:
    text = records.content(path)
    name = hashlib.sha256(text).hexdigest()[:12]
    if name != path.stem:
        raise BadFile(f"{path}: the content hashes to {name}; such a file is never edited. Restore it")
    top, *rows = records.rows(path, text)
    if (top["schema"], top["kind"], top["suite"]) != (SCHEMA, "reproduction", suite):
        raise BadFile(f"{path}: no reproductions of suite '{suite}', schema {SCHEMA}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", top["started"], re.ASCII):
        raise BadFile(f"{path}: 'started' must be a time such as 2026-01-31T12:00:00Z")
    day, cpu = top["started"][:10], str(top["env"].get("cpu", "unknown"))[:200]
    return [_kept(path, row, day, cpu) for row in rows]


def _kept(path: Path, row: Mapping[str, Any], day: str, cpu: str) -> Kept:
    texts, numbers = [row[key] for key in ("method", "batch", "task", "verdict")], [row["seed"], row["trial"]]
    if not all(type(text) is str and len(text) <= 200 for text in texts) or row["verdict"] not in VERDICTS:
        raise BadFile(f"{path}: a row has texts method, batch, task, and a verdict: {', '.join(VERDICTS)}")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise BadFile(f"{path}: 'seed' and 'trial' must be whole numbers >= 0")
    return Kept(row["method"], row["batch"], row["task"], row["seed"], row["trial"], row["verdict"], day, cpu)

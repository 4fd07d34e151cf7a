"""Performance over commits: what asv measured, read from ``results/asv``.

Files come with contributions: read with limits, checked value by value. What asv writes is a file of the benchmarks
there are (``benchmarks.json``) and a folder a machine, with ``machine.json`` and a file a commit and environment.
A result counts while its benchmark has that version; what no longer exists is left out.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lossboard.records import BadFile

LARGEST_FILE_BYTES = 8 * 2**20
MOST_SERIES = 1000  # of a file
LONGEST = 200  # characters of a name or a text
LATEST_MS = 4_102_444_800_000  # the year 2100
UNITS = ("seconds", "bytes")
FACTS = ("cpu", "num_cpu", "ram", "os", "arch")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")

Content = dict[str, Any]
Key = tuple[str, tuple[str, ...]]  # a benchmark's name, and a setting of its parameters


@dataclass(frozen=True)
class Benchmark:
    """What is measured now under a name."""

    name: str
    version: str
    unit: str
    settings: tuple[tuple[str, ...], ...]  # every combination of its parameters, in asv's order


@dataclass(frozen=True)
class Point:
    """A value at a commit, in seconds or bytes; with asv's 99 % interval of the median where it took samples."""

    commit: str
    when_ms: int  # since 1970, of the commit
    value: float
    low: float
    high: float

    @property
    def day(self) -> str:
        return datetime.fromtimestamp(self.when_ms / 1000, UTC).strftime("%Y-%m-%d")


@dataclass(frozen=True)
class Series:
    """A benchmark at one setting of its parameters, the oldest commit first."""

    benchmark: str
    setting: tuple[str, ...]
    unit: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class History:
    """What one machine measured in one environment."""

    machine: str
    environment: str
    facts: Mapping[str, str]
    series: tuple[Series, ...]

    @property
    def commits(self) -> list[str]:
        """The oldest first."""
        known = {(point.when_ms, point.commit) for each in self.series for point in each.points}
        return [commit for _, commit in sorted(known)]


def read(folder: Path) -> tuple[list[History], list[str]]:
    """Every history, the one with the latest commit first, and a message for each file that is not as asv writes it."""
    problems: list[str] = []
    benchmarks = _tried(problems, _benchmarks, folder / "benchmarks.json") if folder.is_dir() else None
    found = [
        history
        for machine in sorted(folder.glob("*/machine.json"))
        for history in _machine(machine, benchmarks or {}, problems)
    ]
    return sorted(found, key=_latest, reverse=True), problems


def _latest(history: History) -> tuple[int, str, str]:
    last = max((point.when_ms for each in history.series for point in each.points), default=0)
    return last, history.machine, history.environment


Read = TypeVar("Read")


def _tried(problems: list[str], reader: Callable[[Path], Read], path: Path) -> Read | None:
    """What a reader makes of a file; None, and a problem more, where the file is bad."""
    try:
        return reader(path)
    except BadFile as error:
        problems.append(str(error))
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{path}: not as asv writes it ({type(error).__name__}: {error})"[:500])
    return None


def _machine(path: Path, benchmarks: Mapping[str, Benchmark], problems: list[str]) -> Iterator[History]:
    """The histories of a machine by environment."""
    facts = _tried(problems, _facts, path)
    if facts is None:
        return
    rows: dict[str, dict[Key, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(path.parent.glob("*.json")):
        if file.name != "machine.json" and (found := _tried(problems, lambda file: _results(file, benchmarks), file)):
            environment, values = found
            for key, point in values.items():
                rows[environment][key].append(point)
    for environment, known in sorted(rows.items()):
        series = tuple(
            Series(name, setting, benchmarks[name].unit, _in_order(known[name, setting]))
            for name, setting in _sorted(known, benchmarks)
        )
        yield History(path.parent.name, environment, facts, series)


def _sorted(known: Iterable[Key], benchmarks: Mapping[str, Benchmark]) -> list[Key]:
    """Benchmarks by name, each with its settings in their own order."""
    return sorted(known, key=lambda key: (key[0], benchmarks[key[0]].settings.index(key[1])))


def _in_order(points: Sequence[Point]) -> tuple[Point, ...]:
    """A commit has one file in an environment; of two files, by a renamed one, the last counts."""
    return tuple(sorted({point.commit: point for point in points}.values(), key=lambda p: (p.when_ms, p.commit)))


# -- files -------------------------------------------------------------------------------------------------------------


def _content(path: Path) -> Content:
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise BadFile(f"{path}: larger than {LARGEST_FILE_BYTES >> 20} MiB")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from None
    if type(content) is not dict:
        raise BadFile(f"{path}: not a JSON object")
    return content


def _benchmarks(path: Path) -> dict[str, Benchmark]:
    """The benchmarks there are now, those with a unit that is shown."""
    if not path.is_file():
        raise BadFile(f"{path}: is missing; asv writes it beside the results")
    found = {}
    for name, each in _content(path).items():
        if name != "version" and each["unit"] in UNITS:
            settings = tuple(itertools.islice(_settings(each["params"]), MOST_SERIES + 1))
            if len(settings) > MOST_SERIES:
                raise BadFile(f"{path}: {_text(name)} has more than {MOST_SERIES} settings")
            found[_name(name)] = Benchmark(name, _text(each["version"]), each["unit"], settings)
    return found


def _settings(params: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Combinations of parameters, as text without the quotes of Python."""
    yield from itertools.product(*([_text(value).strip("'") for value in values] for values in params))


def _facts(path: Path) -> dict[str, str]:
    content = _content(path)
    if content.get("machine") != path.parent.name:
        raise BadFile(f"{path}: the machine is {content.get('machine')!r:.60}, the folder {path.parent.name}")
    return {key: _text(content[key]) for key in FACTS if content.get(key)}


def _results(path: Path, benchmarks: Mapping[str, Benchmark]) -> tuple[str, dict[Key, Point]]:
    """The environment of a file, and its points by benchmark and setting."""
    content = _content(path)
    commit, when = content["commit_hash"], content["date"]
    if not (COMMIT.fullmatch(commit) and path.name.startswith(commit[:8])):
        raise BadFile(f"{path}: commit_hash is no commit, or another one than the name says")
    if type(when) is not int or not 0 <= when < LATEST_MS:
        raise BadFile(f"{path}: date is {when!r:.40}, not milliseconds since 1970")
    columns = content["result_columns"]
    found: dict[Key, Point] = {}
    for name, values in content["results"].items():
        row = dict(zip(columns, values, strict=False))  # asv leaves out what is None at the end
        if name in benchmarks and row["version"] == benchmarks[name].version:
            found.update(_points(benchmarks[name], row, commit, when))
    return _name(content["env_name"]), found


def _points(benchmark: Benchmark, row: Content, commit: str, when: int) -> Iterator[tuple[Key, Point]]:
    """The values of a benchmark by setting; those that failed (None) or were skipped (NaN) are left out."""
    settings = list(itertools.islice(_settings(row["params"]), MOST_SERIES))
    columns = [row.get(name) or [None] * len(settings) for name in ("result", "stats_ci_99_a", "stats_ci_99_b")]
    for setting, value, low, high in zip(settings, *columns, strict=True):
        middle = _number(value)
        if middle is not None and setting in benchmark.settings:
            ends = [end if end is not None else middle for end in (_number(low), _number(high))]
            yield (benchmark.name, setting), Point(commit, when, middle, *ends)


def _number(value: Any) -> float | None:
    """A value that can be: finite and not negative; None for none, NaN and infinity."""
    if value is None:
        return None
    if type(value) not in (int, float):
        raise ValueError(f"{value!r:.40} is not a number")
    if not math.isfinite(value):  # skipped, or the end of an interval of too few samples
        return None
    if value < 0:
        raise ValueError(f"{value!r:.40} is negative")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > LONGEST:
        raise ValueError(f"{value!r:.40} is not a text of at most {LONGEST} characters")
    return value


def _name(value: Any) -> str:
    if not NAME.fullmatch(_text(value)):
        raise ValueError(f"{value!r:.40} is not a name")
    return str(value)

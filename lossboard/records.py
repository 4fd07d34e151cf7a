"""Records and their files: units that this machine wrote, batches that are published.

Both are JSON lines: a header, then one row a cell. A *unit file* is written by a worker when its cells are done
(fsync, then an atomic rename), so a killed run loses the units in flight and nothing else. A *batch* is an immutable
published file of one method's records from one run, named by the hash of its bytes. Files are untrusted: read with
limits, checked key by key, never unpickled or evaluated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossboard.environment import machine_name
from lossboard.errors import CheckFailed, LossboardError
from lossboard.names import RESERVED

SCHEMA = 1
MEASURED = ("ok", "diverged")  # a result; the other statuses are shown and tried again
STATUSES = (*MEASURED, "error", "oom", "timeout")
LARGEST_FILE_BYTES = 64 * 2**20
LONGEST_TEXT = 2000

Key = tuple[str, str, int, int]  # method, task id, seed, trial


class BadFile(CheckFailed):
    """A record file is not what its format, or its name, says."""


class StoreError(LossboardError):
    """Records could not be written; what was written before is safe."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the rows of one method in one file share."""

    suite: str
    module: str  # the method's module, whose source decides whether the rows are current
    source: str
    commit: str | None
    dirty: bool
    env: Mapping[str, str]
    data: Mapping[str, str]  # dataset -> digest of its content pins
    started: str  # UTC
    file: str = ""  # the file's name without suffix

    @property
    def machine(self) -> str:
        """Where records of different machines do not compare: which one made these; else ''."""
        return machine_name(self.env)


@dataclass(frozen=True, slots=True)
class Record:
    """What one cell gave: metrics or a failure, with the hyperparameters used."""

    method: str
    task: str  # the task's name; ``id`` decides
    id: str
    seed: int
    trial: int
    params: Mapping[str, float]
    status: str
    metrics: Mapping[str, float]
    seconds: float = 0.0  # processor time
    bits: str = ""  # first 12 hex of the SHA-256 of the trained parameters: equal bits, equal run
    error: str = ""
    header: Header | None = None

    @property
    def key(self) -> Key:
        return (self.method, self.id, self.seed, self.trial)

    def row(self) -> dict[str, Any]:
        """The published form: fixed key order, 6 significant digits, non-finite values as strings."""
        row = {"task": self.task, "id": self.id, "seed": self.seed, "trial": self.trial}
        row |= {"params": {key: plain(self.params[key]) for key in sorted(self.params)}, "status": self.status}
        row |= {key: plain(self.metrics[key]) for key in sorted(self.metrics)}
        if self.bits:
            row["bits"] = self.bits
        if self.error:
            row["error"] = self.error[:LONGEST_TEXT]
        return row | {"seconds": plain(self.seconds)}


def plain(value: float) -> float | str:
    """A number as records show it: 6 significant digits; non-finite values as text."""
    return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True) + "\n"


# -- reading ---------------------------------------------------------------------------------------


def content(path: Path) -> bytes:
    """The bytes of a plain file of bounded size; no link is followed, and no pipe or device opened."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise BadFile(f"{path}: no plain file")
    if found.st_size > LARGEST_FILE_BYTES:
        raise BadFile(f"{path}: larger than {LARGEST_FILE_BYTES >> 20} MiB")
    return path.read_bytes()


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line, complete to the last newline."""
    return rows(path, content(path))


def rows(path: Path, content: bytes) -> list[dict[str, Any]]:
    """The JSON objects in the content of a file."""
    if not content.endswith(b"\n"):
        raise BadFile(f"{path}: the last line is not complete (written in part)")
    found = []
    for number, line in enumerate(_text(path, content).split("\n")[:-1], 1):
        try:
            row = DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            raise BadFile(f"{path}, line {number}: not JSON ({error})") from None
        if type(row) is not dict:
            raise BadFile(f"{path}, line {number}: not a JSON object")
        found.append(row)
    return found


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} must be a string")


DECODER = json.JSONDecoder(parse_constant=_no_constant)  # made once: json.loads would make one for every line


def _record(row: dict[str, Any], method: str, header: Header) -> Record:
    """A validated row. Boards read a hundred thousand of them: the checks are few and plain.

    Raises:
        ValueError: a key is missing or of the wrong type; the message names it.
    """
    try:
        task, id, seed, trial, params = row["task"], row["id"], row["seed"], row["trial"], row["params"]
        status, seconds = row["status"], _number(row["seconds"])
    except KeyError as missing:
        raise ValueError(f"no key {missing}") from None
    if status not in STATUSES:
        raise ValueError(f"status {status!r}; there are: {', '.join(STATUSES)}")
    bits, error = row.get("bits", ""), row.get("error", "")
    for key, text in (("task", task), ("id", id), ("bits", bits), ("error", error)):
        if type(text) is not str or len(text) > LONGEST_TEXT:
            raise ValueError(f"'{key}' must be a text of at most {LONGEST_TEXT} characters")
        if not text.isascii():
            text.encode("utf-8")  # a lone surrogate is a ValueError
    for key, number in (("seed", seed), ("trial", trial)):
        if type(number) is not int or number < 0:
            raise ValueError(f"'{key}' must be a whole number >= 0")
    if type(params) is not dict or _TEXT & set(map(type, params.values())):
        raise ValueError("'params' must map names to numbers")
    for value in params.values():
        _number(value)
    metrics = {key: _number(value) for key, value in row.items() if key not in RESERVED}
    return Record(method, task, id, seed, trial, params, status, metrics, seconds, bits, error, header)


_TEXT = {str}
LARGEST = 1e300
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _number(value: Any) -> float:
    if (type(value) is float or type(value) is int) and -LARGEST < value < LARGEST:
        return float(value)
    if type(value) is str and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise ValueError(f"{str(value)[:40]!r} is not a finite number")


def _header(content: dict[str, Any], file: str, id: str, method: Mapping[str, Any]) -> Header:
    if content.get("schema") != SCHEMA:
        raise ValueError(f"schema {content.get('schema')!r}; this version reads {SCHEMA}")
    header = Header(
        suite=content["suite"],
        module=method["module"],
        source=method["source"],
        commit=content["commit"],
        dirty=content["dirty"],
        env=content["env"],
        data=content["data"],
        started=content["started"],
        file=file,
    )
    if not re.fullmatch(r"[\w.+-]{1,100}", id, re.ASCII):
        raise ValueError(f"method {id!r}: an id is letters, digits and _.+-, at most 100")
    texts = [header.suite, header.module, header.source, header.started, *header.env.values(), *header.data.values()]
    if not all(type(text) is str and len(text) <= LONGEST_TEXT for text in texts) or type(header.dirty) is not bool:
        raise ValueError("a header field has the wrong type")
    if not all(text.isprintable() for text in (*texts, *header.env, *header.data)):
        raise ValueError("a header field has signs that cannot be shown")
    if header.commit is not None and not re.fullmatch(r"[0-9a-f]{40}", str(header.commit)):
        raise ValueError("'commit' must be 40 hex digits or null")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", header.started, re.ASCII):
        raise ValueError("'started' must be a time such as 2026-01-31T12:00:00Z")
    if not re.fullmatch(r"[A-Za-z_]\w*([.+][A-Za-z_]\w*)*", header.module, re.ASCII):
        raise ValueError("'module' must be a dotted module name, or two joined by '+'")
    return header


# -- units: what this machine measured -------------------------------------------------------------


def unit_path(folder: Path, suite: str, keys: Iterable[tuple[Key, str]], machine: str = "") -> Path:
    """The file of a unit: named by its cells and their methods' sources, and by the machine where that matters."""
    text = json.dumps([suite, sorted((*key, source) for key, source in keys), *([machine] if machine else [])])
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"


def write_unit(
    path: Path, header: Mapping[str, Any], methods: Mapping[str, Mapping[str, str]], records: Sequence[Record]
) -> None:
    """Write a unit whole or not at all: ``header`` is the provenance, ``methods`` maps id -> module and source.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    top = {"schema": SCHEMA, "rows": len(records), **header, "methods": methods}
    write_atomically(path, _line(top) + "".join(_line({"method": r.method, **r.row()}) for r in records))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file through a temporary one beside it; after a crash there is the old file or the new one."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise StoreError(
            f"cannot write {path}: {error.strerror}. What was written before is safe; make room and run again"
        ) from error


def read_units(folder: Path) -> tuple[list[Record], list[str]]:
    """Every record of every unit file, and a message for each file that is damaged (its cells are missing again)."""
    records: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            records += _unit(path)
        except FileNotFoundError:  # another run replaced it
            continue
        except (BadFile, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{error}" if isinstance(error, BadFile) else f"{path}: {error}")
    return records, problems


def _unit(path: Path) -> list[Record]:
    top, *rows = lines(path) or [{}]
    if top.get("rows") != len(rows):
        raise BadFile(f"{path}: {len(rows)} rows of {top.get('rows')} (written in part)")
    headers = {id: _header(top, path.stem, id, method) for id, method in top["methods"].items()}
    return [_record(row, row["method"], headers[row["method"]]) for row in rows]


def set_aside(folder: Path, keys: set[Key], machine: str = "") -> int:
    """Take a machine's records of these cells out of the unit files (they go on in ``set-aside/``); how many."""
    taken = 0
    for path in sorted(folder.glob("*.jsonl")):
        try:
            top, *rows = lines(path) or [{}]
            if machine_name(top["env"]) != machine:
                continue
            out = [(row["method"], row["id"], row["seed"], row["trial"]) in keys for row in rows]
        except (
            BadFile,
            FileNotFoundError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # damaged, or another run's doing: its cells count as missing
            continue
        if any(out):
            taken += sum(out)
            gone = [row for row, leaves in zip(rows, out, strict=True) if leaves]
            kept = [row for row, leaves in zip(rows, out, strict=True) if not leaves]
            count = len(list((folder / "set-aside").glob(f"{path.stem}-*")))
            _rewrite(folder / "set-aside" / f"{path.stem}-{count}.jsonl", top, gone)
            if kept:
                _rewrite(path, top, kept)
            else:
                path.unlink(missing_ok=True)
    return taken


def _rewrite(path: Path, top: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(path, "".join(map(_line, [{**top, "rows": len(rows)}, *rows])))


# -- batches: what is published --------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """One published file."""

    path: Path
    suite: str
    method: str
    control: str | None
    header: Header
    records: tuple[Record, ...]


def batch_path(results: Path, suite: str, method: str, text: str) -> Path:
    return results / suite / method / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"


def seal(results: Path, method: str, records: Sequence[Record], control: str | None) -> Path:
    """Publish one method's records of one run as a batch, and return its path. Sealing twice gives the same file."""
    header = records[0].header
    assert header
    text = _sealed(method, header, records, control)
    path = batch_path(results, header.suite, method, text)
    if not path.exists():
        write_atomically(path, text)
    return path


def _sealed(method: str, header: Header, records: Sequence[Record], control: str | None) -> str:
    top = {
        "schema": SCHEMA,
        "suite": header.suite,
        "method": method,
        "module": header.module,
        "source": header.source,
        "run": conditions(header),
        "control": control,
        "commit": header.commit,
        "dirty": header.dirty,
        "env": dict(header.env),
        "data": dict(header.data),
        "started": header.started,
    }
    rows = sorted(records, key=lambda r: (r.task, r.id, r.trial, r.seed))
    return _line(top) + "".join(_line(r.row()) for r in rows)


def canonical(batch: Batch) -> str:
    """The text of a batch as it is sealed."""
    return _sealed(batch.method, batch.header, batch.records, batch.control)


def is_batch_name(text: object) -> bool:
    """Whether this can name a batch: 12 hex digits."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{12}", text, re.ASCII) is not None


def read_batch(path: Path) -> Batch:
    """A published batch, checked: format, name against content, folder against header.

    Raises:
        BadFile: what is wrong, where, and what to do.
    """
    text = content(path)
    name = hashlib.sha256(text).hexdigest()[:12]
    if name != path.stem:
        raise BadFile(f"{path}: the content hashes to {name}; a batch is never edited. Restore it, or seal a new one")
    top, *found = rows(path, text) or [{}]
    try:
        method = top["method"]
        header = _header(top, path.stem, method, top)
        records = tuple(_record(row, method, header) for row in found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{path}: {error}") from error
    if (header.suite, method) != (path.parent.parent.name, path.parent.name):
        raise BadFile(f"{path}: the header says {header.suite}/{method}; move it back to that folder")
    twice = len(records) - len({record.key for record in records})
    if twice:
        raise BadFile(f"{path}: {twice} cells stand twice")
    return Batch(path, header.suite, method, top.get("control"), header, records)


def read_results(results: Path, suite: str) -> tuple[list[Record], list[str]]:
    """Every published record of a suite that is not retracted, and a message for each bad file."""
    gone = retracted(results)
    records: list[Record] = []
    problems: list[str] = []
    for path in sorted((results / suite).glob("*/*.jsonl")):
        if path.stem not in gone:
            try:
                records += read_batch(path).records
            except BadFile as error:
                problems.append(str(error))
    return records, problems


def retracted(results: Path) -> dict[str, str]:
    """Retracted batch -> reason, from ``results/retracted/<batch>.toml``."""
    found = {}
    for path in sorted((results / "retracted").glob("*.toml")):
        try:
            table = tomllib.loads(content(path).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise BadFile(f"{path}: not TOML ({error})") from None
        if set(table) != {"reason"} or not isinstance(table["reason"], str):
            raise BadFile(f'{path}: one key, reason = "…"')
        found[path.stem] = table["reason"]
    return found


# -- precedence ------------------------------------------------------------------------------------


def resolve(records: Iterable[Record], current: Callable[[Record], bool]) -> dict[Key, Record]:
    """One record a cell: a current one first, then a result before a failure, a clean tree, the earliest, the name.

    ``current`` tells whether a record was made with the source, and the trial's hyperparameters, of now.
    """
    best: dict[Key, Record] = {}
    for record in records:
        known = best.get(record.key)
        if known is None or _order(record, current) < _order(known, current):
            best[record.key] = record
    return best


def _order(record: Record, current: Callable[[Record], bool]) -> tuple[Any, ...]:
    header = record.header
    assert header
    return (not current(record), record.status not in MEASURED, header.dirty, header.started, header.file)


def shown(records: Iterable[Record], current: Callable[[Record], bool]) -> list[Record]:
    """What boards and pages show: of every machine one record a cell, and where a method has current records of a
    trial on a task, those alone. What older code of it gave there would pass for what the code of now gives."""
    found = [record for record in records if record.header]
    machines = sorted({record.header.machine for record in found if record.header})
    best = [r for machine in machines for r in resolve(of_machine(found, machine), current).values()]

    def group(record: Record) -> tuple[object, ...]:
        return record.method, record.id, record.trial, record.header and record.header.machine

    living = {group(record) for record in best if current(record)}
    return [record for record in best if current(record) or group(record) not in living]


def of_machine(records: Iterable[Record], machine: str) -> list[Record]:
    """Those made on a machine; '' for records that do not depend on it."""
    return [record for record in records if record.header and record.header.machine == machine]


def disagreements(found: Iterable[Record], metric: str, tolerance: float) -> Iterator[tuple[Record, float, float]]:
    """Cells measured more than once whose results differ by more than the tolerance: a record, lowest, highest."""
    seen: dict[Key, tuple[Record, float, float]] = {}
    for record in found:
        if record.status == "ok" and metric in record.metrics:
            value = record.metrics[metric]
            first, low, high = seen.get(record.key, (record, value, value))
            seen[record.key] = (first, min(low, value), max(high, value))
    return (case for case in seen.values() if case[2] - case[1] > tolerance)


def by_run(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Local records by (method, conditions): what can share one batch. The earliest start is the batch's."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        assert record.header
        groups.setdefault((record.method, f"{record.header.source} {conditions(record.header)}"), []).append(record)
    shared = {}
    for key, group in groups.items():
        headers = [r.header for r in group if r.header]
        data = {name: value for h in headers for name, value in h.data.items()}
        first = replace(min(headers, key=lambda h: h.started), data=dict(sorted(data.items())))
        shared[key] = [replace(record, header=first) for record in group]
    return shared


def conditions(header: Header) -> str:
    """12 hex digits over code and environment: records of one run share them, whatever the method."""
    text = json.dumps([header.suite, header.commit, header.dirty, dict(header.env)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

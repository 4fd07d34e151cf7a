"""Units and batches: canonical form, damage, hand edits, precedence, sealing."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lossboard import records
from lossboard.records import BadFile, Header, Record

HEADER = Header(
    suite="noisy",
    module="reference.losses.gce",
    source="0123456789ab",
    commit="0" * 40,
    dirty=False,
    env={"python": "3.11"},
    data={"digits": "ffff"},
    started="2026-01-02T03:04:05Z",
    file="one",
)


def record(seed: int = 0, trial: int = 0, last: float = 0.5, **more) -> Record:
    plain = {
        "method": "gce",
        "task": "digits/clean",
        "id": "abcdefabcdef",
        "params": {"q": 0.7, "lr": 0.1},
        "status": "ok",
        "metrics": {"val": 0.25, "last": last},
        "seconds": 0.123456789,
        "bits": "00ff",
        "header": HEADER,
    }
    return Record(seed=seed, trial=trial, **(plain | more))


def test_the_published_form_is_canonical(tmp_path: Path) -> None:
    path = records.seal(tmp_path, "gce", [record(1, last=1 / 3), record(0, metrics={"last": math.nan})], control=None)
    head, *rows = path.read_text().splitlines()
    assert path.parent == tmp_path / "noisy" / "gce"
    assert list(json.loads(head)) == [
        *(
            "schema",
            "suite",
            "method",
            "module",
            "source",
            "run",
            "control",
            "commit",
            "dirty",
            "env",
            "data",
            "started",
        )
    ]
    assert [json.loads(row)["seed"] for row in rows] == [0, 1], "sorted"
    assert '"last":"nan"' in rows[0], "non-finite values are text"
    assert '"last":0.333333,' in rows[1], "6 significant digits"
    assert '"params":{"lr":0.1,"q":0.7}' in rows[1]
    again = records.seal(tmp_path, "gce", [record(0, metrics={"last": math.nan}), record(1, last=1 / 3)], control=None)
    assert again == path
    read = records.read_batch(path)
    assert [r.seed for r in read.records] == [0, 1]
    assert math.isnan(read.records[0].metrics["last"])
    assert read.header == replace(HEADER, file=path.stem)


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"last":0.5', '"last":0.9'))


def moved(path: Path) -> None:
    (path.parent.parent / "ce").mkdir()
    path.rename(path.parent.parent / "ce" / path.name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(edited, "a batch is never edited"), (moved, r"the header says noisy/gce; move it back"), (cut, "never edited")],
)
def test_a_tampered_batch_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    good = records.seal(tmp_path, "gce", [record(1)], control=None)
    bad = records.seal(tmp_path, "gce", [record(2)], control=None)
    damage(bad)
    found, problems = records.read_results(tmp_path, "noisy")
    assert [r.seed for r in found] == [1], "the others are read"
    assert len(problems) == 1
    assert bad.name in problems[0]
    with pytest.raises(BadFile, match=message):
        records.read_batch(next(path for path in tmp_path.rglob("*.jsonl") if path.name != good.name))


WRONG_ROWS = [
    ({"status": "fine"}, "status 'fine'"),
    ({"last": 10**400}, "is not a finite number"),
    ({"params": {"q": -(10**400)}}, "is not a finite number"),
    ({"seed": -1}, "'seed' must be a whole number"),
    ({"seed": "0"}, "'seed' must be a whole number"),
    ({"params": {"q": "0.7"}}, "'params' must map names to numbers"),
    ({"last": "high"}, "'high' is not a finite number"),
    ({"last": True}, "'True' is not a finite number"),
    ({"task": "x" * 3000}, "'task' must be a text"),
    ({"seconds": None}, "'None' is not a finite number"),
    ({"error": "\ud800"}, "surrogates not allowed"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_ROWS)
def test_rows_are_checked_key_by_key(tmp_path: Path, change: dict, message: str) -> None:
    good = records.seal(tmp_path, "gce", [record()], control=None)
    head, row = good.read_text().splitlines()
    text = head + "\n" + json.dumps(json.loads(row) | change) + "\n"
    path = records.batch_path(tmp_path, "noisy", "gce", text)
    path.write_text(text)
    with pytest.raises(BadFile, match=message):
        records.read_batch(path)


def test_an_overflowing_float_and_bad_bytes_are_refused(tmp_path: Path) -> None:
    good = records.seal(tmp_path, "gce", [record()], control=None).read_bytes()
    for content, message in (
        (good.replace(b'"last":0.5', b'"last":1e400'), "finite"),
        (good[:-2] + b"\xff}\n", "UTF-8"),
    ):
        path = tmp_path / "noisy" / "gce" / f"{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
        path.write_bytes(content)
        with pytest.raises(BadFile, match=message):
            records.read_batch(path)


@pytest.mark.parametrize("started", ["", "0000", "yesterday"])
def test_a_start_that_is_no_time_is_refused(tmp_path: Path, started: str) -> None:
    path = records.seal(tmp_path, "gce", [record(header=replace(HEADER, started=started))], control=None)
    with pytest.raises(BadFile, match="'started' must be a time"):
        records.read_batch(path)


@pytest.mark.parametrize("line", ["[]", "nonsense", '{"a": NaN}', "[" * 100000])
def test_lines_that_are_no_json_objects(tmp_path: Path, line: str) -> None:
    good = records.seal(tmp_path, "gce", [record()], control=None)
    text = good.read_text().splitlines()[0] + "\n" + line + "\n"
    path = records.batch_path(tmp_path, "noisy", "gce", text)
    path.write_text(text)
    with pytest.raises(BadFile, match="line 2: not"):
        records.read_batch(path)


def test_a_module_name_that_is_none_is_refused(tmp_path: Path) -> None:
    path = records.seal(tmp_path, "gce", [record(header=replace(HEADER, module="../../etc"))], control=None)
    with pytest.raises(BadFile, match="dotted module name"):
        records.read_batch(path)


def test_one_cell_twice_is_refused(tmp_path: Path) -> None:
    path = records.seal(tmp_path, "gce", [record(), record()], control=None)
    with pytest.raises(BadFile, match="1 cells stand twice"):
        records.read_batch(path)


def test_retraction_takes_a_reason_and_hides_the_cells(tmp_path: Path) -> None:
    path = records.seal(tmp_path, "gce", [record()], control=None)
    note = tmp_path / "retracted" / f"{path.stem}.toml"
    note.parent.mkdir()
    note.write_text('reason = "a broken disk"')
    assert records.read_results(tmp_path, "noisy") == ([], [])
    note.write_text('because = "x"')
    with pytest.raises(BadFile, match="reason"):
        records.read_results(tmp_path, "noisy")
    note.write_text("reason = ")
    with pytest.raises(BadFile, match="not TOML"):
        records.read_results(tmp_path, "noisy")


def current(record: Record) -> bool:
    return record.header is not None and record.header.source == "0123456789ab"


PRECEDENCE = [  # the winner, and what it beats
    ({}, {"source": "old"}),
    ({"dirty": True}, {"source": "old"}),
    ({"started": "2027"}, {"dirty": True}),
    ({"started": "2025"}, {"started": "2026"}),
    ({"file": "a"}, {"file": "b"}),
]


@pytest.mark.parametrize(("winner", "loser"), PRECEDENCE)
def test_precedence(winner: dict, loser: dict) -> None:
    one, two = record(header=replace(HEADER, **winner)), record(header=replace(HEADER, **loser))
    for order in ([one, two], [two, one]):
        assert records.resolve(order, current) == {one.key: one}


def test_a_result_beats_a_failure_and_stale_results_do_not() -> None:
    good, failed = record(header=replace(HEADER, started="2027")), record(status="oom", metrics={})
    assert records.resolve([failed, good], current)[good.key] is good
    stale = replace(good, header=replace(HEADER, source="old"))
    assert records.resolve([failed, stale], current)[good.key] is failed


def test_disagreements_beyond_the_tolerance_are_listed() -> None:
    found = [record(last=0.5), record(last=0.52), record(1, last=0.5), record(1, last=0.9)]
    assert [(first.seed, low, high) for first, low, high in records.disagreements(found, "last", 0.05)] == [
        (1, 0.5, 0.9)
    ]


def test_units_round_trip_and_set_aside_keeps_what_it_takes(tmp_path: Path) -> None:
    rows = [record(seed) for seed in range(3)]
    names = {"gce": {"module": HEADER.module, "source": HEADER.source}}
    top = {"suite": "noisy", "commit": None, "dirty": True, "env": {}, "data": {}, "started": "2026-01-01T00:00:00Z"}
    path = records.unit_path(tmp_path, "noisy", [(r.key, "s") for r in rows])
    assert path != records.unit_path(tmp_path, "noisy", [(r.key, "t") for r in rows]), "another source, another file"
    records.write_unit(path, top, names, rows)
    found, problems = records.read_units(tmp_path)
    assert not problems
    assert [r.row() for r in found] == [r.row() for r in rows]
    assert records.set_aside(tmp_path, {rows[1].key}) == 1
    assert [r.seed for r in records.read_units(tmp_path)[0]] == [0, 2]
    assert '"seed":1' in (tmp_path / "set-aside" / f"{path.stem}-0.jsonl").read_text()
    assert records.set_aside(tmp_path, {rows[0].key, rows[2].key}) == 2
    assert not path.exists()
    assert len(list((tmp_path / "set-aside").iterdir())) == 2, "what was set aside before is kept"
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\n")
    assert records.set_aside(tmp_path, {rows[0].key}) == 0

"""A suite of two kinds of methods, without data, whose records hold for one machine: boards, pages and errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy

from lossboard import board, protocol, records
from lossboard.errors import UsageError

PINS = """
name = "toy"
version = 1
title = "Toy"
question = "Which is fastest?"
parts = ["size"]
alone = true

[control]
walk = "walk.plain"
run-far = "run-far.plain"

[metrics]
rank = "speed"
select = "speed"
scale = "ratio"
tolerance = 10
beside = ["both_s"]

[metrics.columns]
speed = "the control's time over this one's"
both_s = "seconds"

[tracks.quick]
summary = "seconds"
seeds = [0, 1, 2, 3, 4]
budget = "none"

[[tracks.quick.tasks]]
kind = "walk"
size = ["short", "long"]

[[tracks.quick.tasks]]
kind = "run-far"
size = "long"

[size.short]
metres = [1]

[size.long]
metres = [100, 2]

[budget.none]
"""
CODE = '''
import os
from dataclasses import dataclass
from itertools import groupby
from lossboard.protocol import Unit
from lossboard.records import Record
from reference.methods import Method


@dataclass(frozen=True)
class Size:
    metres: tuple[int, ...]


SECTIONS = {"size": Size}
PACE = {"plain": 1.0, "fast": 2.0, "slow": 0.5}


def step():
    """Goes on."""


def methods():
    return {
        f"{kind}.{name}": Method(f"{kind}.{name}", kind, step, "suites.toy", {}, {})
        for kind in ("walk", "run-far") for name in PACE
    }


def group(cells):
    together = lambda cell: (cell.task.kind, cell.seed)
    for _, found in groupby(sorted(cells, key=together), key=together):
        yield Unit(tuple(found), 1.0)


def run(unit, context):
    for cell in unit.cells:
        name = cell.method.split(".")[1]
        speed = PACE[name] * (1 + 0.001 * (cell.seed * (1 + list(PACE).index(name)) % 7))
        metrics = {"speed": speed, "both_s": 1 / speed, "pid": os.getpid()}
        yield Record(cell.method, cell.task.name, cell.task.id, cell.seed, cell.trial, dict(cell.params), "ok", metrics)
'''


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = toy.make(tmp_path, PINS)
    (made / "suites" / "toy" / "__init__.py").write_text(CODE)
    monkeypatch.setenv("LOSSBOARD_ROOT", str(made))
    for name in [name for name in sys.modules if name.split(".")[0] == "suites"]:  # of this checkout: imported before
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(made), *sys.path])
    protocol.suite_module.cache_clear()
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] == "suites"]:
        del sys.modules[name]
    protocol.suite_module.cache_clear()


def test_a_run_ends_with_a_board_for_each_kind_and_pages(root: Path) -> None:
    found = toy.call(root, "run", "toy")
    assert found.returncode == 0, found.stderr
    assert "45 cells" in found.stdout
    assert "toy · quick-walk" in found.stdout
    assert "toy · quick-run-far" in found.stdout
    assert "2.0" in found.stdout
    boards = json.loads(toy.call(root, "board", "toy", "--local", "--json").stdout)
    ranks = [[(row["id"], row["rank"]) for row in board["rows"]] for board in boards]
    assert ranks == [
        [(f"{kind}.fast", [1, 1]), (f"{kind}.plain", [2, 2]), (f"{kind}.slow", [3, 3])] for kind in ("walk", "run-far")
    ]
    pages = root / ".lossboard" / "site" / "toy"
    page = (pages / "index.html").read_text()
    assert "run-far.fast" in page
    assert "defaults" not in page.split("</table>")[0], "what has one trial has no second board"
    assert len(list((pages / "tracks").glob("quick-walk-*.html"))) == 1, "its name has the machine"
    assert "Metres" not in page
    assert toy.call(root, "run", "toy").stdout.startswith("all 45 cells are done")


def test_a_unit_has_a_process_of_its_own(root: Path) -> None:
    toy.call(root, "run", "toy", "--no-page")
    rows = [json.loads(line) for path in (root / ".lossboard/units/toy").glob("*.jsonl") for line in path.open()]
    made = {(row["method"].split(".")[0], row["seed"]): row["pid"] for row in rows if "pid" in row}
    assert len(made) == len(set(made.values())) == 10


def _from_elsewhere(root: Path, change: Callable[[dict[str, Any]], None], move: bool = False) -> None:
    """What was measured here a second time, or only, with another header."""
    for path in (root / ".lossboard/units/toy").glob("*.jsonl"):
        top, *rows = path.read_text().splitlines()
        header = json.loads(top)
        change(header)
        path.with_stem(f"other-{path.stem}").write_text("\n".join([json.dumps(header), *rows]) + "\n")
        if move:
            path.unlink()


@pytest.mark.parametrize("other", [{"machine": "another machine"}, {"caches": "L1d 1K, L2 2K"}])
def test_records_of_another_machine_are_missing_here(root: Path, other: dict[str, str]) -> None:
    """One of another name, or of the same name and another generation, whose caches differ."""
    toy.call(root, "run", "toy", "--no-page", "--seeds", "0")
    _from_elsewhere(root, lambda header: header["env"].update(other), move=True)
    planned = json.loads(toy.call(root, "plan", "toy", "--seeds", "0", "--json").stdout)
    assert (planned["done"], planned["missing"]) == (0, 9)
    toy.call(root, "run", "toy", "--seeds", "0")
    tracks = {path.name for path in (root / ".lossboard/site/toy/tracks").glob("quick-walk-*.html")}
    assert len(tracks) == 2, "a board for each machine"


def test_a_machine_whose_records_are_all_stale_has_no_board_beside_one_that_is_current(root: Path) -> None:
    toy.call(root, "run", "toy", "--no-page", "--seeds", "0")

    def stale(header: dict[str, Any]) -> None:
        header["env"]["machine"] = "another machine"
        for method in header["methods"].values():
            method["source"] = "0" * 12

    _from_elsewhere(root, stale)
    suite = protocol.load("toy")
    found = records.read_units(root / ".lossboard/units/toy")[0]
    assert len({record.header.machine for record in found}) == 2
    assert [len(own) for _, own in board.standings(suite, suite.track("quick"), found)] == [6, 3]
    old = [record for record in found if record.header.machine.startswith("another machine")]
    assert [len(own) for _, own in board.standings(suite, suite.track("quick"), old)] == [6, 3]


def test_divisions_are_tracks_of_their_own(root: Path) -> None:
    suite = protocol.load("toy")
    assert suite.kinds == ("walk", "run-far")
    assert [part.name for part in suite.track("quick").divisions] == ["quick-walk", "quick-run-far"]
    assert [task.name for task in suite.track("quick-run-far").tasks] == ["run-far/long"]
    assert suite.track("quick-run-far").pinned == "quick"
    assert not suite.track("quick").tunes


WRONG = [
    ("metres = [1]", "metres = [0.5]", "a list of whole numbers"),
    ('kind = "walk"\n', "", "missing 'kind'"),
    ('kind = "walk"', 'kind = "wlak"', "did you mean walk"),
    ('parts = ["size"]', 'parts = ["sizes"]', "did you mean size"),
    ('parts = ["size"]', 'parts = ["size"]\nnamed = ["sizes"]', "those of parts"),
    ('parts = ["size"]', "parts = []", "a list of the sections"),
    ('parts = ["size"]', 'parts = ["size", "dataset"]', "'dataset' comes first"),
    ('scale = "ratio"', 'scale = "ratoi"', "did you mean ratio"),
    ("[control]", '[control]\nfly = "fly.plain"\n[controls]', "unknown key 'controls'"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_wrong_pins_are_named(root: Path, old: str, new: str, message: str) -> None:
    path = root / "suites/toy/suite.toml"
    path.write_text(PINS.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        protocol.load("toy")


def test_two_runs_at_once_take_turns(root: Path) -> None:
    first = subprocess.Popen(
        toy.command(root, "run", "toy", "--no-page"), env=toy.environ(root), stdout=subprocess.PIPE
    )
    lock, end = root / ".lossboard" / "alone.lock", time.monotonic() + 60
    while not lock.exists() and time.monotonic() < end:
        time.sleep(0.05)
    second = toy.call(root, "run", "toy", "--no-page")
    first.communicate(timeout=60)
    assert first.returncode == second.returncode == 0
    planned = json.loads(toy.call(root, "plan", "toy", "--json").stdout)
    assert (planned["done"], planned["missing"]) == (45, 0)


def test_ctrl_c_ends_a_run_that_hangs(root: Path) -> None:
    code = root / "suites" / "toy" / "__init__.py"
    code.write_text(
        CODE.replace("    for cell in unit.cells:\n", "    import time; time.sleep(600)\n    for cell in unit.cells:\n")
    )
    run = subprocess.Popen(
        toy.command(root, "run", "toy", "--no-page"),
        env=toy.environ(root),
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background ignores it
    )
    locks, end = root / ".lossboard" / "units" / "toy" / "locks", time.monotonic() + 60
    while not list(locks.glob("*")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=120) == 130


def test_why_keeps_machines_apart(root: Path) -> None:
    toy.call(root, "run", "toy", "--no-page", "--seeds", "0")
    _from_elsewhere(root, lambda header: header["env"].update(machine="another machine"))
    told = toy.call(root, "why", "toy/walk.fast/walk/long/0/0").stdout
    assert told.count("(counts; this machine)") == 2
    assert re.search(r"on another machine, caches of [^\n]+:", told)
    assert "superseded" not in told


def test_a_ratio_that_cannot_be_averaged_ranks_nothing(root: Path) -> None:
    toy.call(root, "run", "toy", "--no-page")
    for path in (root / ".lossboard/units/toy").glob("*.jsonl"):
        lines = path.read_text().splitlines()
        rows = [json.loads(line) for line in lines[1:]]
        for row in rows:
            if (row["method"], row["seed"]) == ("walk.fast", 3):
                row["speed"] = 0.0
        path.write_text("\n".join([lines[0], *map(json.dumps, rows)]) + "\n")
    walk = json.loads(toy.call(root, "board", "toy", "--local", "--json").stdout)[0]
    assert {row["id"]: row["rank"] for row in walk["rows"]} == {
        "walk.plain": [1, 1],
        "walk.slow": [2, 2],
        "walk.fast": None,
    }

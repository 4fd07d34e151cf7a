"""The harness at work on a suite that needs no torch: kills, faults, two runs at once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy

from lossboard import paths, pools, protocol, records, run
from lossboard.environment import Provenance
from lossboard.records import StoreError
from lossboard.sources import source


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = toy.make(tmp_path / "checkout")
    monkeypatch.setenv("LOSSBOARD_ROOT", str(made))
    monkeypatch.setattr(sys, "path", [str(made), *sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "suites"]:
        monkeypatch.delitem(sys.modules, name)
    run.suite_module.cache_clear()
    source.cache_clear()
    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "suites"]:
        del sys.modules[name]
    run.suite_module.cache_clear()
    source.cache_clear()


def keys(root: Path) -> Counter:
    """How often each cell stands in the unit files, without a reader that repairs."""
    found: Counter = Counter()
    for path in sorted((root / ".lossboard" / "units" / "toy").glob("*.jsonl")):
        for line in path.read_text().splitlines()[1:]:
            row = json.loads(line)
            found[row["method"], row["id"], row["seed"], row["trial"]] += 1
    return found


def test_a_run_fills_every_cell_and_the_next_does_nothing(root: Path) -> None:
    first = toy.call(root, "run", "toy", "--no-page")
    assert first.returncode == 0, first.stderr
    assert len(keys(root)) == toy.CELLS
    assert re.search(r"1-5 +five|1 +five", first.stdout)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.jsonl")}
    second = toy.call(root, "run", "toy", "--no-page")
    assert second.returncode == 0
    assert f"all {toy.CELLS} cells are done" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jsonl")} == before


def test_only_seeds_and_fresh(root: Path) -> None:
    assert toy.call(root, "run", "toy", "--no-page", "--only", "two", "--seeds", "0,1").returncode == 0
    assert len(keys(root)) == 2 * 2 * 2
    again = toy.call(root, "run", "toy", "--no-page", "--only", "two", "--seeds", "1", "--fresh")
    assert again.returncode == 0
    assert "4 cells in" in again.stdout
    assert len(keys(root)) == 2 * 2 * 2
    aside = list((root / ".lossboard" / "units" / "toy" / "set-aside").glob("*.jsonl"))
    assert len(aside) == 1, "what was measured before is kept"


def test_twenty_kills_lose_no_finished_unit_and_repeat_none(root: Path) -> None:
    chance = random.Random(7)
    environ = toy.environ(root, TOY_SECONDS="0.15")
    for _ in range(20):
        process = subprocess.Popen(
            toy.command(root, "run", "toy", "--no-page", "--jobs", "2"),
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.3, 1.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = keys(root)
        assert max(before.values(), default=1) == 1
    killed = keys(root)
    last = toy.call(root, "run", "toy", "--no-page", "--jobs", "2")
    assert last.returncode == 0, last.stderr
    found = keys(root)
    assert set(killed) <= set(found)
    assert len(found) == toy.CELLS
    assert set(found.values()) == {1}


def test_a_killed_run_leaves_no_worker_behind(root: Path) -> None:
    process = subprocess.Popen(
        toy.command(root, "run", "toy", "--no-page", "--jobs", "2"),
        env=toy.environ(root, TOY_SECONDS="60"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    locks = root / ".lossboard" / "units" / "toy" / "locks"
    workers = _wait(lambda: [int(text) for path in locks.glob("*.lock") if (text := path.read_text())])
    process.kill()
    process.wait()
    assert workers
    _wait(lambda: not any(_alive(worker) for worker in workers))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _wait(condition, seconds: float = 30):
    """The condition's value once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("did not happen in time")


def test_two_runs_at_once_share_the_work(root: Path) -> None:
    environ = toy.environ(root, TOY_SECONDS="0.1")
    command = toy.command(root, "run", "toy", "--no-page", "--jobs", "2")
    both = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert len(keys(root)) == toy.CELLS
    assert set(keys(root).values()) == {1}


def _heed_ctrl_c() -> None:
    """Undo what a background shell leaves to its children: deaf ears."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_keeps_what_is_finished(root: Path) -> None:
    process = subprocess.Popen(
        toy.command(root, "run", "toy", "--no-page", "--jobs", "1"),
        env=toy.environ(root, TOY_SECONDS="0.3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
    )
    _wait(lambda: len(keys(root)) >= 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert 2 <= len(keys(root)) < toy.CELLS
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    assert set(keys(root).values()) == {1}


FAULTS = {  # word -> status, part of the message, cells that fail of the unit's four
    "die": ("error", "the worker process died", 4),
    "die-trial": ("error", "the worker process died", 2),
    "raise": ("error", "ValueError: a bad cell", 2),
    "contract": ("error", "shape (3,) instead of (4,)", 4),
    "memory": ("oom", "MemoryError", 4),
}


@pytest.mark.parametrize("word", FAULTS)
def test_a_fault_is_a_record_and_spares_the_rest(root: Path, word: str) -> None:
    status, message, count = FAULTS[word]
    (root / "two-1").write_text(word)
    result = toy.call(root, "run", "toy", "--no-page")
    assert result.returncode == 1
    assert f"two: {count} cells failed; {status}: " in result.stderr
    assert message in result.stderr
    found, problems = records.read_units(paths.units("toy"))
    assert not problems
    failed = [record for record in found if record.status != "ok"]
    assert len(found) == toy.CELLS
    assert {(r.method, r.seed, r.status) for r in failed} == {("two", 1, status)}
    assert len(failed) == count
    (root / "two-1").unlink()  # mended: the failed cells alone are tried again
    assert f"{count} failed" in toy.call(root, "plan", "toy").stdout
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0


def test_diverged_is_a_result(root: Path) -> None:
    (root / "two-1").write_text("nan")
    result = toy.call(root, "run", "toy", "--no-page")
    assert result.returncode == 0
    assert "two: 4 runs diverged" in result.stderr
    assert f"{toy.CELLS} done" in toy.call(root, "plan", "toy").stdout


def test_a_damaged_unit_file_is_named_and_measured_again(root: Path) -> None:
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    victim = min((root / ".lossboard" / "units" / "toy").glob("*.jsonl"))
    whole = victim.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[: whole.rindex(b"\n", 0, -1) + 1], b"", b"\x00\xff\n"):
        victim.write_bytes(damage)
        planned = toy.call(root, "plan", "toy")
        assert planned.returncode == 0
        assert victim.name in planned.stderr.replace("\n", "")
        assert "4 missing" in planned.stdout
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    assert f"{toy.CELLS} done" in toy.call(root, "plan", "toy").stdout


def provenance() -> Provenance:
    return Provenance("0" * 40, False, {"python": "3"}, "2026-01-01T00:00:00Z")


def test_a_full_disk_stops_with_one_message_and_keeps_the_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = protocol.load("toy")
    methods = run.suite_methods(suite)
    cells = suite.cells(suite.track("quick"), methods)
    whole, written = os.fsync, []

    def full_after_three(handle: int) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(handle)
        whole(handle)

    monkeypatch.setattr(os, "fsync", full_after_three)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device.*run again"):
        run.execute(suite, cells, methods=methods, provenance=provenance(), pool=pools.serial, jobs=1)
    assert len(keys(root)) == 3 * 4
    assert not list(root.rglob("*.tmp")), "no part of a file is left"
    monkeypatch.undo()
    monkeypatch.setenv("LOSSBOARD_ROOT", str(root))
    run.execute(suite, cells, methods=methods, provenance=provenance(), pool=pools.serial, jobs=1)
    assert len(keys(root)) == toy.CELLS


def test_planning_a_hundred_thousand_cells_reads_each_file_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost is in the reading; the benchmark has the seconds."""
    assert toy.call(root, "run", "toy", "--no-page").returncode == 0
    opened: Counter = Counter()
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.update([path]) or read(path))
    suite = protocol.load("toy")
    cells = suite.cells(suite.track("quick"), run.suite_methods(suite))
    assert len(run.plan(cells, run.suite_methods(suite), records.read_units(paths.units("toy"))[0]).done) == len(cells)
    assert max(opened[path] for path in paths.units("toy").glob("*.jsonl")) == 1


def test_chunks_are_even_and_keep_order() -> None:
    suite_cells = list(range(210))
    parts = list(run.chunks(suite_cells, 70))
    assert [len(part) for part in parts] == [70, 70, 70]
    parts = list(run.chunks(suite_cells[:71], 70))
    assert [len(part) for part in parts] == [36, 35]
    assert [cell for part in parts for cell in part] == suite_cells[:71]


def test_a_worker_ends_with_a_parent_that_died_before_it_looked() -> None:
    code = (
        "import time; from lossboard.pools import _Guarded;"
        "work = _Guarded(time.sleep); work.parent = 1 << 30; work(60); print('stayed')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (1, "")

"""More than one machine: a worker killed in the middle of each pool, folders and branches of two machines merged."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import toy
from test_run import keys, provenance, root  # noqa: F401

from lossboard import paths, pools, protocol, records, run
from lossboard.errors import CheckFailed, UsageError


def installed(name: str) -> pytest.MarkDecorator:
    package = pools.PACKAGES.get(name, "joblib")
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


EVERY_POOL = [pytest.param(name, marks=installed(name)) for name in pools.POOLS]


@pytest.mark.parametrize("pool", EVERY_POOL)
def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(root: Path, pool: str) -> None:  # noqa: F811
    process = subprocess.Popen(
        toy.command(root, "run", "toy", "--no-page", "--jobs", "2", "--pool", pool),
        env=toy.environ(root, TOY_SECONDS="0.5"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    locks = root / ".lossboard" / "units" / "toy" / "locks"
    killed: set[int] = set()
    try:
        while len(killed) < 2 and process.poll() is None:
            at_work = {int(text) for path in locks.glob("*.lock") if (text := _read(path))} - killed
            if at_work and len(keys(root)) > 8 * (len(killed) + 1):  # in the middle: some units are done
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker := min(at_work), signal.SIGKILL)
                    killed.add(worker)
            time.sleep(0.05)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert len(killed) == 2, output
    assert process.returncode == 0, output
    assert keys(root) == Counter(dict.fromkeys(keys(root), 1))
    assert len(keys(root)) == toy.CELLS
    found, problems = records.read_units(root / ".lossboard" / "units" / "toy")
    assert not problems
    assert {record.status for record in found} == {"ok"}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _twice(item: int) -> int:
    if item < 0:
        raise UsageError(f"{item} is negative")
    return 2 * item


@pytest.mark.parametrize("pool", [pytest.param(name, marks=installed(name)) for name in pools.PACKAGES])
def test_a_pool_gives_every_result_once_and_hands_errors_on(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers import this file
    hand_over = pools.named(pool)
    assert sorted(hand_over(_twice, range(20), 2)) == list(range(0, 40, 2))
    with pytest.raises(UsageError, match="-1 is negative"):
        list(hand_over(_twice, [1, -1], 2))


@installed("dask")
def test_gpus_are_a_resource_of_dask_that_its_workers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    assert sorted(pools.named("dask", gpus=0.5)(_twice, range(4), 2)) == [0, 2, 4, 6]


@installed("ray")
def test_gpus_that_ray_does_not_find_are_not_waited_for() -> None:
    with pytest.raises(UsageError, match="--gpus 1000: Ray finds fewer"):
        list(pools.named("ray", gpus=1000)(_twice, range(4), 2))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("--pool", "lokky"), "no pool 'lokky'; there are: loky, dask, ray"),
        (("--gpus", "1"), "--gpus is for --pool dask and ray"),
        (("--shard", "3/2"), "the first of four shares is 1/4"),
    ],
)
def test_a_wrong_call_says_what_is_right(root: Path, call: tuple[str, ...], said: str) -> None:  # noqa: F811
    done = toy.call(root, "run", "toy", "--no-page", *call)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package distributed: pip install -e .\[dask\]"):
        pools.named("dask")


@pytest.fixture
def job(root: Path, monkeypatch: pytest.MonkeyPatch) -> run.Job:  # noqa: F811
    """A unit that another machine, with other processors and another place for its checkout, has planned."""
    suite = protocol.load("toy")
    methods = run.suite_methods(suite)
    cells = suite.cells(suite.track("quick"), methods)
    first = run._jobs(suite, cells, methods, provenance(), paths.units("toy"))[0]
    return replace(first, host="elsewhere", path=Path("/nowhere/at/all") / first.path.name)


def test_records_say_where_they_were_measured(job: run.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_provenance", lambda: replace(provenance(), env={"python": "3", "cpu": "of the worker"}))
    _, done, made = run.perform(job)
    assert done
    (record, *_), _ = records.read_units(paths.units("toy"))
    assert record.header
    assert record.header.env == made.env == {"python": "3", "cpu": "of the worker"}
    assert record.header.started == job.provenance.started


def test_a_machine_at_another_commit_measures_nothing(job: run.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_provenance", lambda: replace(provenance(), commit="1" * 40))
    with pytest.raises(CheckFailed, match=f"{socket.gethostname()} has 1111.*check out the same commit"):
        run.perform(job)


def test_what_workers_wrote_on_their_own_disks_comes_home(root: Path) -> None:  # noqa: F811
    suite = protocol.load("toy")
    methods = run.suite_methods(suite)
    cells = suite.cells(suite.track("quick"), methods)

    def elsewhere(work, items, jobs):
        for item in items:
            yield work(item)
            item.path.unlink()

    def brought(work, items, jobs):
        results = list(elsewhere(work, items, jobs))
        assert not keys(root)
        return iter(results)

    run.execute(suite, cells, methods=methods, provenance=provenance(), pool=brought, jobs=2)
    found, problems = records.read_units(paths.units("toy"))
    assert not problems
    assert len(run.plan(cells, methods, found).done) == len(cells)
    assert set(keys(root).values()) == {1}


def test_items_that_a_pool_blames_fail_alone(root: Path) -> None:  # noqa: F811
    """A pool without a common disk cannot leave locks; it says which items took its workers along."""
    suite = protocol.load("toy")
    methods = run.suite_methods(suite)
    cells = suite.cells(suite.track("quick"), methods)

    def deadly(item: run.Job) -> bool:
        return not item.error and any(c.method == "two" and c.seed == 1 and c.trial == 1 for c in item.unit.cells)

    def pool(work, items, jobs):
        items = list(items)
        yield from (work(item) for item in items if not deadly(item))
        if lost := [item for item in items if deadly(item)]:
            raise pools.WorkerDied("killed", lost)

    run.execute(suite, cells, methods=methods, provenance=provenance(), pool=pool, jobs=2)
    found, _ = records.read_units(paths.units("toy"))
    assert len(found) == toy.CELLS
    failed = [r for r in found if r.status != "ok"]
    assert {(r.method, r.seed, r.trial) for r in failed} == {("two", 1, 1)}
    assert len(failed) == 2, "on both tasks"


# -- merging ---------------------------------------------------------------------------------------


def _git(folder: Path, *args: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


def _commit(folder: Path, message: str) -> None:
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "--message", message)


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """A checkout under git and clones of it on two machines, on branches of their own."""
    home = toy.make(tmp_path / "home")
    _git(home, "init", "--quiet", "--initial-branch", "main")
    (home / ".gitignore").write_text(".lossboard/\n__pycache__/\n")
    _commit(home, "code")
    clones = []
    for name in ("a", "b"):
        clone = tmp_path / name
        _git(tmp_path, "clone", "--quiet", str(home), str(clone))
        _git(clone, "checkout", "--quiet", "-b", name)
        clones.append(clone)
    return [home, *clones]


def test_two_machines_batches_merge_without_conflict(machines: list[Path]) -> None:
    home, *clones = machines
    for clone, only in zip(clones, ("one,two,three", "one,four,five"), strict=True):
        assert toy.call(clone, "run", "toy", "--no-page", "--only", only).returncode == 0
        assert toy.call(clone, "submit", "toy", "--only", only).returncode == 0
        _commit(clone, f"records of {clone.name}")
        _git(home, "fetch", "--quiet", str(clone), f"{clone.name}:{clone.name}")
    _git(home, "merge", "--quiet", "a")
    _git(home, "merge", "--quiet", "--no-edit", "b")  # a conflict would be an error
    assert toy.call(home, "inspect", *map(str, (home / "results").rglob("*.jsonl"))).returncode == 0
    board = json.loads(toy.call(home, "board", "toy", "--json").stdout)
    assert {row["id"] for row in board["rows"]} == {"one", "two", "three", "four", "five"}


def test_shares_of_two_machines_merged_are_the_whole_and_publish_as_one(machines: list[Path]) -> None:
    home, *clones = machines
    for index, clone in enumerate(clones, 1):
        assert toy.call(clone, "run", "toy", "--no-page", "--shard", f"{index}/2").returncode == 0
        assert 0 < len(keys(clone)) < toy.CELLS
        shutil.copytree(clone / ".lossboard" / "units", home / ".lossboard" / "units", dirs_exist_ok=True)
    assert len(keys(home)) == toy.CELLS
    assert set(keys(home).values()) == {1}
    assert f"all {toy.CELLS} cells are done" in toy.call(home, "run", "toy", "--no-page").stdout
    assert toy.call(home, "submit", "toy").returncode == 0
    batches = list((home / "results" / "toy").glob("*/*.jsonl"))
    assert len(batches) == 5, "one for each method, whoever measured it"
    assert toy.call(home, "inspect", *map(str, batches)).returncode == 0

"""Shares, times and budgets: every cell is in one share, whole blocks are measured, cheapest first."""

import json
import random
from collections import Counter
from pathlib import Path
from types import MappingProxyType

import pytest
import toy

from lossboard import planning, protocol, run
from lossboard.errors import UsageError
from lossboard.planning import Share
from lossboard.protocol import Cell


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return toy.make(tmp_path / "checkout")


@pytest.mark.parametrize(
    ("suite", "track"), [("noisy", "quick"), ("noisy", "cpu"), ("calibration", "quick"), ("multilabel", "quick")]
)
@pytest.mark.parametrize("count", [3, 7])
def test_shares_are_a_partition_that_cuts_no_block_and_depends_on_nothing_else(
    suite: str, track: str, count: int
) -> None:
    from lossboard.run import suite_methods

    pinned = protocol.load(suite)
    methods = dict(list(suite_methods(pinned).items())[:9])
    cells = pinned.cells(pinned.track(track), methods)
    shuffled = random.Random(count).sample(cells, len(cells))
    homes: dict[tuple[str, str], set[int]] = {}
    seen: Counter = Counter()
    for index in range(1, count + 1):
        part = planning.shared(pinned, cells, Share(index, count))
        own = {cell.key for cell in part}
        assert [cell.key for cell in cells if cell.key in own] == [cell.key for cell in part], "in the order they came"
        assert {cell.key for cell in planning.shared(pinned, shuffled, Share(index, count))} == {c.key for c in part}
        for cell in part:
            seen[cell.key] += 1
            homes.setdefault((cell.method, cell.task.id), set()).add(index)
    assert seen == Counter(cell.key for cell in cells)
    assert all(len(home) == 1 for home in homes.values())


def test_shares_are_even() -> None:
    from lossboard.run import suite_methods

    pinned = protocol.load("noisy")
    cells = pinned.cells(pinned.track("quick"), suite_methods(pinned))
    sizes = [len(planning.shared(pinned, cells, Share(index, 4))) for index in range(1, 5)]
    assert max(sizes) - min(sizes) <= 210, "of one method on one dataset"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/3", "1/0", "1/2/3", "١/2"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="the first of four shares is 1/4"):
        Share.of(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1d", 86400)])
def test_times(text: str, seconds: float) -> None:
    assert planning.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "1.5h", "10 m", "5w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        planning.duration_s(text)


def test_wall_time_is_bounded_by_the_largest_unit_and_the_sum() -> None:
    chance = random.Random(0)
    for workers in (1, 2, 5, 64):
        costs = [chance.expovariate(1) for _ in range(100)]
        wall = planning.wall_s(costs, workers)
        assert max(max(costs), sum(costs) / workers) - 1e-9 <= wall <= sum(costs) / workers + max(costs)
    assert planning.wall_s([], 3) == 0


def _cells(methods: int, tasks: list[str], seeds: int) -> list[Cell]:
    """Of tasks that differ in their corruption, and the dear ones in their data."""
    found = []
    for name in tasks:
        parts = MappingProxyType({"corruption": protocol.Corruption(name)})
        dataset = "letter" if name == "dear" else "digits"
        task = protocol.Task("toy", 1, "constant", dataset, "0" * 12, parts, f"{dataset}/{name}")
        found += [Cell(f"m{m}", task, seed, 0, {}) for seed in range(seeds) for m in range(methods)]
    return found


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("truth", [0.2, 1.0, 4.0])
def test_a_budget_buys_whole_seeds_of_all_methods_cheapest_first(truth: float) -> None:
    cells = _cells(3, ["dear", "cheap"], 10)
    cost = {cell.key: 5.0 if cell.task.name.endswith("dear") else 1.0 for cell in cells}
    clock, calls = Clock(), []

    def measure(part: list[Cell]) -> None:
        calls.append(part)
        clock.now += truth * sum(cost[cell.key] for cell in part) / 2

    left = planning.spend(60.0, planning.seed_blocks(cells, cost), measure, 2, clock)
    done = [cell for part in calls for cell in part]
    assert Counter(c.key for c in [*done, *(c for block in left for c in block.cells)]) == Counter(c.key for c in cells)
    seen = Counter((cell.task.name, cell.seed) for cell in done)
    assert set(seen.values()) <= {3}, "every method of a seed, or none"
    order = list(dict.fromkeys((cell.task.name, cell.seed) for cell in done))
    assert order == [(name, seed) for name in ("digits/cheap", "letter/dear") for seed in range(10)][: len(order)]
    assert len(done) > 0
    assert clock.now <= 60 * max(truth, 1), "more only by as much as the first estimate was wrong"
    if left:
        assert clock.now + truth * left[0].seconds / 2 > 60, "the next would not have fitted"


def test_a_budget_too_small_for_any_seed_measures_none() -> None:
    cells = _cells(2, ["a"], 2)
    blocks = planning.seed_blocks(cells, dict.fromkeys((cell.key for cell in cells), 100.0))
    assert planning.spend(1.0, blocks, lambda part: pytest.fail("none fits"), 1) == blocks


def test_times_come_from_records_and_else_from_the_suite_in_proportion(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(root))

    class Costs:
        """A unit for each cell: dear tasks are said to take 8 seconds, cheap ones 2."""

        @staticmethod
        def group(cells):
            return [protocol.Unit((cell,), 8.0 if cell.task.name.endswith("dear") else 2.0) for cell in cells]

    monkeypatch.setattr(planning, "suite_module", lambda name: Costs)
    cells = _cells(2, ["dear", "cheap"], 2)
    record = {c.key: run.recorded(c, "ok", {}, seconds=3.0 + c.seed) for c in cells}
    own = [record[c.key] for c in cells if c.method == "m0" and c.task.name.endswith("cheap")]
    found = planning.seconds(protocol.load("toy"), cells, own)
    assert {found[c.key] for c in cells if c.task.name.endswith("cheap")} == {3.5}, "the mean of 3 and 4"
    assert {found[c.key] for c in cells if c.task.name.endswith("dear")} == {8 * 3.5 / 2}
    slow = [run.recorded(c, "ok", {}, seconds=20.0) for c in cells if (c.method, c.task.name) == ("m1", "digits/cheap")]
    noisy = _cells(3, ["noisy"], 1)  # the data and model of "cheap": a method takes what it took there
    found = planning.seconds(protocol.load("toy"), [*cells, *noisy], own + slow)
    assert [found[c.key] for c in noisy] == [3.5, 20.0, (2 * 3.5 + 2 * 20) / 4]
    assert set(planning.seconds(protocol.load("toy"), cells, []).values()) == {8.0, 2.0}


def test_run_with_a_budget_leaves_whole_seeds_for_another_time(root: Path) -> None:
    none = toy.call(root, "run", "toy", "--no-page", "--budget", "1s", "--jobs", "1")
    assert none.returncode == 0, none.stderr
    assert "100 cells, about" in none.stdout, "a second holds none of the ten seeds, of five units of a second each"
    some = toy.call(root, "run", "toy", "--no-page", "--budget", "60s", "--jobs", "2")
    assert some.returncode == 0, some.stderr
    plan = json.loads(toy.call(root, "plan", "toy", "--json").stdout)
    assert plan["done"] % 10 == 0
    assert plan["done"] > 0
    assert toy.call(root, "run", "toy", "--budget", "ten").returncode == 2


def test_plan_says_what_more_workers_save(root: Path) -> None:
    two, many = (
        json.loads(toy.call(root, "plan", "toy", "--json", "--workers", count).stdout) for count in ("2", "64")
    )
    assert (two["seconds"], two["wall_s"], many["wall_s"], many["units"]) == (25, 13, 1, 25)
    assert "the largest of 25 units takes 1 s" in toy.call(root, "plan", "toy", "--workers", "64").stdout


def test_three_shares_on_one_folder_are_the_whole(root: Path) -> None:
    for index in (1, 2, 3):
        done = toy.call(root, "run", "toy", "--no-page", "--shard", f"{index}/3")
        assert done.returncode == 0, done.stderr
    last = toy.call(root, "run", "toy", "--no-page")
    assert f"all {toy.CELLS} cells are done" in last.stdout

"""Boards: selection by validation, coverage, failures, stale rows, comparison."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from lossboard import board, protocol, records, sources
from lossboard.records import Header, Record

HEADER = Header("toy", "toy_method", "s", "0" * 40, False, {}, {}, "2026", "batch")


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> protocol.Suite:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(toy.make(tmp_path)))
    monkeypatch.setattr(board, "source", lambda module: "s")
    return protocol.load("toy")


def fill(suite: protocol.Suite, method: str, score, val=None, **more) -> list[Record]:
    """A record for each cell: score(task, seed, trial) and val likewise."""
    val = val or score
    return [
        Record(
            method, task.name, task.id, seed, trial, {"lr": [0.1, 0.2][trial]}, "ok",
            {"last": score(task.name, seed, trial), "val": val(task.name, seed, trial)}, header=HEADER, **more,
        )
        for task in suite.track("quick").tasks
        for seed in range(5)
        for trial in range(2)
    ]  # fmt: skip


def build(suite: protocol.Suite, records: list[Record], **more) -> board.Board:
    return board.build(suite, suite.track("quick"), records, **more)


def noise(seed: int) -> float:
    return [0.0, 0.01, -0.01, 0.004, 0.001][seed]


def test_of_an_error_the_smaller_is_better_and_a_failure_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(toy.make(tmp_path / "error", toy.PINS.replace("[metrics]", ERROR, 1))))
    monkeypatch.setattr(board, "source", lambda module: "s")
    suite = protocol.load("toy")
    low = fill(suite, "a", lambda task, seed, trial: 0.2 + noise(seed))
    high = fill(suite, "b", lambda task, seed, trial: 0.3 + noise(seed) / 2)
    failed = [replace(record, method="c", status="diverged", metrics={}) for record in low]
    shown = build(suite, [*high, *failed, *low])
    assert [(row.method, row.rank) for row in shown.rows] == [("a", (1, 1)), ("b", (2, 2)), ("c", (3, 3))]
    first, second, last = shown.rows
    assert shown.scale.smaller
    assert shown.scale.interval(first.score, 0.01) == "20.10±1.00"
    assert shown.scale.text(last.score) == "100.00"
    difference = board.difference(first, second, suite.track("quick").tasks)
    assert difference is not None
    assert shown.scale.difference(difference[0]) == "+9.95", "a gain"


ERROR = '[metrics]\nscale = "error"'


def test_the_trial_is_chosen_by_validation_task_by_task_and_never_by_test(suite: protocol.Suite) -> None:
    def test_score(task: str, seed: int, trial: int) -> float:
        return (0.5 if trial else 0.8) + noise(seed)

    def val(task: str, seed: int, trial: int) -> float:
        return 0.9 if trial == (task == "digits/dirty") else 0.1

    (row,) = build(suite, fill(suite, "a", test_score, val)).rows
    assert row.tasks["digits/clean"].trial == 0
    assert row.tasks["digits/dirty"].trial == 1, "though its test score is lower"
    assert row.tasks["digits/dirty"].mean == pytest.approx(0.501)
    assert row.tasks["digits/dirty"].params == {"lr": 0.2}
    (default,) = build(suite, fill(suite, "a", test_score, val), kind="default").rows
    assert default.tasks["digits/dirty"].trial == 0


def test_equal_trials_go_to_the_lower_number(suite: protocol.Suite) -> None:
    (row,) = build(suite, fill(suite, "a", lambda *_: 0.5)).rows
    assert {score.trial for score in row.tasks.values()} == {0}


def test_ranks_ties_and_order(suite: protocol.Suite) -> None:
    records = fill(suite, "good", lambda t, s, k: 0.9 + noise(s))
    records += fill(suite, "twin", lambda t, s, k: 0.9 + noise(4 - s))
    records += fill(suite, "poor", lambda t, s, k: 0.3 + 1.5 * noise(s))
    rows = {row.method: row for row in build(suite, records).rows}
    assert rows["good"].rank == rows["twin"].rank == (1, 2)
    assert rows["poor"].rank == (3, 3)
    assert (rows["good"].group, rows["twin"].group, rows["poor"].group) == (1, 1, 2)
    assert rows["good"].score == pytest.approx(0.901)


def test_failures_count_as_zero_and_are_shown(suite: protocol.Suite) -> None:
    records = fill(suite, "a", lambda *_: 0.8)
    broken = [replace(r, status="diverged", metrics={}) if r.seed == 0 else r for r in records]
    (row,) = build(suite, broken).rows
    assert row.coverage == 1, "diverged is a result"
    assert row.tasks["digits/clean"].mean == pytest.approx(0.64)
    assert row.failures == 2
    assert row.rank == (1, 1)


def test_missing_cells_and_errors_take_the_rank(suite: protocol.Suite) -> None:
    whole = fill(suite, "whole", lambda t, s, k: 0.5 + noise(s))
    part = fill(suite, "part", lambda *_: 0.9)
    failed = [replace(r, status="oom", metrics={}) if r.seed == 1 else r for r in fill(suite, "failed", lambda *_: 0.9)]
    shown = build(suite, [*whole, *part[:-1], *failed])
    rows = {row.method: row for row in shown.rows}
    assert [row.method for row in shown.rows] == ["whole", "part", "failed"]
    assert rows["part"].rank is None
    assert rows["part"].coverage == pytest.approx(19 / 20)
    assert rows["failed"].coverage == pytest.approx(16 / 20)


def test_stale_rows_are_listed_and_not_ranked(suite: protocol.Suite) -> None:
    records = fill(suite, "a", lambda *_: 0.5)
    old = [replace(r, header=replace(HEADER, source="old")) for r in fill(suite, "b", lambda *_: 0.9)]
    rows = {row.method: row for row in build(suite, [*records, *old]).rows}
    assert rows["b"].stale
    assert rows["b"].rank is None
    assert rows["a"].rank == (1, 1)


def test_trials_of_another_budget_are_stale(suite: protocol.Suite) -> None:
    records = [replace(r, params={"lr": 0.3}) if r.trial else r for r in fill(suite, "a", lambda *_: 0.5)]
    assert build(suite, records).rows[0].stale
    assert not build(suite, records, kind="default").rows[0].stale


def test_seeds_may_be_fewer(suite: protocol.Suite) -> None:
    shown = build(suite, [r for r in fill(suite, "a", lambda t, s, k: 0.1 * s) if r.seed < 2], seeds=[0, 1])
    assert shown.seeds == (0, 1)
    assert shown.rows[0].coverage == 1
    assert shown.rows[0].score == pytest.approx(0.05)


def test_json_has_a_row_a_method(suite: protocol.Suite) -> None:
    import json

    data = json.loads(json.dumps(build(suite, fill(suite, "a", lambda t, s, k: 0.8 + noise(s))).json()))
    (row,) = data["rows"]
    assert row["id"] == "a"
    assert row["rank"] == [1, 1]
    assert row["coverage"] == 1
    assert row["tasks"]["digits/dirty"]["mean"] == pytest.approx(0.801)
    assert row["tasks"]["digits/dirty"]["half"] > 0
    assert row["batches"] == ["batch"]


def test_comparison_with_other_records_of_the_same_cells(suite: protocol.Suite) -> None:
    ours = fill(suite, "a", lambda *_: 0.5, bits="00")
    theirs = [replace(r, bits="11", metrics={"last": 0.54}) if r.task == "digits/dirty" else r for r in ours]
    same = board.compare(suite, ours, theirs)
    assert (same.cells, same.with_bits, same.same_bits) == (20, 20, 10)
    half = [replace(r, bits="") if r.task == "digits/clean" else r for r in ours]  # nothing was trained there
    same_half = board.compare(suite, half, theirs)
    assert (same_half.cells, same_half.with_bits, same_half.same_bits) == (20, 10, 0)
    assert same.largest == pytest.approx(0.04)
    assert "a on digits/dirty" in same.where
    other_params = [replace(r, params={"lr": 9.0}) for r in theirs]
    assert board.compare(suite, ours, other_params).cells == 0


def test_boards_and_records_need_no_torch() -> None:
    script = (
        "import sys; from lossboard import board, records, statistics, protocol, explain, submission, cli;"
        "s = protocol.load('noisy'); found, _ = records.read_results(cli.paths.results(), 'noisy');"
        "board.build(s, s.track('quick'), found);"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_the_command_board_imports_no_torch() -> None:
    script = (
        "import sys, runpy; sys.argv = ['lossboard', 'board', 'noisy', '--json']\n"
        "try: runpy.run_module('lossboard', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)


def test_a_record_is_current_with_the_source_and_the_trial_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOSSBOARD_ROOT", raising=False)
    suite = protocol.load("noisy")
    current = board.currency(suite)
    task = suite.track("quick").tasks[0]
    header = replace(HEADER, module="reference.losses.gce", source=sources.source("reference.losses.gce") or "")
    record = Record("gce", task.name, task.id, 0, 1, {"lr": 0.01}, "ok", {}, header=header)
    assert current(record)
    assert not current(replace(record, params={"lr": 0.02}))
    assert not current(replace(record, trial=2))
    assert not current(replace(record, header=replace(header, source="0" * 12)))


def test_seeds_that_only_some_blocks_pin(suite: protocol.Suite) -> None:
    (block,) = suite.track("quick").blocks
    more = replace(
        block, tasks=(replace(block.tasks[0], name="letter/clean", dataset="letter", data="0"),), seeds=(0, 1)
    )
    track = replace(suite.track("quick"), blocks=(block, more))
    shown = board.build(suite, track, fill(suite, "a", lambda t, s, k: 0.5 + noise(s)), seeds=[4])
    assert shown.tasks == ("digits/clean", "digits/dirty")
    assert shown.rows[0].coverage == 1


def test_what_is_shown_is_of_the_code_of_now_where_there_is_any(suite: protocol.Suite) -> None:
    """A method that was measured whole, changed, and measured again on one seed, where it fails."""
    current = board.currency(suite)
    whole = [replace(r, header=replace(HEADER, source="old")) for r in fill(suite, "a", lambda *_: 0.9)]
    first = whole[0]
    assert len(records.shown(whole, current)) == len(whole), "what is stale is shown where nothing else is"
    failed = replace(first, status="error", metrics={}, header=HEADER)
    found = records.shown([*whole, failed], current)
    same = [r for r in found if (r.id, r.trial) == (first.id, first.trial)]
    assert same == [failed]
    assert len(found) == len([r for r in whole if (r.id, r.trial) != (first.id, first.trial)]) + 1
    twice = replace(first, metrics={"accuracy": 0.1}, header=HEADER)
    assert records.shown([twice, failed], current) == [twice], "one record a cell, and a result before a failure"

"""The benchmarks of this commit run, asv knows them all, and the command says by its exit code how they fared."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tracked
from benchmarks.cases import Case, cases
from lossboard.errors import UsageError

history = pytest.importorskip("benchmarks.history", reason="asv is not installed: pip install .[dev]")
Outcome, Value = history.Outcome, history.Value
ROOT = Path(__file__).parents[2]


# -- the benchmarks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("time_", "track_"), ids=str)
def test_a_benchmark_runs_once(case: Case) -> None:
    try:
        call = case.ready()
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    found = call()
    assert (found > 0) if case.method.startswith("track_") else (found is None)


def test_each_has_an_explicit_version_a_unit_or_a_clock_and_names_for_its_parameters() -> None:
    for case in cases("time_", "track_"):
        assert type(case.owner.version) is str, case
        assert len(case.owner.param_names) == len(case.owner.params) == len(case.params), case
        assert hasattr(case.owner, "timer") == case.method.startswith("time_"), case
        assert (getattr(case.owner, "unit", None) == "bytes") == case.method.startswith("track_"), case


def test_asv_finds_the_same_benchmarks() -> None:
    code = "import sys; from asv_runner.discovery import list_benchmarks; list_benchmarks(sys.argv[1], sys.stdout)"
    command = [sys.executable, "-c", code, str(Path(tracked.__file__).parent)]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = {each["name"] for each in json.loads(listed.stdout)}
    assert found == {str(case).split("-")[0] for case in cases("time_", "track_", "peakmem_")}


def test_a_benchmark_of_something_absent_is_skipped() -> None:
    from benchmarks.tracked.base import may_be_absent
    from benchmarks.tracked.kernels import Softmax
    from benchmarks.tracked.losses import Losses

    with pytest.raises(NotImplementedError), may_be_absent():
        from lossboard import no_such_thing  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(NotImplementedError):
        Softmax().setup("no_such_thing", "1x1024")
    with pytest.raises(NotImplementedError):
        Losses().setup("no_such_thing", "8x8")


def test_memory_is_what_a_call_adds_at_its_peak() -> None:
    import torch

    from benchmarks.tracked.memory import beyond, measurable

    try:
        measurable()
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    live = torch.ones(4 << 20)  # 16 MiB, which do not count
    one = beyond(lambda: live + 1)
    two = beyond(lambda: (live + 1).mul(live + 2))
    assert one == pytest.approx(16 << 20, abs=2 << 20)  # the kernel counts pages in lots
    assert two == pytest.approx(48 << 20, abs=2 << 20)


# -- the configuration -------------------------------------------------------------------------------------------------


def test_the_configuration_loads_and_pins_what_the_constraints_do() -> None:
    config = history.config()
    assert Path(config.benchmark_dir).resolve() == Path(tracked.__file__).parent
    assert (ROOT / config.results_dir).resolve() == ROOT / "results" / "asv"
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert config.matrix["req"] == {name: [pins[name]] for name in ("torch", "numba")}
    ignored = subprocess.run(["git", "check-ignore", "-q", config.env_dir], cwd=ROOT)
    assert ignored.returncode == 0


def test_a_machines_name_is_that_of_a_folder() -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", history.machine_name())


# -- what became of a benchmark ----------------------------------------------------------------------------------------


def value(*samples: float, version: str = "1") -> Any:
    """A result of these samples, with the statistics that asv makes of them."""
    from asv_runner.statistics import compute_stats

    middle, stats = compute_stats(list(samples), 1)
    return Value(middle, stats, list(samples), version)


def track(found: float | None) -> Any:
    return Value(found, None, None, "1")


STEADY = [1.0 + 0.001 * i for i in range(12)]
SLOW = [1.5 + 0.001 * i for i in range(12)]
NOISY = [0.7, 1.9, 0.8, 1.8, 0.9, 2.1, 1.0, 2.2, 0.6, 2.3, 0.75, 1.95]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (value(*STEADY), value(*SLOW), Outcome.WORSE),
        (value(*SLOW), value(*STEADY), Outcome.BETTER),
        (value(*STEADY), value(*STEADY[::-1]), Outcome.SAME),
        (value(*STEADY), value(*[1.05 * each for each in STEADY]), Outcome.SAME),  # significant, but small
        (value(*STEADY), value(*NOISY), Outcome.SAME),  # large in the median, but not significant
        (value(*STEADY), value(*SLOW, version="2"), Outcome.NEW),
        (track(100.0), track(120.0), Outcome.WORSE),
        (track(100.0), track(101.0), Outcome.SAME),
        (track(100.0), track(None), Outcome.FAILED),
        (track(math.nan), track(None), Outcome.FAILED),
        (track(100.0), track(math.nan), Outcome.MISSING),
        (track(100.0), None, Outcome.MISSING),
        (track(math.nan), track(math.nan), Outcome.SKIPPED),
        (track(None), track(math.nan), Outcome.SKIPPED),
        (track(None), track(1.0), Outcome.NEW),
        (track(math.nan), track(1.0), Outcome.NEW),
        (None, track(1.0), Outcome.MISSING),
    ],
)
def test_two_values_have_an_outcome(before: Any, after: Any, expected: Any) -> None:
    assert history.outcome(before, after) is expected


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.SAME, Outcome.BETTER, Outcome.NEW, Outcome.SKIPPED], 0),
        ([Outcome.SAME, Outcome.WORSE], 1),
        ([Outcome.WORSE, Outcome.FAILED], 1),
        ([Outcome.SAME, Outcome.FAILED], 3),
        ([Outcome.SAME, Outcome.MISSING], 3),
        ([Outcome.SKIPPED], 3),
        ([], 3),
    ],
)
def test_the_exit_code_tells_a_regression_from_what_did_not_run(outcomes: list[Any], code: int) -> None:
    assert history.exit_code(outcomes) == code


# -- commits and results -----------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of four commits of a checkout of its own, oldest first."""
    monkeypatch.setenv("LOSSBOARD_ROOT", str(tmp_path))
    (tmp_path / "asv.conf.json").write_text((ROOT / "asv.conf.json").read_text())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for i in range(4):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", str(i)], check=True)
    done = subprocess.run([*git, "rev-list", "--reverse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_range_begins_with_the_commit_before_it(repository: list[str]) -> None:
    assert history.commits("HEAD") == repository[2:]
    assert history.commits("HEAD~1") == repository[1:3]
    assert history.commits("HEAD~2..HEAD") == repository[1:]


@pytest.mark.parametrize("span", ["nothing", "HEAD..HEAD", "HEAD~3", "--all"])
def test_a_range_that_is_none_is_a_wrong_call(repository: list[str], span: str) -> None:
    with pytest.raises(UsageError):
        history.commits(span)


def save(root: Path, commit: str, times: list[float | None], hours: int = 0) -> None:
    """Results of one benchmark with a parameter, and what asv keeps beside them."""
    from asv.results import Results

    folder = root / "results" / "asv"
    params = [[repr(str(i)) for i in range(len(times))]]
    made = Results({"machine": "box"}, {}, commit, 1_790_000_000_000, "3.11", "env", {})
    made._results, made._benchmark_params = {"a.A.track_it": times}, {"a.A.track_it": params}
    made._stats, made._samples, made._benchmark_version = (
        {"a.A.track_it": None},
        {"a.A.track_it": None},
        {"a.A.track_it": "1"},
    )
    made._started_at = {"a.A.track_it": 1_790_000_000_000 + 3_600_000 * hours}
    made.save(str(folder))
    (folder / "box" / "machine.json").write_text(json.dumps({"machine": "box", "version": 1}))
    bench = {
        "name": "a.A.track_it",
        "params": params,
        "version": "1",
        "type": "track",
        "unit": "bytes",
        "param_names": ["i"],
    }
    (folder / "benchmarks.json").write_text(json.dumps({"a.A.track_it": bench, "version": 2}))


def test_the_last_two_commits_are_compared_and_what_differs_is_printed(
    repository: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = history.paths.root()
    save(root, repository[2], [100.0, 100.0, 100.0])
    save(root, repository[3], [100.0, 150.0, 50.0])
    monkeypatch.setattr(history, "measure", lambda *given: None)
    monkeypatch.setattr(history, "register", lambda machine: None)
    monkeypatch.setattr("sys.argv", ["history", "--machine", "box"])
    assert history.main() == 1
    told = capsys.readouterr().out
    assert "measured again, because they look worse: a.A.track_it\n" in told
    assert re.search(r"worse +100 -> 150 +a\.A\.track_it\('1'\)", told)
    assert "1 worse, 1 better, 1 same" in told
    assert "--again" not in told
    save(root, repository[3], [100.0, None, 50.0], hours=30)
    assert history.main() == 3
    told = capsys.readouterr().out
    assert "1 failed" in told
    assert "30 hours apart" in told
    monkeypatch.setattr("sys.argv", ["history", "--machine", "box", "HEAD~1"])  # its older commit has no results
    assert history.main() == 3
    monkeypatch.setattr("sys.argv", ["history", "--machine", "box", "HEAD~2"])  # nor have these two
    assert history.main() == 3
    monkeypatch.setattr("sys.argv", ["history", "--machine", "box", "--bench", "no such"])
    assert history.main() == 3
    monkeypatch.setattr("sys.argv", ["history", "no-such-range"])
    assert history.main() == 2


def test_what_is_worse_once_only_is_the_same(repository: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, older, newer = history.paths.root(), *repository[2:]
    asked = []

    def measure(machine: str, hashes: list[str], pattern: str, again: bool) -> None:
        asked.append(
            (hashes, again, [name for name in ("a.A.track_it('0')", "a.A.track_it2") if re.search(pattern, name)])
        )
        save(root, older, [100.0, 100.0, 100.0])
        save(root, newer, [150.0, 150.0, 100.0] if len(asked) == 1 else [150.0, 100.0, 150.0])

    monkeypatch.setattr(history, "measure", measure)
    found = history.measured("box", repository, "track_it", again=False)
    assert [what for what, *_ in found.values()] == [Outcome.WORSE, Outcome.SAME, Outcome.SAME]
    assert asked[0][:2] == (repository, False)
    assert asked[1:] == [([older, newer], True, ["a.A.track_it('0')"])]
    assert list(history.compared("box", older, newer, r"'2'")) == ["a.A.track_it('2')"]

"""Performance over commits: asv's files are read as asv reads them, hostile ones refused; the page shows them."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossboard import history, paths, performance, records
from lossboard.history import Point
from lossboard.publish import publish

EVIL = "<script>alert('1')</script>&"
COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"]
SOFTMAX, MEMORY = "kernels.Softmax.time_softmax", "kernels.Memory.track_peak"
BENCHMARKS: dict[str, Any] = {
    SOFTMAX: {
        "name": SOFTMAX,
        "params": [["'auto'", "'eager'"], ["'1x8'", "'8x8'"]],
        "unit": "seconds",
        "version": "1",
    },
    MEMORY: {"name": MEMORY, "params": [], "unit": "bytes", "version": "2"},
    "version": 2,
}
MACHINE = {"machine": "box", "cpu": f"A {EVIL}", "num_cpu": "2", "arch": "x86_64", "os": "Linux", "ram": "8 GiB"}


def commit(number: int) -> str:
    return f"{number:08x}" * 5


def results(number: int, **changes: Any) -> dict[str, Any]:
    """The file of a commit; each is a day later and a tenth slower."""
    times = [base * 1.1**number for base in (1e-3, 5e-3, 2e-3, 9e-3)]
    low, high = ([factor * time for time in times] for factor in (0.99, 1.02))
    params = BENCHMARKS[SOFTMAX]["params"]
    content = {
        "commit_hash": commit(number),
        "env_name": "virtualenv-py3.11-torch2.13.0",
        "date": 1_790_000_000_000 + 86_400_000 * number,
        "result_columns": COLUMNS,
        "results": {
            SOFTMAX: [times, params, "1", 0, 1.0, low, high],
            MEMORY: [[float(10_000_000 + number)], [], "2", 0, 1.0],
        },
        "version": 2,
    }
    return content | changes


def write(folder: Path, *contents: dict[str, Any], machine: str = "box") -> Path:
    """A store of results as asv lays it out."""
    place = folder / machine
    place.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(BENCHMARKS))
    (place / "machine.json").write_text(json.dumps(MACHINE | {"machine": machine}))
    for content in contents:
        name = f"{str(content['commit_hash'])[:8]}-{str(content['env_name'])[:40]}.json".replace("/", "_")
        (place / name).write_text(json.dumps(content))
    return folder


# -- reading -----------------------------------------------------------------------------------------------------------


def test_values_come_by_benchmark_and_setting_in_order_of_commits(tmp_path: Path) -> None:
    (found,), problems = history.read(write(tmp_path, results(2), results(0), results(1)))
    assert problems == []
    assert found.commits == [commit(0), commit(1), commit(2)]
    names = [(each.benchmark, each.setting) for each in found.series]
    settings = [("auto", "1x8"), ("auto", "8x8"), ("eager", "1x8"), ("eager", "8x8")]
    assert names == [(MEMORY, ()), *((SOFTMAX, setting) for setting in settings)]
    peak, first = found.series[:2]
    assert [point.value for point in peak.points] == [10_000_000, 10_000_001, 10_000_002]
    assert [(point.low, point.high) for point in peak.points] == [(point.value, point.value) for point in peak.points]
    assert [point.value for point in first.points] == pytest.approx([1e-3, 1.1e-3, 1.21e-3])
    assert [point.low for point in first.points] == pytest.approx([0.99e-3, 1.089e-3, 1.1979e-3])


def test_it_reads_what_asv_writes(tmp_path: Path) -> None:
    asv_results = pytest.importorskip("asv.results", reason="asv is not installed")
    write(tmp_path)
    stats = {"ci_99_a": 1.0, "ci_99_b": math.inf, "q_25": 1.1, "q_75": 1.3, "number": 1, "repeat": 2}
    made = asv_results.Results({"machine": "box"}, {}, commit(7), 1_790_000_000_000, "3.11", "env-py3.11", {})
    made._results = {SOFTMAX: [1.2, math.nan, None, 3.0], MEMORY: None}
    made._stats = {SOFTMAX: [stats, None, None, stats], MEMORY: None}
    made._samples = {SOFTMAX: [[1.1, 1.3], None, None, [3.0]], MEMORY: None}
    made._benchmark_params = {name: BENCHMARKS[name]["params"] for name in (SOFTMAX, MEMORY)}
    made._benchmark_version = {SOFTMAX: "1", MEMORY: "2"}
    made.save(str(tmp_path))
    (found,), problems = history.read(tmp_path)
    assert problems == []
    points = {each.setting: each.points for each in found.series}  # skipped and failed ones are left out
    when = 1_790_000_000_000
    assert points[("auto", "1x8")] == (Point(commit(7), when, 1.2, 1.0, 1.2),)  # an open end is the value itself
    assert points.keys() == {("auto", "1x8"), ("eager", "8x8")}


def test_other_versions_and_benchmarks_that_are_gone_are_left_out(tmp_path: Path) -> None:
    content = results(0)
    content["results"][SOFTMAX][2] = "0"
    content["results"]["gone.Gone.time_it"] = content["results"][SOFTMAX]
    (found,), problems = history.read(write(tmp_path, content))
    assert problems == []
    assert [each.benchmark for each in found.series] == [MEMORY]


def test_environments_and_machines_are_apart_the_latest_first(tmp_path: Path) -> None:
    write(tmp_path, results(0), results(1), results(1, env_name="other"))
    write(tmp_path, results(5), machine="tower")
    found, _ = history.read(tmp_path)
    assert [(each.machine, each.environment, len(each.commits)) for each in found] == [
        ("tower", "virtualenv-py3.11-torch2.13.0", 1),
        ("box", "virtualenv-py3.11-torch2.13.0", 2),
        ("box", "other", 1),
    ]


def nothing(folder: Path) -> None:
    """There is no folder at all."""


@pytest.mark.parametrize("make", [nothing, Path.mkdir])
def test_no_results_are_no_problem_unless_files_are_missing(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "asv")
    found, problems = history.read(tmp_path / "asv")
    assert found == []
    assert len(problems) == (tmp_path / "asv").is_dir()


def softmax(column: int, value: Any) -> dict[str, Any]:
    content = results(0)
    content["results"][SOFTMAX][column] = value
    return content


BAD: dict[str, Any] = {
    "commit": results(0, commit_hash="../../etc"),
    "commit of another name": results(0) | {"commit_hash": commit(1), "name": commit(0)},
    "commit that is a number": results(0, commit_hash=5),
    "date before 1970": results(0, date=-1),
    "date far away": results(0, date=10**18),
    "date as text": results(0, date="2026"),
    "environment with a path": results(0, env_name="../x"),
    "environment of tags": results(0, env_name=EVIL),
    "columns missing": {key: value for key, value in results(0).items() if key != "result_columns"},
    "columns as a number": results(0, result_columns=3),
    "results as a list": results(0, results=[1]),
    "row as a number": results(0, results={SOFTMAX: 5}),
    "value as text": softmax(0, ["1"] * 4),
    "value negative": softmax(0, [-1.0] * 4),
    "value as true": softmax(0, [True] * 4),
    "value huge": softmax(0, [10**400] * 4),
    "too few values": softmax(0, [1.0]),
    "parameters as numbers": softmax(1, [[1, 2], [3, 4]]),
    "parameters too long": softmax(1, [["x" * 1000, "y"], ["a", "b"]]),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_named_and_the_others_are_read(tmp_path: Path, content: dict[str, Any]) -> None:
    write(tmp_path, results(3))
    (tmp_path / "box" / f"{commit(0)[:8]}-bad.json").write_text(json.dumps(content))
    (found,), problems = history.read(tmp_path)
    assert found.commits == [commit(3)]
    assert len(problems) == 1
    assert str(tmp_path / "box" / f"{commit(0)[:8]}-bad.json") in problems[0]
    assert len(problems[0]) < 700 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff", '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("name", ["benchmarks.json", "box/machine.json", "box/00000000-env.json"])
def test_what_is_not_json_is_named(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, results(3))
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    _, problems = history.read(tmp_path)
    assert len(problems) == 1
    assert str(tmp_path / name) in problems[0]


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path)
    with open(tmp_path / "box" / "00000000-env.json", "wb") as file:
        file.truncate(history.LARGEST_FILE_BYTES + 1)
    assert "larger than" in history.read(tmp_path)[1][0]


def test_parameters_that_multiply_are_refused(tmp_path: Path) -> None:
    many = [[str(i) for i in range(100)]] * 50
    write(tmp_path, softmax(1, many))
    assert len(history.read(tmp_path)[1]) == 1
    wide = BENCHMARKS | {SOFTMAX: BENCHMARKS[SOFTMAX] | {"params": many}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(wide))
    assert "more than" in history.read(tmp_path)[1][0]


def test_a_machine_in_the_folder_of_another_is_refused(tmp_path: Path) -> None:
    write(tmp_path, results(0))
    shutil.move(tmp_path / "box", tmp_path / "other")
    found, problems = history.read(tmp_path)
    assert found == []
    assert "the folder other" in problems[0]


def test_records_of_suites_are_read_past_it(tmp_path: Path) -> None:
    write(tmp_path / "asv", results(0))
    assert records.read_results(tmp_path, "noisy") == ([], [])
    assert records.retracted(tmp_path) == {}


def test_the_published_results_are_sound() -> None:
    found, problems = history.read(Path(__file__).parents[1] / "results" / "asv")
    assert problems == []
    assert max(len(each.commits) for each in found) >= 5


# -- showing -----------------------------------------------------------------------------------------------------------


def points(*values: tuple[float, float, float]) -> list[Point]:
    return [Point(commit(i), i, *each) for i, each in enumerate(values)]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ((1.0, 0.9, 1.1), (1.5, 1.4, 1.6), "worse"),
        ((1.5, 1.4, 1.6), (1.0, 0.9, 1.1), "better"),
        ((1.0, 0.9, 1.1), (1.05, 1.11, 1.12), "open"),  # apart, but by less than a tenth
        ((1.0, 0.5, 1.5), (1.5, 1.4, 1.6), "open"),  # by more, but not apart
        ((100.0, 100.0, 100.0), (120.0, 120.0, 120.0), "worse"),  # bytes have no interval
    ],
)
def test_a_change_is_by_a_tenth_and_beyond_the_intervals(before: Any, after: Any, kind: str) -> None:
    found = performance.change(points(before, after))
    assert found
    assert found.kind == kind


def test_one_value_or_zero_is_no_change() -> None:
    assert performance.change(points((1.0, 1.0, 1.0))) is None
    assert performance.change(points((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))) is None


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(Path(__file__).parents[1] / "site", tmp_path / "site")
    monkeypatch.setenv("LOSSBOARD_ROOT", str(tmp_path))
    return tmp_path


def test_the_page_has_every_number_and_charts_and_needs_no_script(root: Path) -> None:
    write(paths.results() / "asv", *map(results, range(8)))
    write(paths.results() / "asv", results(2), machine="tower")
    bad = paths.results() / "asv" / "box" / "bad.json"
    bad.write_text(json.dumps({EVIL: 1}))
    out = publish(root / "out", {}).parent
    page = (out / "history.html").read_text("utf-8")
    assert 'href="history.html"' in (out / "index.html").read_text("utf-8")
    for number in range(2, 8):  # the latest
        assert f"<code>{commit(number)[:7]}</code>" in page
    assert f"{1.1**7:.3g} ms" in page
    assert page.count("+10 %") == 4
    assert page.count('<svg role="img"') == 6
    assert EVIL not in page
    assert "results/asv/box/bad.json" in page
    assert str(root) not in page
    assert len(page) < 300_000
    for link in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert (out / link).is_file(), link
    rows = json.loads((out / "data" / "history.json").read_text())["rows"]
    assert len(rows) == 9 * 5
    assert {"machine": "box", "setting": "auto 1x8", "value": 1e-3}.items() <= next(
        row for row in rows if row["commit"] == commit(0) and row["benchmark"] == SOFTMAX
    ).items()


def test_charts_that_are_too_much_for_a_page_are_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(paths.results() / "asv", *map(results, range(8)))
    write(paths.results() / "asv", results(2), machine="tower")
    whole = (publish(root / "whole", {}).parent / "history.html").read_text("utf-8")
    first = whole.split("<svg ", 1)[1].split("</svg>")[0]
    monkeypatch.setattr(performance, "INLINE", len(first) + 10)
    out = publish(root / "out", {}).parent
    page = (out / "history.html").read_text("utf-8")
    assert page.count('<svg role="img"') == 1
    images = re.findall(r'<img src="(charts/history-[12]-\d\.svg)"', page)
    assert len(images) == 5
    assert all((out / image).is_file() for image in images)


def test_two_builds_are_the_same_bytes_and_an_empty_one_says_how_to_begin(root: Path) -> None:
    out = publish(root / "out", {}).parent
    assert "nox -s asv" in (out / "history.html").read_text("utf-8")
    write(paths.results() / "asv", *map(results, range(60)))
    first, second = (publish(root / name, {}).parent for name in ("first", "second"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert Path("history.html") in files
    assert Path("charts/history-1-0.svg") in files
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert len((first / "history.html").read_bytes()) < 300_000

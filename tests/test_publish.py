"""The site: complete, escaped, the same bytes twice, and showing what the boards say. All records here are invented."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import urldefrag, urlsplit

import pytest

from lossboard import board, datasets, paths, protocol, records
from lossboard.markup import bibtex, mathml, prose
from lossboard.names import page_name, stem
from lossboard.publish import MANIFEST, publish
from lossboard.records import Header, Record, StoreError
from lossboard.sources import source
from reference.methods import Method, catalogue

ENV = {"python": "3.11.2", "torch": "2.11.0", "cpu": "A <processor> & co"}
METHODS = ("ce", "gce", "mae", "nce_rce")
SCRIPTS = ("methods.js", "search.js", "board.js")
EVIL = "<script>alert('1')</script>\"&"


def header(method: str, **changes: object) -> Header:
    """Provenance of a current record; a method that is not in the catalogue borrows the control's module."""
    known = catalogue("loss")
    module = known[method if method in known else "ce"].module
    made = Header(
        "noisy",
        module,
        source(module) or "",
        "0123456789abcdef" * 2 + "01234567",
        False,
        ENV,
        {},
        "2026-01-02T03:04:05Z",
        "unit",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def invented(
    methods: Iterable[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    track: str = "quick",
    head: Callable[[str], Header] = header,
) -> list[Record]:
    """Plausible records of every cell of a track: accuracy falls with the noise, each method in its own way."""
    found = []
    pinned = protocol.load("noisy")
    known = catalogue("loss")
    for method in methods:
        spec, shared = known.get(method, known["ce"]), head(method)
        for block in pinned.track(track).blocks:
            for task in block.tasks:
                trials = block.budget.of(spec, task.rate)
                for seed in block.seeds if track != "quick" else seeds:
                    for trial, params in enumerate(trials):
                        found.append(_cell(method, task, seed, trial, params, shared))
    return found


def _cell(method: str, task: protocol.Task, seed: int, trial: int, params: dict[str, float], shared: Header) -> Record:
    own, luck = random.Random(ascii(method)), random.Random(f"{task.name} {seed}")
    height, strength = 0.9 + 0.06 * own.random(), 0.2 + 0.8 * own.random() ** 2
    fall = strength * task.corruption.rate ** (1.5 + own.random())
    noise = random.Random(f"{method!a} {task.name} {seed} {trial}").gauss(0, 0.006) + luck.gauss(0, 0.01)
    last = min(0.999, max(0.05, height - fall - 0.03 * abs(trial - own.choice((0, 1, 2))) + noise))
    metrics = {"last": last, "val": last * (1 - task.corruption.rate), "best_val": last + 0.002, "oracle": last + 0.004}
    return Record(method, task.name, task.id, seed, trial, dict(params), "ok", metrics, seconds=0.4, header=shared)


# -- building ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout of its own, so that nothing invented comes near real records."""
    own, here = tmp_path_factory.mktemp("checkout"), Path(__file__).parents[1]
    shutil.copytree(here / "suites", own / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(here / "site", own / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSBOARD_ROOT", str(own))
        patch.setattr("lossboard.theory.measure", lambda method: f"{EVIL} {method.id}")  # see test_theory_page.py
        yield own


@pytest.fixture(scope="module")
def found(root: Path) -> list[Record]:
    """Ten seeds of four methods; one more is stale, one misses cells, one failed, one is not in the catalogue."""
    seeds = range(10)
    stale = invented(["focal"], seeds, head=lambda method: header(method, source="0" * 12, dirty=True))
    partial = [record for record in invented(["js"], seeds) if not record.task.endswith("uniform-0.8")]
    failed = [
        replace(record, status="diverged", metrics={}) if record.seed == 3 else record
        for record in invented(["mse"], seeds)
    ]
    return [*invented(METHODS, seeds), *stale, *partial, *failed, *invented(["gone"], seeds)]


@pytest.fixture(scope="module")
def site(root: Path, found: list[Record]) -> Path:
    return publish(root / "site-out", {"noisy": found}).parent


class Page(HTMLParser):
    """What a browser would make of a page; fails on tags that do not match."""

    VOID = frozenset(("meta", "link", "br", "hr", "img", "input", "line", "circle", "path"))

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert not self.open, f"{path}: not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def row(self, table: int, name: str) -> list[str]:
        """The cells of the row whose method is this."""
        return next(
            row for row in ([cell.strip() for cell in cells] for cells in self.tables[table]) if name in row[:2]
        )


def pages(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.html"))
    assert found
    return found


def test_every_suite_and_method_has_a_page(site: Path) -> None:
    assert (site / "index.html").is_file()
    names = {path.name for path in (site / "noisy").glob("*.html")}
    own = {"index.html", "protocol.html", "claims.html", "downloads.html"}
    assert names == own | {"gone.html", *(f"{method}.html" for method in catalogue("loss"))}
    suite = protocol.load("noisy")
    assert {path.stem for path in (site / "noisy" / "datasets").iterdir()} == {
        task.dataset for task in suite.tasks.values()
    }
    tasks = {path.name for path in (site / "noisy" / "tasks").iterdir()}
    assert tasks == {f"quick-digits-{task.name.split('/')[1]}.html" for task in suite.track("quick").tasks}


def test_the_index_names_every_method_that_may_be_first(root: Path, tmp_path: Path) -> None:
    found = invented(("ce", "gce", "mae"), range(10))
    first = board.build(protocol.load("noisy"), protocol.load("noisy").track("quick"), found).rows[0].method
    shaky = lowered(found, first, 0.01, "shaky", 0.05)  # further below, but unsteady
    close = lowered(found, first, 0.004, "close", 0.0)  # below the first by as much in every seed
    index = publish(tmp_path, {"noisy": [*found, *shaky, *close]}).read_text("utf-8")
    best, also = re.findall(r'<p class="best.*?</p>', index, re.DOTALL)
    assert re.findall(r'href="noisy/(\w+)\.html"', best) == [first]
    assert re.findall(r'href="noisy/(\w+)\.html"', also) == ["shaky"]


def test_a_board_of_few_seeds_names_the_highest_means_and_calls_none_best(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossboard.statistics.FEWEST", 11)
    found = invented(("ce", "gce", "mae", "sce", "ldr", "focal", "nce_rce"), range(10))
    shown = board.build(protocol.load("noisy"), protocol.load("noisy").track("quick"), found)
    assert not shown.decides
    index = publish(tmp_path, {"noisy": found}).read_text("utf-8")
    (best,) = re.findall(r'<p class="best.*?</p>', index, re.DOTALL)
    assert re.findall(r'href="noisy/(\w+)\.html"', best) == [row.method for row in shown.rows[:5]]
    assert "10 seeds are too few" in best
    assert "Tied" not in best


def lowered(found: list[Record], method: str, below: float, name: str, spread: float) -> list[Record]:
    """A copy of a method under another name, lower on average, by more or less from seed to seed."""
    made = []
    for record in found:
        if record.method == method:
            shift = below + spread * (record.seed - 4.5) / 4.5
            metrics = {key: value - shift for key, value in record.metrics.items()}
            made.append(replace(record, method=name, metrics=metrics))
    return made


def test_pages_are_well_formed_with_unique_ids(site: Path) -> None:
    for path in pages(site):
        page = Page(path)
        assert len(page.ids) == len(set(page.ids)), path
        assert {"main", "nav", "h1"} <= page.tags, path


def test_links_resolve_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in pages(site):
        for tag, key, value in Page(path).attributes:
            if key not in ("href", "src", "srcset", "data", "action", "xlink:href"):
                continue
            if urlsplit(value).scheme or value.startswith("//"):
                assert (tag, key) == ("a", "href"), f"{path}: {tag} {key}={value}"
                assert value.startswith("https://arxiv.org/abs/")
                continue
            target, fragment = urldefrag(value)
            there = (path.parent / target).resolve() if target else path
            assert there.is_file(), f"{path}: {value}"
            assert there.is_relative_to(site.resolve())
            assert not fragment or fragment in Page(there).ids, f"{path}: {value}"
    assert not re.search(r"url\(|@import", (site / "assets" / "style.css").read_text("utf-8"))


def test_two_builds_are_the_same_bytes(
    site: Path, found: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }

    monkeypatch.setattr(paths, "local", lambda: tmp_path / "another")  # no cached chart
    publish(tmp_path / "again", {"noisy": found[::-1]})
    assert content(site) == content(tmp_path / "again")


def test_numbers_are_the_boards(site: Path, found: list[Record]) -> None:
    suite = protocol.load("noisy")
    track = suite.track("quick")
    for file, table, kind in (("index.html", 0, "tuned"), ("tracks/quick.html", 1, "default")):
        page = Page(site / "noisy" / file)
        shown = board.build(suite, track, found, kind)
        assert [row for row in shown.rows if row.rank]
        for row in shown.rows:
            cells = page.row(table, row.method)
            scores = [row.tasks[task] for task in shown.tasks if task in row.tasks]
            whole = [(row.score, row.half)] if len(scores) == len(shown.tasks) else []  # else it is of other tasks
            numbers = whole + [(score.mean, score.half) for score in scores]
            assert [cell for cell in cells[2 : 3 + len(shown.tasks)] if cell != "–"] == [
                f"{100 * mean:.1f}" + (f"±{100 * half:.1f}" if math.isfinite(half) else "") for mean, half in numbers
            ]
            assert cells[0] == ("–" if row.rank is None else "–".join(map(str, sorted(set(row.rank)))))


def test_stale_and_incomplete_methods_are_shown_unranked(site: Path) -> None:
    page = Page(site / "noisy" / "index.html")
    names = [row[1] for row in page.tables[0] if len(row) > 1][1:]
    assert page.row(0, "focal")[0] == page.row(0, "js")[0] == "–"
    assert set(names[-2:]) == {"focal", "js"}
    assert page.row(0, "focal")[-1] == "stale"
    assert page.row(0, "js")[-3] == "85 %"
    assert "–" in page.row(0, "js")[3:-3]
    assert page.row(0, "mse")[-1] == "7 failed"
    assert page.row(0, "gone")[-1] == "not in the catalogue"
    assert any(row[0].startswith("Not ranked") for row in page.tables[0])
    assert "diverged" in (site / "noisy" / "mse.html").read_text("utf-8")


def test_charts_tell_what_they_show(site: Path) -> None:
    text = (site / "noisy" / "tracks" / "quick.html").read_text("utf-8")
    assert text.count('<svg role="img" aria-label="') == text.count("<figcaption>") == 6  # no calibration error here
    assert len(re.findall(r"<title>(?:Mean score|Score|Rank intervals|Mean ranks) of 6 methods", text)) == 6
    for method in (*METHODS, "mse", "gone"):
        assert text.count(f">{method}</text>") >= 3
    index = (site / "noisy" / "index.html").read_text("utf-8")
    alternatives = re.findall(r'<img src="charts/([\w-]+).svg" alt="(Score of 6 methods[^"]*)"', index)
    assert [name for name, _ in alternatives] == ["quick-noise-uniform", "quick-noise-class"]
    assert all(f"<title>{words}" in text for _, words in alternatives)


def test_a_chart_too_large_for_a_page_is_a_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossboard.charts.LARGEST_INLINE", 1000)
    site = publish(tmp_path, {"noisy": invented(seeds=range(10))}).parent
    page = Page(site / "noisy" / "tracks" / "quick.html")
    images = [value for tag, key, value in page.attributes if (tag, key) == ("img", "src")]
    assert "../charts/quick-means.svg" in images
    assert len(images) == len([1 for tag, key, value in page.attributes if (tag, key) == ("img", "alt") and value]) == 6


def test_the_critical_difference_is_what_the_test_says(site: Path, found: list[Record]) -> None:
    suite = protocol.load("noisy")
    tested = board.friedman(board.build(suite, suite.track("quick"), found), suite.track("quick"))
    assert tested
    text = (site / "noisy" / "tracks" / "quick.html").read_text("utf-8")
    assert f"critical difference at 5 %, {tested[1].difference:.1f} ranks" in text
    assert f"Mean rank over {tested[2]} draws" in text


def test_contributed_text_is_escaped(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evil(logits: object, target: object) -> None: ...

    formula = f"$$ \\href{{javascript:alert(1)}}{{x}} \\text{{{EVIL}}} $$"
    evil.__doc__ = f"{EVIL} for ``{EVIL}``.\n\n{formula}\n\n{EVIL} arXiv:1234.5678{EVIL}"
    module = ModuleType("evil_module", EVIL)
    module.__file__ = "evil_module.py"
    monkeypatch.setitem(sys.modules, "evil_module", module)
    contributed = Method("evil", "loss", evil, "evil_module", {EVIL: 1.0}, {}, tags=(EVIL,))
    monkeypatch.setattr("lossboard.run.suite_methods", lambda suite: {**catalogue("loss"), "evil": contributed})
    head = header("ce", env={EVIL: EVIL}, file=EVIL, started=EVIL)
    found = invented(
        ["ce", EVIL, "../../up", "\udc80", "index", "\u202eltr", "=1+1"], range(10), head=lambda method: head
    )
    found += [
        replace(r, status="error", error=f"\ud800{EVIL}", params={EVIL: 1.0})
        for r in invented(["evil"], (0, 1), head=lambda m: head)
    ]
    site = publish(tmp_path, {"noisy": found}).parent
    for path in pages(site):
        page = Page(path)
        scripts = [(key, value.split("/")[-1]) for tag, key, value in page.attributes if tag == "script"]
        assert scripts == [(key, name) for name in SCRIPTS for key, name in (("src", name), ("defer", ""))], path
        assert not any(key.startswith("on") or "javascript" in value for _, key, value in page.attributes), path
        assert path.read_text("utf-8").count("<script") == len(SCRIPTS)
    track = (site / "noisy" / "tracks" / "quick.html").read_text("utf-8")
    assert "&lt;script&gt;alert" in track.split("<figure", 1)[1].split("</figure>")[0]
    for chart in (site / "noisy" / "charts").iterdir():
        assert "<script" not in chart.read_text("utf-8")
        Page(chart)
    text = (site / "noisy" / "evil.html").read_text("utf-8")
    assert text.count("&lt;script&gt;") >= 6
    assert {path.name for path in tmp_path.iterdir()} == {
        "index.html",
        "submit.html",
        "history.html",
        "noisy",
        "assets",
        MANIFEST,
    }


def test_no_records_at_all(root: Path, tmp_path: Path) -> None:
    site = publish(tmp_path, {"noisy": []}).parent
    for path in pages(site):
        Page(path)
    assert "lossboard run noisy" in (site / "noisy" / "index.html").read_text("utf-8")
    assert "lossboard run noisy --track quick" in (site / "index.html").read_text("utf-8")
    assert "There is no suite yet" in publish(tmp_path / "none", {}).read_text("utf-8")


def test_a_single_method_and_a_single_seed(root: Path, tmp_path: Path) -> None:
    site = publish(tmp_path, {"noisy": invented(["gce"], (0,))}).parent
    page = Page(site / "noisy" / "index.html")
    assert not any("±" in cell for cell in page.row(0, "gce"))
    assert page.row(0, "gce")[0] == "–"
    assert "svg" not in page.tags


def test_a_track_of_many_tasks_has_a_column_a_dataset(root: Path, tmp_path: Path) -> None:
    found = invented(["ce", "gce"], track="cpu")
    folder = publish(tmp_path, {"noisy": found}).parent / "noisy"
    page = Page(folder / "index.html")
    assert page.tables[0][0][3:-5] == [
        *("letter", "vowel", "pendigits", "satimage", "usps", "dna", "shuttle", "mnist", "fashion_mnist"),
    ]
    suite = protocol.load("noisy")
    row = next(row for row in board.build(suite, suite.track("cpu"), found).rows if row.method == "gce")
    letter = [score.mean for name, score in row.tasks.items() if name.startswith("letter/")]
    assert len(letter) == 7
    assert page.row(0, "gce")[3].startswith(f"{100 * sum(letter) / 7:.1f}±")
    task = Page(folder / "tasks" / "cpu-letter-clean.html")
    assert task.row(0, "gce")[1].startswith(f"{100 * row.tasks['letter/clean'].mean:.1f}±")


def test_every_page_of_a_full_track_stays_small(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossboard.drawing.render", lambda chart: "<svg " + 'width="1" height="1" ' * 1500 + "/>")
    ids = [f"a_method_of_long_name_{i}" for i in range(67)]
    site = publish(tmp_path, {"noisy": [*invented(ids, track="cpu"), *invented(ids, range(10))]}).parent
    sizes = {path: path.stat().st_size for path in pages(site)}
    assert len([path for path in sizes if path.parent.name == "tasks"]) == 57 + 7
    assert max(sizes.values()) < 300_000, max(sizes, key=sizes.__getitem__)


# -- tasks, datasets, tables -------------------------------------------------------------------------------------------


def test_a_task_shows_every_method_with_its_trial_and_its_records(site: Path, found: list[Record]) -> None:
    suite = protocol.load("noisy")
    shown = board.build(suite, suite.track("quick"), found)
    page = Page(site / "noisy" / "tasks" / "quick-digits-uniform-0.6.html")
    rows = [[cell.strip() for cell in cells] for cells in page.tables[0][1:]]
    assert {row[0] for row in rows} == {row.method for row in shown.rows}
    for row in shown.rows:
        score, cells = row.tasks["digits/uniform-0.6"], page.row(0, row.method)
        assert cells[1].startswith(f"{100 * score.mean:.1f}")
        assert str(score.trial) in cells
        assert f"lr {score.params['lr']:.4g}" in " ".join(cells)
    means = [float(row[1].split("±")[0]) for row in rows]
    assert means == sorted(means, reverse=True)


def test_rows_say_when_they_were_measured_and_from_which_code(root: Path, tmp_path: Path) -> None:
    late = invented(
        ["gce"], (0, 1), head=lambda method: header(method, started="2026-03-04T00:00:00Z", commit="f" * 40)
    )
    site = publish(tmp_path, {"noisy": [*invented(["ce"], (0, 1)), *late]}).parent
    page = Page(site / "noisy" / "index.html")
    assert page.row(0, "ce")[-2] == "2026-01-02"
    assert page.row(0, "gce")[-2] == "2026-03-04"
    text = (site / "noisy" / "gce.html").read_text("utf-8")
    assert "git checkout ffffffffffff\nnox -s suite-noisy -- --track quick --only ce,gce --fresh" in text


def test_tables_are_the_boards_in_every_format(site: Path, found: list[Record]) -> None:
    from pyarrow import parquet

    suite = protocol.load("noisy")
    shown = board.build(suite, suite.track("quick"), found)
    folder = site / "noisy" / "data"
    with (folder / "quick-tuned.csv").open(newline="", encoding="utf-8") as file:
        text = list(csv.DictReader(file))
    rows = json.loads((folder / "quick-tuned.json").read_text("utf-8"))["rows"]
    binary = parquet.read_table(folder / "quick-tuned.parquet").to_pylist()
    assert rows == binary
    assert [row["method"] for row in rows] == [row["method"] for row in text] == [row.method for row in shown.rows]
    for row, line, cells in zip(shown.rows, rows, text, strict=True):
        complete = len(row.tasks) == len(shown.tasks)  # else it would be a mean over other tasks
        assert line["mean"] == (pytest.approx(row.score) if complete else None)
        assert cells["mean"] == ("" if line["mean"] is None else str(line["mean"]))
        assert (line["rank_low"], line["rank_high"]) == (row.rank or (None, None))
        assert cells["rank_low"] == ("" if row.rank is None else str(row.rank[0]))
        assert line["stale"] is row.stale
        assert cells["stale"] == str(row.stale).lower()
        for task, score in row.tasks.items():
            assert line[task] == pytest.approx(score.mean)
    listed = (site / "noisy" / "downloads.html").read_text("utf-8")
    assert all(f'href="data/{path.name}"' in listed for path in folder.iterdir())


def test_a_cell_of_a_table_is_no_formula(root: Path, tmp_path: Path) -> None:
    site = publish(tmp_path, {"noisy": invented(["ce", "=cmd|' /C calc'!A0"], (0,))}).parent
    for path in (site / "noisy" / "data").glob("*.csv"):
        assert not re.search(r"(^|,)\"?=cmd", path.read_text("utf-8"), re.MULTILINE), path
    rows = json.loads((site / "noisy" / "data" / "quick-tuned.json").read_text("utf-8"))["rows"]
    assert {row["method"] for row in rows} == {"ce", "=cmd|' /C calc'!A0"}


def test_a_dataset_shows_its_pin_and_its_noise(site: Path) -> None:
    from lossboard.data import pins

    text = (site / "noisy" / "datasets" / "letter.html").read_text("utf-8")
    pin = pins()["letter"]
    assert all(hash in text for hash in pin.content.values())
    assert pin.license in text
    assert text.count('aria-label="Transition matrix of') == 7  # not of clean labels, nor of what depends on the sample
    assert "A label stays with a probability of 71.15 %. Every other label has 1.15 %." in text  # 0.7 + 0.3 / 26
    assert "B → D" in text
    assert "No matrix: it depends on the sample." in text
    assert "The first sample of each class" in (site / "noisy" / "datasets" / "digits.html").read_text("utf-8")
    assert "The first sample" not in text  # nothing that may or may not be on a machine


def test_a_matrix_is_drawn_cell_by_cell() -> None:
    drawn = datasets.draw([[0.64, 0.36, 0], [0, 0.64, 0.36], [0.04, 0, 0.96]], "m")
    found = {opacity: cells for cells, opacity in re.findall(r'd="([^"]+)" fill-opacity="([\d.]+)"', drawn)}
    assert found == {
        "0.8": "M0 0h1v1h-1zM1 1h1v1h-1z",
        "0.6": "M1 0h1v1h-1zM2 1h1v1h-1z",
        "0.2": "M0 2h1v1h-1z",
        "0.98": "M2 2h1v1h-1z",
    }
    assert '<rect width="3" height="3" fill-opacity="0"/>' in drawn


def test_the_protocol_has_every_task(site: Path) -> None:
    text = (site / "noisy" / "protocol.html").read_text("utf-8")
    assert all(f"<code>{task.id}</code>" in text for task in protocol.load("noisy").tasks.values())


def test_a_page_may_load_its_own_files_only(site: Path) -> None:
    for path in pages(site):
        page = Page(path)
        policy = dict(
            part.split(" ", 1) for part in next(v for _, k, v in page.attributes if "default-src" in v).split("; ")
        )
        assert policy["default-src"] == "'none'"
        assert not any("unsafe" in value or "*" in value for value in policy.values())
        assert not {"style", "iframe", "object", "embed", "form"} & page.tags
        assert not any(key == "style" for _, key, _ in page.attributes), path


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["gce", "mixup-gce"])
def test_published_batches_are_linked(id: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "results", lambda: tmp_path / "results")
    batch = records.seal(tmp_path / "results", id, invented([id]), None)
    published = records.read_results(tmp_path / "results", "noisy")[0]
    site = publish(tmp_path / "out", {"noisy": published}).parent
    assert (site / "noisy" / "records" / batch.name).read_bytes() == batch.read_bytes()
    assert f'href="records/{batch.name}"' in (site / "noisy" / page_name(id)).read_text("utf-8")


def test_what_was_measured_beside_stands_on_a_method_s_page(site: Path) -> None:
    """With the numbers of the task's page."""
    text = (site / "noisy" / "gce.html").read_text("utf-8")
    assert "Measured beside it, of the tuned trial: best_val, " in text
    rows = re.findall(r"<tr>(.*?)</tr>", text.split("Measured beside it")[1].split("</table>")[0], re.DOTALL)
    assert len(rows) == 1 + len({task.name for task in protocol.load("noisy").track("quick").tasks})


def test_pages_of_methods_that_are_gone_are_removed_and_nothing_else(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("keep")
    publish(tmp_path, {"noisy": invented(["ce", "gone"], (0,))})
    assert (tmp_path / "noisy" / "gone.html").is_file()
    publish(tmp_path, {"noisy": invented(["ce"], (0,))})
    assert not (tmp_path / "noisy" / "gone.html").exists()
    assert (tmp_path / "mine.html").read_text() == "keep"
    (tmp_path / MANIFEST).write_text("../up.html\n/abs.html\nnoisy/../../up.html\n")
    (tmp_path.parent / "up.html").write_text("keep")
    publish(tmp_path, {"noisy": []})
    assert (tmp_path.parent / "up.html").read_text() == "keep"


def test_a_killed_build_leaves_whole_pages(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossboard import publish as module

    real, left = records.write_atomically, iter(range(9))

    def dies(path: Path, text: str) -> None:
        if next(left, None) is None:
            raise StoreError(f"cannot write {path}: No space left on device")
        real(path, text)

    monkeypatch.setattr(module, "write_atomically", dies)
    with pytest.raises(StoreError, match="No space left"):
        publish(tmp_path, {"noisy": invented(["ce", "gone"], (0,))})
    for path in pages(tmp_path):
        Page(path)
    monkeypatch.undo()
    monkeypatch.setenv("LOSSBOARD_ROOT", str(root))
    publish(tmp_path, {"noisy": []})
    listed = (tmp_path / MANIFEST).read_text("utf-8").splitlines()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()) == sorted(
        [*listed, MANIFEST]
    )


def test_a_folder_that_cannot_be_written_is_one_clear_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        publish(tmp_path / "file", {"noisy": []})


# -- values ------------------------------------------------------------------------------------------------------------


def test_page_names_are_safe_and_distinct() -> None:
    assert page_name("gce") == "gce.html"
    odd = [
        page_name(name)
        for name in ("index", "protocol", "downloads", "Gce", "../x", "", "a" * 200, "a/b", "\ud800", "method-x")
    ]
    assert len(set(odd)) == len(odd)
    assert all(re.fullmatch(r"method-[0-9a-f]{12}\.html", name) for name in odd)


@pytest.mark.parametrize("method", sorted(catalogue("loss")))
def test_every_formula_of_the_catalogue_is_mathml(method: str) -> None:
    formula = catalogue("loss")[method].formula
    assert not formula or (mathml(formula) or "").startswith("<math")


@pytest.mark.parametrize("latex", [r"\unknown{x}", r"\left( x", r"\begin{cases} 1", "x_1_2"])
def test_a_formula_that_cannot_be_converted_is_left_to_the_page(latex: str) -> None:
    assert mathml(latex) is None


def test_a_formula_keeps_known_markup_only() -> None:
    text = mathml(r"\href{javascript:alert(1)}{x} \style{color:red}{y} \text{<b onclick='x'>} < 1")
    assert text is not None
    assert not re.search(r"javascript|style=|<b|href", text)


def test_prose_marks_code_and_papers() -> None:
    assert prose("``a<b`` -> arXiv:2106.03110") == (
        '<code>a&lt;b</code> → <a href="https://arxiv.org/abs/2106.03110">arXiv:2106.03110</a>'
    )


def test_files_of_tasks_stay_in_their_folder() -> None:
    assert stem("quick", "digits/uniform-0.3") == "quick-digits-uniform-0.3"
    odd = [stem("a", name) for name in ("../up", "", "a//b", "..", "<b>", "\udc80", "x" * 200, "a/.b", "\u202e")]
    assert len(set(odd)) == len(odd)
    assert all(re.fullmatch(r"x-[0-9a-f]{12}", name) for name in odd)


def test_bibtex_is_what_the_citation_says() -> None:
    entry = bibtex(catalogue("loss")["aldr"])
    assert entry.startswith("@misc{zhu2023,")
    for line in ("author = {Zhu and Ying and Yang}", "eprint = {2112.14869}", "booktitle = {ICML}"):
        assert line in entry
    assert "Zhou and others" in bibtex(catalogue("loss")["agce"])
    assert bibtex(catalogue("loss")["ce"]) == ""  # no arXiv number

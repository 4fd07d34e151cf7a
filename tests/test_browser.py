"""The site in a browser: quiet, accessible, within the screen, complete without scripts, and comfortable with them.

Skipped, with the reason, where Playwright or a browser is missing. All records here are invented.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urldefrag, urlsplit

import pytest
from test_history import results, write
from test_publish import METHODS, header, invented

from lossboard import board, protocol, statistics
from lossboard.publish import publish
from lossboard.records import Record
from reference.methods import catalogue

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install .[dev]")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
BOARD = "table[data-board='noisy/quick-tuned']"
EVIL = "<img src=x onerror=alert(1)>"
WIDTHS = (1280, 390)


# -- a browser and a site ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        found = [path for path in map(shutil.which, NAMES) if path]
        found += [path for path in (*PLACES, playwright.chromium.executable_path) if os.path.exists(path)]
        if not found:
            pytest.skip("there is no Chromium or Chrome: apt-get install chromium, or playwright install chromium")
        made = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def found() -> list[Record]:
    """Two tracks, one of two datasets. Of the methods one is stale, one misses cells, one is unknown, oddly named."""
    seeds = range(10)
    stale = invented(["focal"], seeds, head=lambda method: header(method, source="0" * 12))
    partial = [record for record in invented(["js"], seeds) if not record.task.endswith("uniform-0.8")]
    odd = [replace(record, method=EVIL) for record in invented(["ce"], seeds)]
    return [*invented((*METHODS, "ldr", "aldr"), seeds), *stale, *partial, *odd, *invented(["ce", "gce"], track="apl")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, found: list[Record]) -> Path:
    """A site from a checkout of its own, so that nothing invented comes near real records."""
    root, here = tmp_path_factory.mktemp("checkout"), Path(__file__).parents[1]
    shutil.copytree(here / "suites", root / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(here / "site", root / "site")
    write(root / "results" / "asv", *map(results, range(8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSBOARD_ROOT", str(root))
        patch.setattr("lossboard.theory.measure", lambda method: f"it is invented {method.id}")
        return publish(root / "out", {"noisy": found}).parent


@dataclass
class Watch:
    """What a page must not do."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def on(self, page: Any) -> None:
        page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))
        page.on("requestfailed", self.failed)
        page.on("request", lambda request: self.requests.append(request.url))

    def failed(self, request: Any) -> None:
        """A request that the page went away from has not failed: a busy browser asks for the icon last."""
        if request.failure != "net::ERR_ABORTED":
            self.errors.append(f"failed: {request.url}")


Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any, site: Path) -> Iterator[Open]:
    """Opens a page of the site; the test fails if it logs an error or asks another host."""
    contexts, watch = [], Watch()

    def opened(name: str = "noisy/index.html", width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        watch.on(page)
        page.goto((site / "x").as_uri()[:-1] + name)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not watch.errors
    assert all(url.startswith(site.as_uri()) for url in watch.requests)


@dataclass
class Visit:
    """What was seen on a page."""

    watch: Watch
    overflow: dict[int, int]  # width of the window -> by how much the page is wider
    links: list[str]
    ids: set[str]
    parts: tuple[str, ...]  # what kind of page it is


@pytest.fixture(scope="module")
def visits(browser: Any, site: Path) -> dict[Path, Visit]:
    """Every page, once."""
    seen: dict[Path, Visit] = {}
    context, watch = browser.new_context(), Watch()
    page = context.new_page()
    watch.on(page)
    for path in sorted(site.rglob("*.html")):
        watch.errors, watch.requests, overflow = [], [], {}
        page.goto(path.as_uri())
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            overflow[width] = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        links = page.evaluate("[...document.links].map((link) => link.href)")
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
        parts = page.evaluate(
            "[...document.querySelectorAll('main :is(section, table)')].map((node) => node.className)"
        )
        kind = (path.parent.name, *sorted(set(parts)))
        seen[path] = Visit(Watch(watch.errors, watch.requests), overflow, links, set(ids), kind)
    context.close()
    return seen


# -- every page --------------------------------------------------------------------------------------------------------


def test_every_page_loads_quietly_and_from_its_own_place(site: Path, visits: dict[Path, Visit]) -> None:
    assert len(visits) > len(catalogue("loss"))
    for path, visit in visits.items():
        assert not visit.watch.errors, path
        assert all(url.startswith(site.as_uri()) for url in visit.watch.requests), path


def test_no_page_is_wider_than_its_window(visits: dict[Path, Visit]) -> None:
    assert {str(path): visit.overflow for path, visit in visits.items() if max(visit.overflow.values()) > 0} == {}


def test_every_link_leads_somewhere(visits: dict[Path, Visit]) -> None:
    for path, visit in visits.items():
        for link in visit.links:
            target, fragment = urldefrag(link)
            if urlsplit(target).scheme == "https":
                continue
            there = Path(unquote(urlsplit(target).path))
            assert there.is_file(), f"{path}: {link}"
            assert not fragment or fragment in visits[there].ids, f"{path}: {link}"


@pytest.mark.parametrize(("scheme", "rules"), [("light", "all"), ("dark", ["color-contrast"])])
def test_axe_finds_nothing_serious(
    site: Path, visits: dict[Path, Visit], show: Open, scheme: str, rules: str | list[str]
) -> None:
    bundled = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    axe = (Path(bundled.__file__).parent / "axe.min.js").read_text("utf-8")
    kinds = {visit.parts: path for path, visit in visits.items()}  # one page of each kind
    options = {"resultTypes": ["violations"], "preload": False} | ({} if rules == "all" else {"runOnly": rules})
    page = show("index.html", color_scheme=scheme)

    def violations(name: str) -> list[str]:
        page.evaluate(axe)
        found = page.evaluate("(options) => axe.run(document, options)", options)["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        return [f"{name}: {each['id']}: {node['target']}" for each in serious for node in each["nodes"]]

    seen = []
    for path in kinds.values():
        page.goto(path.as_uri())
        seen += violations(path.name)
    page.goto((site / "noisy" / "index.html").as_uri() + "?quick-tuned.sort=clean&quick-tuned.compare=gce+ce+js")
    page.locator(".compared").wait_for()
    page.get_by_label("Search methods").fill("ldr")
    assert seen + violations("everything open") == []


# -- without scripts ---------------------------------------------------------------------------------------------------


def test_without_scripts_every_number_and_chart_is_there_and_no_tool(show: Open) -> None:
    plain, scripted = show(java_script_enabled=False), show()
    cells = "table.board :is(td, th.name)"
    for page in (plain, scripted):
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        assert page.locator(f"{cells} >> visible=true").count() == page.locator(cells).count() > 50
        assert page.locator("main :is(svg, img)").count() > 0
        assert page.evaluate("[...document.querySelectorAll('main img')].every((image) => image.naturalWidth > 0)")
    assert plain.locator(cells).all_inner_texts() == scripted.locator(cells).all_inner_texts()
    assert plain.locator(":is(button, input, select)").count() == 0
    assert scripted.locator(":is(button, input, select)").count() > 0


# -- boards ------------------------------------------------------------------------------------------------------------


def methods(page: Any) -> list[str]:
    """The methods that a board shows, from the top."""
    return page.locator(f"{BOARD} tbody tr:not(.group) th.name >> visible=true").all_inner_texts()


def ranking(page: Any) -> list[str]:
    return [text for text in methods(page) if text not in ("focal", "js")]


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(page.evaluate("location.search").removeprefix("?"))  # page.url lags behind


def press(page: Any, title: str) -> None:
    page.locator(BOARD).get_by_role("button", name=title, exact=True).click()


def spoken(page: Any) -> str:
    return page.locator(".unseen[role=status]").inner_text()


def column(page: Any, title: str) -> list[float]:
    """Numbers of the ranked rows, from the top."""
    titles = page.locator(f"{BOARD} thead th").all_inner_texts()
    cells = page.locator(f"{BOARD} tbody:not(.unranked) tr:not(.group) > :nth-child({titles.index(title) + 1})")
    return [float(text.split("±")[0]) for text in cells.all_inner_texts()]


def test_a_column_sorts_and_the_ties_are_hidden(show: Open) -> None:
    page = show()
    ranked, lines = methods(page), page.locator(f"{BOARD} tr.group >> visible=true").all_inner_texts()
    assert len(lines) > 1
    for title in ("clean", "uniform-0.8"):
        press(page, title)
        assert column(page, title) == sorted(column(page, title), reverse=True)
        assert query(page) == {"quick-tuned.sort": [f"-{title}"]}
        assert spoken(page) == f"{len(ranked)} methods, sorted by {title}, descending"
        press(page, title)
        assert column(page, title) == sorted(column(page, title))
        assert page.locator(f"{BOARD} th[aria-sort]").get_attribute("aria-sort") == "ascending"
        shown = page.locator(f"{BOARD} tr.group >> visible=true").all_inner_texts()
        assert [line for line in shown if not line.startswith("Not ranked")] == []
        assert set(methods(page)[-2:]) == {"focal", "js"}  # the unranked stay below
    press(page, "method")
    assert ranking(page) == sorted(ranking(page))
    press(page, "rank")
    assert methods(page) == ranked
    assert page.locator(f"{BOARD} tr.group >> visible=true").all_inner_texts() == lines
    press(page, "rank")
    assert ranking(page) == [name for name in ranked if name not in ("focal", "js")][::-1]


def test_the_methods_of_a_task_sort_by_each_column_and_back(show: Open) -> None:
    page = show("noisy/tasks/quick-digits-clean.html")
    names = page.locator("table[data-sortable] tbody th")
    before = names.all_inner_texts()
    head = page.get_by_role("button", name="method", exact=True)
    orders = []
    for _ in range(3):
        head.click()
        orders.append(names.all_inner_texts())
    assert orders == [sorted(before, key=str.lower), sorted(before, key=str.lower)[::-1], before]
    head.click()
    page.reload()
    assert names.all_inner_texts() == orders[0]


def test_the_back_button_and_a_reload_keep_what_was_chosen(show: Open) -> None:
    page = show()
    ranked = methods(page)
    press(page, "clean")
    by_clean = methods(page)
    press(page, "uniform-0.8")
    page.reload()
    assert query(page) == {"quick-tuned.sort": ["-uniform-0.8"]}
    assert column(page, "uniform-0.8") == sorted(column(page, "uniform-0.8"), reverse=True)
    page.go_back()
    assert methods(page) == by_clean
    page.go_back()
    assert methods(page) == ranked
    page.go_forward()
    assert methods(page) == by_clean
    page.get_by_role("button", name="Back to the ranking").first.click()
    assert methods(page) == ranked
    assert query(page) == {}


def test_methods_are_filtered_by_words_and_tags(show: Open) -> None:
    page = show()
    everything = methods(page)
    page.get_by_label("Filter methods by name").first.type("ldr")
    assert set(methods(page)) == {"ldr", "aldr"}
    assert spoken(page).startswith(f"2 of {len(everything)} methods")
    page.reload()
    assert set(methods(page)) == {"ldr", "aldr"}
    page.go_back()  # all that was typed is one step
    assert methods(page) == everything
    page.get_by_label("Show").first.select_option("bounded")
    bounded = {method for method in catalogue("loss") if catalogue("loss")[method].bounded}
    assert set(methods(page)) == bounded & set(everything) != set()
    page.get_by_label("Show").first.select_option("first")
    ranks = page.locator(f"{BOARD} tbody tr:not(.group) td:first-child >> visible=true").all_inner_texts()
    assert ranks
    assert all(rank.split("–")[0] == "1" for rank in ranks)
    page.get_by_label("Filter methods by name").first.fill("no such method")
    assert methods(page) == []
    assert page.locator(f"{BOARD} tr.group >> visible=true").count() == 0


def test_methods_are_compared_as_the_boards_statistics_do(show: Open, found: list[Record]) -> None:
    suite = protocol.load("noisy")
    shown = board.build(suite, suite.track("quick"), found)
    scores = {row.method: row for row in shown.rows}
    page = show()
    for method in ("gce", "ce", "js"):
        page.locator(BOARD).get_by_label(f"Compare {method}", exact=True).check()
    assert spoken(page) == "To compare: gce, ce, js"
    assert query(page) == {"quick-tuned.compare": ["gce ce js"]}
    page.reload()
    page.get_by_role("link", name="Compare").click()
    rows = [row.locator(":is(th, td)").all_inner_texts() for row in page.locator(".compared tbody tr").all()]
    assert [row[0] for row in rows] == ["mean", *(name.split("/", 1)[1] for name in shown.tasks)]
    for task, row in zip(shown.tasks, rows[1:], strict=True):
        gce, ce = (scores[method].tasks[task] for method in ("gce", "ce"))
        mean, half = statistics.t_interval([ce.seeds[seed] - gce.seeds[seed] for seed in ce.seeds])
        sign = "+" if mean > 0 else "−"
        assert row[1:4] == [
            f"{100 * gce.mean:.1f}±{100 * gce.half:.1f}",
            f"{100 * ce.mean:.1f}±{100 * ce.half:.1f}",
            f"{sign}{abs(100 * mean):.1f}±{100 * half:.1f}",
        ]
    assert rows[0][1] == f"{100 * scores['gce'].score:.1f}±{100 * scores['gce'].half:.1f}"
    assert rows[0][4:] == ["–", "–"]  # js misses a task
    page.get_by_label("Differences to").select_option("ce")
    page.locator(".compared thead").get_by_text("to ce").first.wait_for()
    assert query(page) == {"quick-tuned.compare": ["ce gce js"]}
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".compared").count() == 0
    page.go_back()
    assert page.locator(".compared thead").get_by_text("to ce").count() == 2


def test_a_mean_over_datasets_adds_their_variances(show: Open, found: list[Record]) -> None:
    suite = protocol.load("noisy")
    rows = {row.method: row for row in board.build(suite, suite.track("apl"), found).rows}
    page = show("noisy/index.html?apl-tuned.compare=ce+gce")
    cells = page.locator(".compared tbody tr").first.locator(":is(th, td)").all_inner_texts()
    for text, row in zip(cells[1:3], (rows["ce"], rows["gce"]), strict=True):
        assert text == f"{100 * row.score:.1f}±{100 * row.half:.1f}"
    assert page.locator(".compared tbody tr").count() == 1 + len(rows["ce"].tasks)


def test_everything_can_be_done_with_the_keyboard(show: Open) -> None:
    page = show()
    page.get_by_label("Filter methods by name").first.focus()
    page.keyboard.type("ce")
    page.locator(BOARD).get_by_role("button", name="mean").focus()
    page.keyboard.press("Enter")
    assert query(page)["quick-tuned.sort"] == ["-mean"]
    for method in ("ce", "gce"):
        page.locator(BOARD).get_by_label(f"Compare {method}", exact=True).focus()
        page.keyboard.press("Space")
    assert query(page)["quick-tuned.compare"] == ["ce gce"]
    page.get_by_role("link", name="Compare").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(
        "document.activeElement.closest('.comparison') !== null || location.hash.endsWith('-compared')"
    )


def test_text_of_contributors_stays_text(show: Open) -> None:
    page = show()
    for method in ("gce", EVIL):
        page.locator(BOARD).get_by_label(f"Compare {method}", exact=True).check()
    page.locator(".compared").wait_for()
    assert EVIL in page.locator("#quick-tuned-compared").inner_text()
    page.get_by_label("Search methods").fill("onerror")
    assert EVIL in page.locator("#found").inner_text()
    assert page.locator(":is(#found, .comparison) img").count() == 0


def test_an_address_that_names_nothing_known_shows_the_ranking(show: Open) -> None:
    page = show()
    ranked = methods(page)
    odd = "?quick-tuned.sort=nothing&quick-tuned.show=x&quick-tuned.compare=no+%3Cb%3E&other.sort=-mean&quick-tuned"
    assert methods(show("noisy/index.html" + odd)) == ranked


# -- search ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.html", "noisy/index.html", "noisy/sce.html"])
def test_search_finds_methods_from_every_page(show: Open, name: str) -> None:
    page = show(name)
    assert page.locator("#found").is_hidden()
    page.get_by_label("Search methods").type("zhu ldr")
    names = page.locator("#found strong").all_inner_texts()
    assert {"ldr", "aldr"} <= set(names)
    assert page.locator("#found [role=status]").inner_text().startswith(f"{len(names)} method")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Escape")
    assert page.locator("#found").is_hidden()
    page.get_by_label("Search methods").fill("gce")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/noisy/gce.html")
    page.get_by_label("Search methods").fill("no such thing")
    assert page.locator("#found").inner_text() == "No method found"


# -- from a server -----------------------------------------------------------------------------------------------------


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def test_it_works_from_a_server_too(browser: Any, site: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, watch = f"http://127.0.0.1:{server.server_port}/", Watch()
        context = browser.new_context()
        page = context.new_page()
        watch.on(page)
        page.goto(f"{address}noisy/?quick-tuned.compare=ce+gce")
        page.locator(".compared").wait_for()
        page.get_by_label("Search methods").fill("ldr")
        assert page.locator("#found a").first.get_attribute("href") == f"{address}noisy/ldr.html"
        context.close()
        server.shutdown()
    assert not watch.errors
    assert all(url.startswith(address) for url in watch.requests)

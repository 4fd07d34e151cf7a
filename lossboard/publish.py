"""Records -> site: static pages that work from disk, without JavaScript and without a request to another host.

A build is a pure function of records and checkout: the same bytes every time. Whatever came with a contribution (ids,
citations, formulas, errors, environments) is text to escape, and names no file outside the folder that is built.
Templates are in ``site/templates``; they format, ``views`` decides what they show. What lies where:

    index.html, submit.html             what this is; how to hand in a method
    history.html                        performance over commits; its charts and numbers in charts/ and data/
    SUITE/index.html                    the ranking of every track
    SUITE/METHOD.html                   everything about one method
    SUITE/tracks/TRACK.html             the charts, both boards and the tasks of a track
    SUITE/tasks/TRACK-TASK.html         every method on one task
    SUITE/datasets/DATASET.html         what a dataset is, and the noise that its labels get
    SUITE/claims.html, claims/CLAIM.html  what papers say, and what the records say of it
    SUITE/protocol.html, downloads.html what is pinned; every table as CSV, JSON and Parquet
    SUITE/charts/, data/, records/      the files of charts, tables and published records
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import jinja2

from lossboard import board, charts, claims, drawing, history, markup, paths, performance, scripts, tables, views
from lossboard.claims import Assessment, Verdict
from lossboard.datasets import datasets
from lossboard.errors import UsageError
from lossboard.names import page_name, stem
from lossboard.records import Record, StoreError, write_atomically
from lossboard.views import SuiteView, TrackView
from reference.methods import Method

if TYPE_CHECKING:  # it needs torch
    from reference.curves import Curves
    from reference.theory import Facts

MANIFEST = "files.txt"  # what a build wrote, so that the next one removes what is gone and nothing else

Files = dict[str, str | bytes]


def publish(out: Path, found: Mapping[str, Sequence[Record]]) -> Path:
    """Build the site in ``out`` from records by suite, and return the path of its index.

    Raises:
        StoreError: a file cannot be written; every page is either the old one or the new one.
        UsageError: a suite is not in this checkout.
    """
    templates = _templates(_design() / "templates")
    shown = [views.suite(name, found[name]) for name in sorted(found)]
    shown.sort(key=lambda view: (view.suite.alone, -view.records))  # of machines last; the most measured first
    files: Files = {
        f"assets/{path.name}": path.read_text("utf-8") for path in sorted((_design() / "assets").glob("*.*"))
    }
    entries = [
        scripts.Entry(f"{view.suite.name}/{page_name(id)}", id, view.suite.title, view.methods.get(id))
        for view in shown
        for id in view.ids
    ]
    files["assets/methods.js"] = scripts.index(entries)
    best = {view.suite.name: _best(view) for view in shown}
    for name, page in (("index.html", {"best_of": best}), ("submit.html", {})):
        files[name] = templates.get_template(name).render(page, suites=shown, top="")
    files |= _performance(templates)
    for view in shown:
        for name, content in itertools.chain(_suite_files(templates, view), _scores(view)):
            path = f"{view.suite.name}/{name}"
            if path in files:
                raise UsageError(
                    f"suite '{view.suite.name}': two of its names lead to the same file {path}; rename one"
                )
            files[path] = content
    _write(out, files)
    drawing.tidy()
    return out / "index.html"


# -- pages -----------------------------------------------------------------------------------------


def _best(view: SuiteView) -> charts.Figure | None:
    """The chart of a suite on the first page: the best of its first track that ranks."""
    for shown in view.tracks:
        ranked = [row for row in shown.tuned.rows if row.rank]
        if len(ranked) > 1:
            colours = charts.highlights(ranked, shown.control)
            return charts.ranks(shown.track, ranked, colours, most=charts.SHORT)
    return None


def _performance(templates: jinja2.Environment) -> Files:
    """The page of performance over commits, and the files of its charts and numbers."""
    found, problems = history.read(paths.results() / "asv")
    problems = [problem.replace(f"{paths.root()}/", "") for problem in problems]
    sections = [performance.section(each, number) for number, each in enumerate(found, 1)]
    shown = {"sections": sections, "inlined": performance.inlined(sections), "problems": problems}
    page = templates.get_template("history.html").render(shown, top="")
    figures = [figure for section in sections for figure in section.figures]
    drawings = {f"charts/{stem(figure.name)}.svg": figure.file for figure in figures}
    numbers = {f"data/{name}": content for name, content in performance.table(found).files().items()} if found else {}
    return {"history.html": page, **drawings, **numbers}


def _suite_files(templates: jinja2.Environment, view: SuiteView) -> Iterator[tuple[str, str | bytes]]:
    """Every file of a suite: its name in the suite's folder, and its content."""

    def page(template: str, file: str, **own: Any) -> tuple[str, str]:
        up = "../" * file.count("/")
        return file, templates.get_template(template).render(own, view=view, suite=view.suite, up=up, top=f"../{up}")

    shapes = _curves(view.methods)
    general, of_track = (
        tables.of_suite(view, shapes),
        {shown.track.name: tables.of_track(view, shown) for shown in view.tracks},
    )
    yield page("suite.html", "index.html")
    yield page("protocol.html", "protocol.html")
    if view.claims:
        yield page("claims.html", "claims.html")
    for each in view.claims:
        yield page("claim.html", f"claims/{stem(each.claim.id)}.html", found=each, tracks=_scales(each, view))
    yield page("downloads.html", "downloads.html", general=general, of_track=of_track, formats=list(tables.FORMATS))
    for shown in view.tracks:
        yield page("track.html", f"tracks/{stem(shown.track.name)}.html", shown=shown)
        for task, entries in shown.entries.items():
            yield page(
                "task.html", f"tasks/{stem(shown.track.name, task)}.html", shown=shown, name=task, entries=entries
            )
        for figure in shown.figures:
            yield f"charts/{stem(figure.name)}.svg", figure.file
    for name, dataset in datasets(view.suite).items():
        yield page("dataset.html", f"datasets/{stem(name)}.html", name=name, dataset=dataset)
    yield from (page("method.html", page_name(id), **_method(view, id, shapes)) for id in view.ids)
    for table in itertools.chain(general, *of_track.values()):
        yield from ((f"data/{name}", content) for name, content in table.files().items())
    yield from ((f"records/{file}.jsonl", text) for file, text in view.batches.items())


def _method(view: SuiteView, id: str, shapes: Mapping[str, Curves | str]) -> dict[str, Any]:
    """What the page of a method shows beside what every page of its suite has."""
    method = view.methods.get(id)
    control = view.suite.controls[method.kind] if method else view.suite.control
    results = [found for track in view.tracks if (found := views.results(track, id, control))]
    commits = {(made.commit, made.dirty): None for made in view.environments if made.commit and id in made.methods}
    own = {"id": id, "method": method, "results": results, "commits": list(commits), "theory": _theory(method)}
    own["control"] = control
    about = [
        each
        for each in view.claims
        if id in each.claim.methods and (id != control or any(part.ours == id for part in each.claim.parts))
    ]
    return own | {"shape": _shape(id, control, shapes), "claims": about}


def _scales(found: Assessment, view: SuiteView) -> list[tuple[Verdict, charts.Axis | None]]:
    """What each track says of a claim, those that test it first, with a scale that its differences share."""
    shown = []
    for one in sorted(found.verdicts, key=lambda one: (not one.tested, one not in found.shown)):
        known = [each.difference for each in one.findings if each.difference]
        halves = [half if math.isfinite(half) else 0.0 for _, half in known]
        ends = [
            (view.scale.place(mean - half), view.scale.place(mean + half))
            for (mean, _), half in zip(known, halves, strict=True)
        ]
        shown.append((one, charts.axis(ends) if known else None))
    return shown


def _scores(view: SuiteView) -> Iterator[tuple[str, str]]:
    """What the comparison of methods on a board needs, loaded when it is asked for."""
    for track in view.tracks:
        for shown in track.boards:
            name = stem(shown.track, shown.kind)
            yield f"scores/{name}.js", scripts.scores(shown, board.strata(track.track.tasks))


def _theory(method: Method | None) -> Facts | str | None:
    """What was measured of a loss, or why nothing was; None for what is no loss."""
    if method is None or method.kind != "loss":
        return None
    from lossboard.theory import theory

    return theory(method)


def _curves(methods: Mapping[str, Method]) -> dict[str, Curves | str]:
    """The curves of the losses among these methods, or why one has none."""
    losses = {id: method for id, method in methods.items() if method.kind == "loss"}
    if not losses:
        return {}
    from lossboard.theory import curves

    return {id: curves(method) for id, method in sorted(losses.items())}


def _shape(id: str, control: str, shapes: Mapping[str, Curves | str]) -> list[charts.Figure] | str | None:
    """The charts of a loss's curves, or why it has none; None for what is no loss."""
    own, other = shapes.get(id), shapes.get(control)
    if own is None or isinstance(own, str):
        return own
    return charts.shape(id, own, control, None if other is None or isinstance(other, str) or id == control else other)


def _design() -> Path:
    """Templates and assets: the checkout's, or those beside this module where the checkout has none."""
    own = paths.root() / "site"
    return own if own.is_dir() else Path(__file__).parents[1] / "site"


def _templates(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= markup.FILTERS | {
        "amount": performance.amount,
        "by_verdict": claims.by_verdict,
        "cell": views.cell,
        "labels": views.labels,
        "page_name": page_name,
        "rank": charts.rank,
        "stem": stem,
        "task_page": task_page,
    }
    environment.globals |= {"verdicts": claims.VERDICTS, "evidence": claims.EVIDENCE}
    return environment


def task_page(shown: TrackView, task: str) -> str:
    """The page of a task of a track, in the suite's folder."""
    return f"tasks/{stem(shown.track.name, task)}.html"


# -- files -----------------------------------------------------------------------------------------


def _write(out: Path, files: Mapping[str, str | bytes]) -> None:
    """Write what changed, each file whole or not at all; then remove what only an earlier build wrote."""
    manifest = out / MANIFEST
    before = _listed(manifest)
    _put(manifest, "\n".join(sorted(before | files.keys())) + "\n")  # first: a killed build leaves nothing unlisted
    for name in sorted(files):
        _put(out / name, files[name])
    for name in sorted(before - files.keys()):
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {out / name}: {error.strerror}. Mend that and publish again") from error
    _put(manifest, "\n".join(sorted(files)) + "\n")


def _put(path: Path, content: str | bytes) -> None:
    if isinstance(content, str):  # a lone surrogate in a record must not stop the site
        content = content.encode("utf-8", "replace")
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomically(path, content)


def _listed(manifest: Path) -> set[str]:
    """The files of an earlier build, as far as they lie inside its folder."""
    try:
        lines = manifest.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    inside = [line for line in lines if line and ".." not in PurePosixPath(line).parts]
    return {line for line in inside if not PurePosixPath(line).is_absolute()}

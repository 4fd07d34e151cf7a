"""Pages of claims: the same numbers as the command line, contributed text as text, and where claims are absent."""

import json
import re
from pathlib import Path

import pytest
import toy

from lossboard import claims, paths, protocol, publish

EVIL = "<script>alert(1)</script> \u202e 'quoted'"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkout with two claims, run and published."""
    found = toy.make(tmp_path_factory.mktemp("claims"))
    (found / "suites" / "toy" / "claims.py").write_text(
        "from lossboard.claims import Claim, Comparison, On\n"
        "noise = On(('dirty',))\n"
        "CLAIMS = (\n"
        f"    Claim('evil', {EVIL!r}, 'Peano (1889)', 'derived', (Comparison('two', 'one', noise),), 'Mind it.'),\n"
        "    Claim('falls', 'One is more.', 'Nobody (2026)', 'code', (Comparison('one', 'two', noise),)),\n"
        ")\n"
    )
    done = toy.call(found, "run", "toy")
    assert done.returncode == 0, done.stderr
    return found


def test_a_page_shows_the_command_lines_numbers(root: Path) -> None:
    site = root / ".lossboard" / "site" / "toy"
    page = (site / "claims" / "falls.html").read_text("utf-8")
    assert "Not resolved" in page, "five seeds without variance"
    assert "\N{MINUS SIGN}10.00 points" in page
    assert "lossboard run toy --track quick --only one,two" in page
    assert "It is in the authors&#39; code" in page
    listed = json.loads(toy.call(root, "claims", "toy", "--local", "--json").stdout)
    table = json.loads((site / "data" / "claims.json").read_text("utf-8"))["rows"]
    assert [row["verdict"] for row in table] == [
        found["verdict"] for claim in listed for track in claim["tracks"] for found in track["comparisons"]
    ]
    assert 'href="claims/falls.html"' in (site / "claims.html").read_text("utf-8")
    assert 'href="claims/falls.html"' in (site / "one.html").read_text("utf-8")
    assert 'href="claims/falls.html"' in (site / "two.html").read_text("utf-8")


def test_a_claims_text_is_text(root: Path) -> None:
    site = root / ".lossboard" / "site"
    for path in (site / "toy" / "claims" / "evil.html", site / "toy" / "claims.html"):
        text = path.read_text("utf-8")
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_every_claim_is_under_its_verdict(root: Path) -> None:
    text = (root / ".lossboard" / "site" / "toy" / "claims.html").read_text("utf-8")
    assert re.findall(r'<h2 id="([a-z-]+)">', text) == ["not-resolved"]


def test_both_pages_show_boards_that_contradict_each_other_and_what_a_smaller_track_says() -> None:
    part = claims.Comparison("dsm", "pal_n", claims.On())
    claim = claims.Claim("two-minds", "It is more.", "Nobody (2026)", "code", (part,))

    def verdict(track: str, word: str, *tasks: str) -> claims.Verdict:
        finding = claims.Finding(part, word, 0.01, 0.0, 0.02, tasks=tasks, seeds=5)
        return claims.Verdict(claim, track, word, (finding,), (track.partition("-")[2],))

    few, many = (
        verdict("cpu-few", claims.FAILS, "yeast/full", "scene/full"),
        verdict("cpu-many", "holds", "cal500/full"),
    )
    found = claims.Assessment(claim, (verdict("quick-few", claims.HOLDS, "documents/full"), few, many))
    suite = protocol.load("multilabel")
    view = {"claims": [found], "suite": suite}
    templates = publish._templates(paths.root() / "site" / "templates")

    def page(name: str, **own: object) -> str:
        text = templates.get_template(name).render(own, view=view, suite=suite, up="", top="../")
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))

    shown = page("claim.html", found=found, tracks=[(one, None) for one in found.verdicts])
    assert "Depends on the track" in shown
    said = "holds on cpu-many; does not hold on cpu-few; holds on quick-few, of fewer datasets"
    assert f"Tracks contradict each other: {said}." in shown
    listed = page("claims.html")
    assert "Depends on the track 1 of 1" in listed
    assert "cpu-many: cal500; cpu-few: yeast, scene; holds on quick-few" in listed
    assert "1 of 1; 0 of 1" in listed


def test_a_suite_without_claims_links_to_none(tmp_path: Path) -> None:
    root = toy.make(tmp_path)
    assert toy.call(root, "publish").returncode == 0
    assert "claims.html" not in (root / ".lossboard" / "site" / "toy" / "index.html").read_text("utf-8")
    assert not (root / ".lossboard" / "site" / "toy" / "claims.html").exists()

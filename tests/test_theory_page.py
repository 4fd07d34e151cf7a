"""What a method's page says of its theory: what was measured, once, escaped, and the same at the next build."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from lossboard import paths, theory
from lossboard.publish import publish
from reference.methods import Method, catalogue
from reference.theory import Facts, measure

SHOWN = ("ce", "cs", "dmi", "fwd", "mae", "nce")
DRAWS = 9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout of its own with a few methods, measured at a few distributions."""
    own, here = tmp_path_factory.mktemp("checkout"), Path(__file__).parents[1]
    shutil.copytree(here / "suites", own / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(here / "site", own / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSBOARD_ROOT", str(own))
        patch.setattr("lossboard.run.suite_methods", lambda suite: {id: catalogue("loss")[id] for id in SHOWN})
        patch.setattr("reference.theory.DRAWS", DRAWS)
        yield own


@pytest.fixture(scope="module")
def site(root: Path) -> Path:
    return publish(root / "site-out", {"noisy": []}).parent


@pytest.fixture
def again(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that are measured from now on."""
    found: list[str] = []

    def counted(method: Method) -> Facts | str:
        found.append(method.id)
        return measure(method)

    monkeypatch.setattr(theory, "measure", counted)
    return found


def section(site: Path, method: str) -> str:
    """The words of a page's section, its entities resolved."""
    page = (site / "noisy" / f"{method}.html").read_text("utf-8")
    found = re.search(r'<section id="theory">(.*?)</section>', page, re.DOTALL)
    assert found, method
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[1])).split())


def rows(site: Path, method: str, heading: str) -> list[list[str]]:
    """The cells of the section's table whose first heading is this."""
    page = (site / "noisy" / f"{method}.html").read_text("utf-8")
    tables = re.findall(r'<table class="facts">.*?</table>', page.split('id="theory"')[1], re.DOTALL)
    cells = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.split(r"<tr>", tables[0 if heading else 1])[1:]
    ]
    return [[unescape(cell) for cell in row] for row in cells]


def test_what_is_said_is_what_was_measured(site: Path) -> None:
    for id in ("ce", "cs", "mae", "nce", "fwd"):
        facts, words = measure(catalogue("loss")[id]), section(site, id)
        assert isinstance(facts, Facts)
        assert facts.draws == DRAWS
        assert f"At {DRAWS} random distributions p of the label over 10 classes" in words
        sums = facts.sums[-1]
        numbers = [f"{value:.4g}" for value in ([sums.low] if sums.constant else [sums.low, sums.high])]
        assert all(number in words for number in numbers)
        table = rows(site, id, "noise")[1:]
        assert [row[0] for row in table] == ["0 %", "40 %", "60 %"]
        for row, minima in zip(table, facts.minima, strict=True):
            assert row[1:3] == [f"{int(100 * share + 1e-9)} %" for share in (minima.right, minima.tied)]
            assert row[3] == f"{minima.off:.4f}"
            assert row[4] == ("–" if minima.rate == 0 else f"{minima.moved:.4f}")


def test_known_properties_are_told(site: Path) -> None:
    assert "Symmetric Yes: at all logits tried its sum over the labels is 8 for 5 classes, 18 for 10" in section(
        site, "mae"
    )
    assert "Symmetric No" in section(site, "ce")
    assert "Bounded Yes: from 0 to 2" in section(site, "mae")
    assert "Bounded No" in section(site, "ce")
    assert "Proper Yes, as far as seen: the predicted probabilities are p to within 0.0001" in section(site, "ce")
    assert "Proper No" in section(site, "mae")
    assert f"comes first at all {DRAWS} distributions. All classes come in the order" in section(site, "ce")
    assert "Calibrated Not throughout" in section(site, "cs")
    assert "which the loss is told" in section(site, "fwd")
    assert "which the loss is told" not in section(site, "ce")


def test_a_loss_that_cannot_be_measured_says_why(site: Path) -> None:
    words = section(site, "dmi")
    assert "Nothing was measured here: its values belong to batches, not to samples." in words
    assert "Calibrated" not in words


def test_members_of_the_comp_sum_family_have_their_bound(site: Path) -> None:
    words = section(site, "mae")
    assert "It is 2 times the comp-sum loss of τ = 2, at all logits tried." in words
    assert "as we recalculated it" in words
    assert "T is linear: the excess error is at most 5 times the excess loss, for 10 classes." in words
    assert rows(site, "mae", "")[1] == ["excess loss T(β)", "0.01", "0.02", "0.04", "0.1", "0.2"]
    words = section(site, "ce")
    assert "It is the comp-sum loss of τ = 1" in words
    assert "the root of 2 times the excess loss, whatever the number of classes." in words
    assert rows(site, "ce", "")[1][-1] == "0.6931"  # log 2
    assert all("comp-sum" not in section(site, id) for id in ("cs", "nce", "fwd"))


def test_the_suite_explains_the_section(site: Path) -> None:
    assert "<dt>In theory</dt>" in (site / "noisy" / "index.html").read_text("utf-8")


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_second_build_measures_nothing_and_is_the_same(site: Path, again: list[str], tmp_path: Path) -> None:
    other = publish(tmp_path, {"noisy": []}).parent
    assert again == []
    for id in SHOWN:
        name = Path("noisy") / f"{id}.html"
        assert (site / name).read_bytes() == (other / name).read_bytes()


def test_without_what_was_kept_a_build_is_the_same(
    site: Path, again: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "local", lambda: tmp_path / "local")
    other = publish(tmp_path / "site", {"noisy": []}).parent
    assert again == [id for id in SHOWN if id != "dmi"]
    for id in SHOWN:
        name = Path("noisy") / f"{id}.html"
        assert (site / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("changed", ["reference.losses.mae", "reference.theory"])
def test_another_source_is_measured_anew(
    site: Path, again: list[str], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    real = theory.source
    monkeypatch.setattr(theory, "source", lambda module: "0" * 12 if module == changed else real(module))
    methods = {id: theory.theory(catalogue("loss")[id]) for id in ("ce", "mae")}
    assert all(isinstance(found, Facts) for found in methods.values())
    assert again == (["mae"] if changed == "reference.losses.mae" else ["ce", "mae"])


def test_methods_of_one_file_are_told_apart(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "local", lambda: tmp_path)
    known = catalogue("loss")
    assert known["nmae"].module == known["nce"].module
    first = {id: theory.theory(known[id]) for id in ("nmae", "nce")}
    assert first == {id: theory.theory(known[id]) for id in ("nmae", "nce")}
    assert first["nmae"] != first["nce"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"family": {"tau": 1}, "sums": [], "minima": []}', "\udcff"])
def test_a_damaged_file_is_measured_anew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: list[str], text: str
) -> None:
    monkeypatch.setattr(paths, "local", lambda: tmp_path)
    expected = theory.theory(catalogue("loss")["mae"])
    (kept,) = (tmp_path / "theory").glob("*.json")
    kept.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert theory.theory(catalogue("loss")["mae"]) == expected
    assert again == ["mae", "mae"]
    assert theory.theory(catalogue("loss")["mae"]) == expected
    assert again == ["mae", "mae"]


def test_a_loss_that_breaks_does_not_stop_the_site(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(logits: object, target: object) -> None:
        raise type("<script>alert(1)</script>", (Exception,), {})

    methods = {"ce": catalogue("loss")["ce"], "mae": replace(catalogue("loss")["mae"], function=broken)}
    monkeypatch.setattr(paths, "local", lambda: tmp_path / "local")
    monkeypatch.setattr("lossboard.run.suite_methods", lambda suite: methods)
    site = publish(tmp_path / "site", {"noisy": []}).parent
    assert "it could not be measured (<script>alert(1)</script>)" in section(site, "mae")
    assert "<script>" not in (site / "noisy" / "mae.html").read_text("utf-8")
    assert "Proper Yes" in section(site, "ce")

"""The source hash: formulas count, words and layout do not."""

import sys
from pathlib import Path

import pytest

from lossboard import sources

LOSS = '''"""A citation."""
from reference.softmax import pick

def mine(logits, target, *, q=0.5):
    """What it does."""
    return q * pick(logits, target)
'''


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hash of a module with this text."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(text: str) -> str | None:
        (tmp_path / "a_loss_for_tests.py").write_text(text)
        sources.source.cache_clear()
        return sources.source("a_loss_for_tests")

    yield made
    sources.source.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A citation", "Another"),
        ("What it does", "Words"),
        ("    return", "    # why\n\n    return"),
        ("q * pick", "(q) * pick"),
    ],
)
def test_words_and_layout_leave_it(digest, old: str, new: str) -> None:
    assert digest(LOSS) == digest(LOSS.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("q * pick", "2 * q * pick"), ("q=0.5", "q=0.6"), ("def mine", "def other")])
def test_formulas_change_it(digest, old: str, new: str) -> None:
    assert digest(LOSS) != digest(LOSS.replace(old, new))


def test_what_it_imports_from_the_reference_counts_and_the_decorators_do_not(tmp_path: Path, monkeypatch) -> None:
    """A copy of the reference package in which one file after the other is edited."""
    package = tmp_path / "reference"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "methods.py").write_text("def loss(): ...\n")
    (package / "inner.py").write_text("k = 1\n")
    (package / "softmax.py").write_text("from reference.inner import k\n")
    (package / "mine.py").write_text("from reference.methods import loss\nfrom reference import softmax\n")
    script = "from lossboard.sources import source; print(source('reference.mine'))"
    import os
    import subprocess

    def now() -> str:
        paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
        run = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, cwd=tmp_path
        )
        return run.stdout.decode() or run.stderr.decode()

    (package / "beside.py").write_text("k = 1\n")
    (package / "mine.py").write_text(
        "from reference.methods import loss\nfrom reference import softmax\nfrom .beside import k\n"
    )
    first = now()
    assert len(first.strip()) == 12
    (package / "methods.py").write_text("def loss(): return 1\n")
    assert now() == first
    for name in ("inner", "beside"):
        (package / f"{name}.py").write_text("k = 2\n")
        assert now() != first, name
        (package / f"{name}.py").write_text("k = 1\n")
        assert now() == first


def test_a_module_that_is_gone_has_none() -> None:
    assert sources.source("reference.losses.never_was") is None
    assert sources.source("never_was.at_all") is None


def test_a_name_from_a_record_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap_for_tests").mkdir()
    (tmp_path / "trap_for_tests" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "trap_for_tests" / "inner.py").write_text("")
    sources.source.cache_clear()
    assert sources.source("trap_for_tests.inner")
    assert sources.source("trap_for_tests.absent") is None


def test_no_method_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("reference.losses")]:
        monkeypatch.delitem(sys.modules, name)
    sources.source.cache_clear()
    assert sources.source("reference.losses.gce")
    assert "reference.losses.gce" not in sys.modules

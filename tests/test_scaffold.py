"""From an idea to a method that keeps its contract: ``lossboard new`` and ``check`` in a copy of the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lossboard import fidelity, paths, scaffold
from lossboard.errors import UsageError
from reference.methods import PACKAGES, catalogue

CHECKOUT = Path(__file__).parents[1]
COPIED = (
    "reference",
    "lossboard",
    "kernels",
    "suites",
    "tests/contract",
    "tests/conftest.py",
    "tests/attacked.py",
    "pyproject.toml",
    "site",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without records."""
    root = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source, copy = CHECKOUT / name, root / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    return root


def _python(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LOSSBOARD_ROOT": str(root), "PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *args], cwd=root, env=environ, capture_output=True, text=True, timeout=600
    )


def test_every_form_keeps_its_contract_once_its_paper_is_named(checkout: Path) -> None:
    said = {}
    for kind in scaffold.kinds():
        made = _python(checkout, "-m", "lossboard", "new", kind, f"new_{kind}")
        assert made.returncode == 0, made.stderr
        assert f"new_{kind}.py" in made.stdout
        said[kind] = made.stdout.splitlines()[-1].removeprefix("then: ").split("; ")
    names = " or ".join(f"new_{kind}" for kind in scaffold.kinds())
    contract = ("-m", "pytest", "-q", "-p", "no:xdist", "-k", names, "tests/contract")
    failed = re.findall(r"^FAILED \S+::(\w+)\[", _python(checkout, *contract).stdout, re.MULTILINE)
    assert set(failed) == {"test_documentation"}, "the citation is to be filled in, and nothing else"
    for path in (checkout / "reference").glob("*/new_*.py"):
        path.write_text(path.read_text().replace("(Authors, Venue Year, arXiv:0000.00000)", "(Me & You, Venue 2026)"))
    found = _python(checkout, *contract)
    assert found.returncode == 0, found.stdout[-3000:]
    listed = _python(checkout, "-m", "lossboard", "list", "losses").stdout
    assert "new_loss" in listed
    assert "new_correction" in listed
    for kind, commands in said.items():
        _commands_work(checkout, f"new_{kind}", *(command.split()[1:] for command in commands))


def _commands_work(checkout: Path, id: str, check: list[str], *runs: list[str]) -> None:
    """What ``new`` ends with: a check, of two kinds done here, and what ranks the method, of which a plan is made."""
    assert check == ["check", id]
    for _, *options in runs:
        planned = _python(checkout, "-m", "lossboard", "plan", *options, "--seeds", "0", "--json")
        assert json.loads(planned.stdout)["cells"] > 0, planned.stderr
    if id in ("new_calibrator", "new_multilabel"):
        checked = _python(checkout, "-m", "lossboard", *check)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert f"'{id}' keeps the contract of its kind" in checked.stdout


def test_a_method_of_any_kind_is_known_to_check() -> None:
    assert scaffold.CONTRACTS.keys() == PACKAGES.keys()
    folder = CHECKOUT / "tests" / "contract"
    assert {name for names in scaffold.CONTRACTS.values() for name in names} == {
        path.name for path in folder.glob("test_*.py")
    }
    told = _python(CHECKOUT, "-m", "lossboard", "check", "temperatur")
    assert "no method 'temperatur'; did you mean temperature" in told.stderr
    told = _python(CHECKOUT, "-m", "lossboard", "check", "temperature", "--no-contract")
    assert "'temperature' is of kind 'calibrator', and a fidelity card is for losses" in told.stderr


def test_kernels_are_known_to_check() -> None:
    found = _python(CHECKOUT, "-m", "lossboard", "check", "softmax.eager")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "'softmax.eager' is what reference/ops/softmax.py defines" in found.stdout
    assert " passed" in found.stdout
    told = _python(CHECKOUT, "-m", "lossboard", "check", "softmax.twopass")
    assert "no implementation 'twopass' of 'softmax'; did you mean two_pass" in told.stderr
    operations = {path.stem for path in (CHECKOUT / "reference" / "ops").glob("*.py")}
    assert scaffold.KERNELS.keys() == {
        path.name for path in (CHECKOUT / "kernels").iterdir() if path.name in operations
    }
    assert all((CHECKOUT / "tests" / "kernels" / name).exists() for name in scaffold.KERNELS.values())


def test_a_loss_that_breaks_its_contract_is_told_so(checkout: Path) -> None:
    assert _python(checkout, "-m", "lossboard", "new", "loss", "broken").returncode == 0
    path = checkout / "reference" / "losses" / "broken.py"
    path.write_text(path.read_text().replace("/ q\n", "/ q * torch.log(logits.max())\n"))
    found = _python(checkout, "-m", "lossboard", "check", "broken")
    path.unlink()
    assert found.returncode == 1
    assert "'broken' breaks its contract" in found.stderr


@pytest.mark.parametrize(
    ("kind", "id", "said"),
    [
        ("los", "a", "did you mean loss"),
        ("loss", "../a", "an id is"),
        ("loss", "A", "an id is"),
        ("loss", "gce", "already"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_overwritten(kind: str, id: str, said: str) -> None:
    before = (paths.root() / "reference" / "losses" / "gce.py").read_bytes()
    with pytest.raises(UsageError, match=said):
        scaffold.new(kind, id)
    assert (paths.root() / "reference" / "losses" / "gce.py").read_bytes() == before


def test_the_card_says_what_is_known_of_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "SAMPLES", 64)
    plain, mae = (fidelity.card(catalogue("loss")[id]) for id in ("ce", "mae"))
    assert plain.values[(0.0, 0.0, 0.0)] == pytest.approx([1.0986122886681098] * 3)
    assert plain.range[1] == pytest.approx(2e4)
    assert mae.sums == pytest.approx((4.0, 4.0)), "of C labels, 2 (C - 1)"
    assert not plain.sums[1] - plain.sums[0] < 1e-3
    for found in (plain, mae):
        assert found.finite
        assert found.gradient < 1e-6
        assert found.memory_bytes >= 0


def test_the_card_finds_a_loss_that_is_another_ones_multiple() -> None:
    same = fidelity.card(catalogue("loss")["mae"]).same
    assert all(name != "mae" for name in same)
    assert any("rce" in name for name in same), f"reverse cross-entropy is a multiple of MAE: {same}"

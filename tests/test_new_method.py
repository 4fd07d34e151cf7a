"""A method in one new file of its author's own package, found by its entry point, stands everywhere with no edit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
TEXT = '''"""My own loss (Me & You, Venue 2026)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax


@loss(search={"q": (0.05, 0.95)}, bounded=True, tags=("of-my-own",))
def of_my_own(logits: Tensor, target: Tensor, *, q: float = 0.5) -> Tensor:
    r"""A transform of the target's probability, for logits (N, C) and target (N,); returns (N,).

    $$ \\frac{1 - p_y^q}{q} $$
    """
    return -torch.expm1(q * target_log_softmax(logits, target)) / q
'''


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """A package of one file with its entry point, and a checkout without results."""
    package = tmp_path / "package"
    described = package / "own-1.dist-info"
    described.mkdir(parents=True)
    (package / "own_losses.py").write_text(TEXT)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[lossboard.methods]\nown = own_losses\n")
    root = tmp_path / "checkout"
    for folder in ("suites", "site"):
        shutil.copytree(CHECKOUT / folder, root / folder)
    theory = Path(".lossboard") / "theory"
    if (CHECKOUT / theory).is_dir():  # what pages say of the other losses: the same, and a minute's work
        shutil.copytree(CHECKOUT / theory, root / theory)
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "LOSSBOARD_ROOT": str(root), "LOSSBOARD_COMPILE": "0", "COLUMNS": "200"}


def test_it_appears_in_plan_run_board_and_site(elsewhere: dict[str, str]) -> None:
    def lossboard(*args: str) -> str:
        command = [sys.executable, "-m", "lossboard", *args]
        done = subprocess.run(command, env=os.environ | elsewhere, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    asked = ("--only", "ce,of_my_own", "--seeds", "0")
    assert "of_my_own" in {row["id"] for row in json.loads(lossboard("list", "losses", "--json"))}
    assert json.loads(lossboard("plan", "noisy", *asked, "--json"))["missing"] == 42
    assert "of_my_own" in lossboard("run", "noisy", *asked, "--jobs", "1")
    assert json.loads(lossboard("plan", "noisy", *asked, "--json"))["done"] == 42
    assert "of_my_own" in lossboard("board", "noisy", "--local", "--seeds", "0")
    pages = Path(elsewhere["LOSSBOARD_ROOT"]) / ".lossboard" / "site"
    page = (pages / "noisy" / "of_my_own.html").read_text()
    assert "A transform of the target’s probability" in page or "A transform of the target&#39;s probability" in page
    assert "of_my_own" in (pages / "noisy" / "index.html").read_text()
    shown = lossboard("board", "noisy", "--local", "--seeds", "0", "--json")
    assert "of_my_own" in shown
    corrected = lossboard("plan", "noisy", "--only", "mixup-of_my_own", "--seeds", "0")
    assert "21 missing" in corrected

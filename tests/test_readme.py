"""The README tells the truth: its board is the published one, its commands and links exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_boards_are_the_published_ones() -> None:
    shown = re.findall(r"<!-- board: lossboard (.+?) -->\n(.*?)\n?<!-- end of board -->", README, re.DOTALL)
    assert shown
    assert len(shown[0][1].splitlines()) == 22
    for options, table in shown:
        command = [sys.executable, "-m", "lossboard", *options.split()]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert table.strip() == result.stdout.strip(), options


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/machines.md", "suites/noisy/README.md", "suites/kernels/README.md"]
)
def test_links_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links or name != "README.md"
    for link in links:
        assert ((ROOT / name).parent / link).exists(), link


def test_every_session_it_names_exists() -> None:
    text = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"nox -s ([a-z-]+)", text))
    sessions = set(re.findall(r'@nox\.session\(name="([a-z-]+)"\)', (ROOT / "noxfile.py").read_text()))
    sessions |= set(re.findall(r"@nox\.session(?:\(venv.*\))?\ndef ([a-z_]+)", (ROOT / "noxfile.py").read_text()))
    sessions |= {f"suite-{path.parent.name}" for path in ROOT.glob("suites/*/suite.toml")}
    assert named
    assert named <= sessions


def test_its_example_of_a_loss_passes_the_contract_from_a_package_of_its_own(tmp_path: Path) -> None:
    code = re.search(r"```python\n(# reference/losses/mine\.py\n.*?)```", README, re.DOTALL)
    assert code
    (tmp_path / "mine.py").write_text(code[1])
    described = tmp_path / "mine-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[lossboard.methods]\nmine = mine\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract", "-k", "mine"]
    environ = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert int(re.findall(r"(\d+) passed", result.stdout)[-1]) >= 14

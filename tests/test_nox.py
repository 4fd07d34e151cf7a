"""The shared environment of the nox sessions: made once, whoever asks, and made again after a kill.

The tests use the real noxfile on a project without requirements, whose build needs no network.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOXFILE = Path(__file__).parents[1] / "noxfile.py"
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1"
[project.optional-dependencies]
dev = []
"""
BACKEND = """
import pathlib, time, zipfile
METADATA = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\nProvides-Extra: dev\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

def build_editable(folder, settings=None, metadata=None):
    pathlib.Path("builds").open("a").write("built\\n")
    time.sleep(1)
    with zipfile.ZipFile(pathlib.Path(folder, "tiny-1-py3-none-any.whl"), "w") as file:
        file.writestr("tiny-1.dist-info/METADATA", METADATA)
        file.writestr("tiny-1.dist-info/WHEEL", WHEEL)
        file.writestr("tiny-1.dist-info/RECORD", "")
    return "tiny-1-py3-none-any.whl"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(NOXFILE, tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "constraints.txt").write_text("")
    (tmp_path / "lossboard").mkdir()
    (tmp_path / "lossboard" / "__main__.py").write_text("import sys; print('called with', sys.argv[1:])")
    return tmp_path


def start(project: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nox", "-s", "cli", "--", "plan", "noisy"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NOX")}
    return subprocess.Popen(
        command, cwd=project, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "called with ['plan', 'noisy']" in output
    return output


def test_two_sessions_at_once_make_one_environment_and_the_next_none(project: Path) -> None:
    both = [start(project), start(project)]
    outputs = [finish(process) for process in both]
    assert sum("making the environment" in output for output in outputs) == 1
    assert (project / "builds").read_text() == "built\n"
    assert "making the environment" not in finish(start(project))


def test_a_half_made_environment_is_made_again(project: Path) -> None:
    (project / ".nox" / "env" / "bin").mkdir(parents=True)
    (project / ".nox" / "env" / "bin" / "python").write_text("not a python")
    assert "making the environment" in finish(start(project))


def test_other_requirements_make_another(project: Path) -> None:
    finish(start(project))
    (project / "constraints.txt").write_text("# changed\n")
    assert "making the environment" in finish(start(project))
    assert (project / "builds").read_text() == "built\nbuilt\n"


def test_the_site_is_built_in_its_own_folder(project: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NOX")}
    command = [sys.executable, "-m", "nox", "-s", "site", "--", "--local"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=300)
    assert "called with ['publish', '_site', '--local']" in done.stdout, done.stdout + done.stderr


def test_a_failed_install_says_what_to_do_and_leaves_no_stamp(project: Path) -> None:
    (project / "backend.py").write_text("raise SystemExit('no build')")
    process = start(project)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "run the same line again" in output
    assert not (project / ".nox" / "env" / "stamp").exists()


@pytest.mark.parametrize(("code", "told"), [(1, "got worse (exit code 1"), (3, "not measured (exit code 3"), (0, "")])
def test_what_became_of_the_benchmarks_is_told(project: Path, code: int, told: str) -> None:
    (project / "benchmarks").mkdir()
    (project / "benchmarks" / "history.py").write_text(f"import sys; print(sys.argv[1:]); sys.exit({code})")
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NOX")}
    command = [sys.executable, "-m", "nox", "-s", "asv", "--", "main~2..main", "--again"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == bool(code)
    assert "['main~2..main', '--again']" in done.stdout
    assert told in done.stdout + done.stderr

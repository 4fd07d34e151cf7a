"""The workflows: no code of a contribution runs beside a token that writes, and nothing foreign runs unpinned."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / ".github" / "workflows"
FILES = sorted(path.name for path in FOLDER.glob("*.yml"))


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def _steps(name: str) -> list[dict[str, Any]]:
    return [step for job in _read(name)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", FILES)
def test_a_token_is_told_to_no_step_that_runs_the_checkout(name: str) -> None:
    workflow = _read(name)
    assert not [part for part in (workflow, *workflow["jobs"].values()) if "token" in str(part.get("env", ""))]
    told = [step["run"] for step in _steps(name) if "token" in str(step.get("env", ""))]
    assert not [command for command in told if re.search(r"\b(nox|pip|python3?|pytest|lossboard \w)\b", _code(command))]


def _code(command: str) -> str:
    """Without what is only text: the bodies and titles of pull requests and releases."""
    return re.sub(r'--(body|notes|title) "[^"]*"', "", command)


@pytest.mark.parametrize("name", FILES)
def test_actions_are_pinned_and_keep_no_credentials(name: str) -> None:
    used = [step for step in _steps(name) if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]) for step in used)
    checkouts = [step["with"] for step in used if step["uses"].startswith("actions/checkout@")]
    assert all(each["persist-credentials"] is False for each in checkouts)


@pytest.mark.parametrize("name", FILES)
def test_what_somebody_else_may_name_stands_in_no_script(name: str) -> None:
    assert not [step["run"] for step in _steps(name) if "${{" in step.get("run", "")]
    assert "pull_request_target" not in (FOLDER / name).read_text()

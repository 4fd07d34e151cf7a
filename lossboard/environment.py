"""Provenance: the versions, the machine and the commit that a record was made with."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lossboard import paths

PACKAGES = ("torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Provenance:
    """What a run says about where its records come from."""

    commit: str | None
    dirty: bool
    env: dict[str, str]
    started: str

    def header(self) -> dict[str, Any]:
        return {"commit": self.commit, "dirty": self.dirty, "env": self.env, "started": self.started}


def provenance() -> Provenance:
    """This machine, now."""
    commit, dirty = _git()
    return Provenance(commit, dirty, environment(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def environment() -> dict[str, str]:
    """Versions and machine: what may change the last bits of a number."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found | {"system": f"{platform.system()} {platform.machine()}", "cpu": _cpu()}


def _git() -> tuple[str | None, bool]:
    """Commit, and whether anything but the published results differs from it; (None, True) without git."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=paths.root(), capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", ":!results"))
    except (OSError, subprocess.CalledProcessError):
        return None, True


def _cpu() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as lines:
                for line in lines:
                    if line.startswith("model name"):
                        return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()

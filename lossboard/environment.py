"""Provenance: the versions, the machine and the commit that a record was made with."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lossboard import compiler, paths

WIDEST = {"avx512f": "AVX-512", "avx2": "AVX2"}
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
    machine = {"system": f"{platform.system()} {platform.machine()}", "cpu": _cpu()}
    return found | machine | {"compiler": compiler.described(), "gpu": _gpu()}


def _git() -> tuple[str | None, bool]:
    """Commit, and whether anything but the published results differs from it; (None, True) without git."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=paths.root(), capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != paths.root():  # unpacked inside another repository
            return None, True
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", ":!results"))
    except (OSError, subprocess.CalledProcessError):
        return None, True


def _cpu() -> str:
    """The processor's name and widest vector instructions, which decide the last bits of matrix products."""
    if sys.platform != "linux":
        return platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return platform.machine()
    found = dict(line.replace("\t", "").split(":", 1) for line in text.splitlines() if ":" in line)
    flags = found.get("flags", "").split()
    widest = next((name for flag, name in WIDEST.items() if flag in flags), "")
    return " ".join(filter(None, (found.get("model name", platform.machine()).strip(), widest)))


def _gpu() -> str:
    """The name of the first graphics processor, or "none"."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none"

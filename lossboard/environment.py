"""Provenance: the versions, the machine and the commit that a record was made with."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lossboard import compiler, paths

WIDEST = {"avx512f": "AVX-512", "avx2": "AVX2"}
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "numba")
KEYS = ("python", *PACKAGES, "system", "cpu", "compiler", "gpu")  # of ``environment``
OF_MACHINE = ("machine", "cores", "caches", "huge pages", "governor", "gpu clock", "gpu driver")  # of ``machine``


@dataclass(frozen=True)
class Provenance:
    """What a run says about where its records come from."""

    commit: str | None
    dirty: bool
    env: dict[str, str]
    started: str

    def header(self) -> dict[str, Any]:
        return {"commit": self.commit, "dirty": self.dirty, "env": self.env, "started": self.started}


def provenance(alone: bool = False) -> Provenance:
    """This machine, now; ``alone`` with what decides how fast it is, by which records are told apart."""
    commit, dirty = _git()
    env = environment() | (machine() if alone else {})
    return Provenance(commit, dirty, env, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


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
        return git("rev-parse", "HEAD"), bool(uncommitted())
    except (OSError, subprocess.CalledProcessError):
        return None, True


def uncommitted() -> list[str]:
    """Lines of ``git status`` about what is not committed, beside the published results: their state and path.

    Raises:
        OSError, subprocess.CalledProcessError: there is no git, or no repository.
    """
    command = ["git", "status", "--porcelain", "--", ".", ":!results"]
    found = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


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


def _gpu(what: str = "name") -> str:
    """A property of the first graphics processor, or "none"."""
    try:
        command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none"


def machine_name(env: Mapping[str, str]) -> str:
    """By what records that hold for one machine are told apart; '' of records that hold everywhere.

    Makers of processors give several generations one name; the sizes of their caches differ.

    >>> machine_name({"machine": "AMD EPYC AVX-512, 2 cores", "caches": "L1d 48K, L1i 32K, L2 1024K, L3 32768K"})
    'AMD EPYC AVX-512, 2 cores, caches of 48K, 1024K, 32768K'
    """
    sizes = re.findall(r"L(?:1d|2|3) (\d+[KM])", env.get("caches", ""))
    name = env.get("machine", "")
    return f"{name}, caches of {', '.join(sizes)}" if name and sizes else name


@functools.cache
def machine() -> dict[str, str]:
    """What decides how fast this machine is, and under ``machine`` its processor, cores and GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = _gpu()
    name = f"{_cpu()}, {cores} core{'s' if cores > 1 else ''}"
    found = {"machine": name if gpu == "none" else f"{name}, {gpu}", "cores": str(cores)}
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(index / part) for part in ("level", "type", "size"))
        caches[f"L{level}{kind[:1].lower() if level == '1' else ''}"] = size
    found["caches"] = ", ".join(f"{level} {size}" for level, size in caches.items()) or "unknown"
    pages = re.search(r"\[(\w+)\]", _read(Path("/sys/kernel/mm/transparent_hugepage/enabled")))
    found["huge pages"] = pages[1] if pages else "unknown"
    found["governor"] = _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "unknown"
    if gpu != "none":
        found["gpu clock"] = f"{_gpu('clocks.max.sm')}, memory {_gpu('clocks.max.mem')}"
        found["gpu driver"] = _gpu("driver_version")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""

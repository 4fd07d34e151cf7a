"""Commands that a night or a pull request runs one after the other, each also where one before it failed.

``nightly`` measures what is missing within a budget of time, and checks what there is; ``review`` judges a branch that
adds methods or records. Both say at the end what failed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lossboard import inspection, paths, protocol
from lossboard.errors import CheckFailed, LossboardError, UsageError

NOT_MEASURED = 3  # the exit code that says so


@dataclass
class Steps:
    """What was run, and how it ended."""

    out: Path | None = None  # a folder for what each step said
    failed: dict[str, int] = field(default_factory=dict)  # step -> exit code

    def run(self, name: str, *args: str, module: str = "lossboard") -> None:
        """Run ``python -m module args`` in the checkout; what it says goes to the terminal and the folder."""
        print(f"== {name}: {module} {' '.join(args)}", flush=True)
        command = [sys.executable, "-m", module, *args]
        process = subprocess.Popen(
            command, cwd=paths.root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        said = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            said.append(line)
        if process.wait():
            self.failed[name] = process.returncode
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / f"{name.replace(' ', '-')}.txt").write_text("".join(said), "utf-8")

    def conclude(self) -> None:
        """Say what failed.

        Raises:
            CheckFailed: a step found something wrong.
            LossboardError: a step could not measure something.
        """
        if self.failed:
            said = "; ".join(f"{name} (exit code {code})" for name, code in self.failed.items())
            kind = LossboardError if NOT_MEASURED in self.failed.values() else CheckFailed
            raise kind(f"not all went well: {said}. What each says is above")


# -- a night ---------------------------------------------------------------------------------------


def nightly(
    budget_s: float, tracks: Sequence[str], sample: int, jobs: int, *, submit: bool, asv: bool, site: str
) -> None:
    """Fill every suite within the budget; measure performance; reproduce a sample; seal what is whole; build the site.

    The budget is of the first of these: each suite and track gets an equal share of what is left of it.

    Raises:
        LossboardError: something could not be measured, or was found wrong; after all steps.
    """
    suites = {name: protocol.load(name) for name in protocol.available()}
    known = {track for suite in suites.values() for track in suite.tracks}
    if unknown := sorted(set(tracks) - known):
        raise UsageError(f"no suite has a track '{unknown[0]}'; {protocol.nearest(unknown[0], known)}")
    steps = Steps()
    parts = [(name, track) for track in tracks for name, suite in suites.items() if track in suite.tracks]
    end = time.monotonic() + budget_s
    for number, (name, track) in enumerate(parts):
        share = round((end - time.monotonic()) / (len(parts) - number))
        if share < 1:
            print(f"== fill {name} {track}: no time is left for it tonight", flush=True)
            continue
        options = ["--track", track, "--fill", "--budget", f"{share}s", "--jobs", str(jobs), "--no-page"]
        steps.run(f"fill {name} {track}", "run", name, *options)
    if asv:
        steps.run("performance", module="benchmarks.history")
    for name, suite in suites.items():
        if not suite.alone and any((paths.results() / name).glob("*/*.jsonl")):  # ratios of times are measured above
            steps.run(f"reproduce {name}", "reproduce", name, "--sample", str(sample), *["--keep"] * submit)
    for name, track in parts if submit else ():
        steps.run(f"submit {name} {track}", "submit", name, "--track", track, "--whole")
    steps.run("site", "publish", site)
    steps.conclude()


# -- a pull request --------------------------------------------------------------------------------


def review(since: str, sample: int, out: Path | None) -> None:
    """Judge what a branch adds since a revision: contract, card and smoke board of its methods, its records.

    Raises:
        CheckFailed: something is wrong; after all steps.
        LossboardError: something could not be measured.
    """
    from lossboard.run import suite_methods
    from reference.methods import catalogue

    steps = Steps(out)
    files = {name for name in _changed(since, "--diff-filter=d") if name.endswith(".py")}
    _name_the_rest(since, out)
    losses = [id for id, method in catalogue("loss").items() if _file(method.module) in files]
    for id in losses:
        steps.run(f"check {id}", "check", id)
    for name in protocol.available():
        suite = protocol.load(name)
        mine = {id: m for id, m in suite_methods(suite).items() if _file(m.module) in files}
        if mine and "quick" in suite.tracks and not suite.alone:
            controls = {suite.controls[method.kind] for method in mine.values()}
            only, seeds = ",".join(sorted({*mine, *controls})), ",".join(map(str, suite.track("quick").seeds[:2]))
            steps.run(f"smoke {name}", "run", name, "--only", only, "--seeds", seeds, "--no-page")
    added, faults = inspection.added_since(since)
    if added or faults:
        steps.run("records", "inspect", "--since", since)
    for name in sorted({path.parent.parent.name for path in added} & {*protocol.available()}):
        if not protocol.load(name).alone:
            steps.run(f"again {name}", "reproduce", name, "--since", since, "--sample", str(sample))
    if not (losses or added or faults):
        print("no new loss, and no record, since", since)
    steps.conclude()


def _name_the_rest(since: str, out: Path | None) -> None:
    """Say which files somebody has to read, above all those of what judges here: the branch brings its own."""
    suites = tuple(f"results/{name}/" for name in protocol.available())
    rest = sorted(name for name in _changed(since) if not name.startswith(("reference/", *suites)))
    said = "".join(f"{name}\n" for name in rest)
    if rest:
        print(
            f"== also changed, not judged here, and part of what judges where it is code: read it\n{said}", flush=True
        )
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "also-changed.txt").write_text(said, "utf-8")


def _changed(since: str, *options: str) -> set[str]:
    """Files that differ since a revision, relative to the root."""
    command = ["git", "diff", "--name-only", "--no-renames", *options, f"{since}...HEAD"]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"git cannot compare with '{since}': {done.stderr.strip()}")
    return set(done.stdout.splitlines())


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"

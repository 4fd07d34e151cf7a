"""Performance over commits: measure a range of them with asv, and compare its last two.

    python -m benchmarks.history                     HEAD and the commit before it
    python -m benchmarks.history main~5..main        these five and the one before them, along first parents
    python -m benchmarks.history --bench Softmax     only benchmarks whose name matches
    python -m benchmarks.history --again             also what was measured before, so that all is side by side

Commits that are measured in one call take turns, round by round. Results are kept in ``results/asv``. Two commits
differ where asv says so: by more than a tenth, and significantly where there are samples (Mann-Whitney's U, p < 0.002).
The samples of a process are alike, so that commits which are the same differ more often than p says: 6 of 46 times on a
busy machine. Therefore what looks worse is measured again at both commits, and is worse if it is so twice.

Exit codes: 0 nothing got worse, 1 something did, 2 the call is wrong, 3 something was not measured.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asv.benchmarks import Benchmarks
from asv.commands.compare import _is_result_better, unroll_result
from asv.config import Config
from asv.machine import MachineCollection
from asv.results import iter_results_for_machine_and_hash
from asv.util import UserError

from lossboard import paths
from lossboard.environment import environment
from lossboard.errors import LossboardError, UsageError

FACTOR = 1.1  # asv's own; what differs by less is of no interest


class Outcome(StrEnum):
    """What became of a benchmark between two commits."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "same"
    NEW = "new"  # nothing to compare with: the older commit has no such thing, or failed, or another version
    SKIPPED = "skipped"  # neither commit has such a thing
    FAILED = "failed"  # the newer commit raised
    MISSING = "missing"  # a commit was not measured, or the newer has no longer what the older had


NOT_MEASURED = {Outcome.FAILED, Outcome.MISSING}


@dataclass(frozen=True)
class Value:
    """A result of asv: seconds or bytes, NaN where it was skipped, None where it failed."""

    value: float | None
    stats: Mapping[str, Any] | None
    samples: list[float] | None
    version: str | None

    @property
    def known(self) -> bool:
        return self.value is not None and not math.isnan(self.value)


Comparison = Mapping[str, tuple[Outcome, Value | None, Value | None]]  # by benchmark with its parameters


def outcome(before: Value | None, after: Value | None) -> Outcome:
    """How the newer value compares with the older; None where there is no result at all."""
    if before is None or after is None:
        return Outcome.MISSING
    if after.value is None:
        return Outcome.FAILED
    if not after.known:
        return Outcome.MISSING if before.known else Outcome.SKIPPED
    if not before.known or before.version != after.version:
        return Outcome.NEW
    if _better(before, after):
        return Outcome.WORSE
    return Outcome.BETTER if _better(after, before) else Outcome.SAME


def _better(a: Value, b: Value) -> bool:
    """Whether asv's comparison calls a better than b."""
    return bool(_is_result_better(a.value, b.value, (a.stats, a.samples), (b.stats, b.samples), FACTOR))


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """1 where anything got worse, else 3 where anything (or everything) was not measured, else 0.

    >>> exit_code([Outcome.SAME, Outcome.MISSING]), exit_code([Outcome.SAME, Outcome.NEW]), exit_code([])
    (3, 0, 3)
    """
    found = set(outcomes)
    if Outcome.WORSE in found:
        return 1
    return 3 if found & NOT_MEASURED or found <= {Outcome.SKIPPED} else 0


def twice(first: Comparison, second: Comparison) -> Comparison:
    """The second comparison, in which is worse only what was so in the first.

    >>> once, again = {"a": (Outcome.WORSE, None, None)}, {"a": (Outcome.WORSE, None, None)}
    >>> twice(once, again)["a"][0], twice({"a": (Outcome.SAME, None, None)}, again)["a"][0]
    (<Outcome.WORSE: 'worse'>, <Outcome.SAME: 'same'>)
    """
    worse = {name for name, (what, *_) in first.items() if what is Outcome.WORSE}
    return {
        name: (Outcome.SAME if what is Outcome.WORSE and name not in worse else what, before, after)
        for name, (what, before, after) in second.items()
    }


def compared(machine: str, older: str, newer: str, pattern: str) -> Comparison:
    """Compare the results of two commits, of the benchmarks there are now."""
    now = {name: bench["params"] for name, bench in Benchmarks.load(config()).items()}
    before, after = values(machine, older, now), values(machine, newer, now)
    names = [name for name in dict.fromkeys([*before, *after]) if re.search(pattern, name)]
    return {name: (outcome(before.get(name), after.get(name)), before.get(name), after.get(name)) for name in names}


def hours_apart(machine: str, older: str, newer: str) -> float:
    """Between the last measurements of two commits; 0 where one has none."""
    ends = [
        max((time for found in _stored(machine, commit) for time in found.started_at.values() if time), default=0)
        for commit in (older, newer)
    ]
    return abs(ends[1] - ends[0]) / 3_600_000 if all(ends) else 0.0


def _stored(machine: str, commit: str) -> Iterable[Any]:
    """asv's results of a commit, a file an environment."""
    return iter_results_for_machine_and_hash(config().results_dir, machine, commit[:8])


def values(machine: str, commit: str, now: Mapping[str, Any]) -> dict[str, Value]:
    """The results of a commit by benchmark and parameters; those that the benchmarks of now have."""
    found: dict[str, Value] = {}
    for results in _stored(machine, commit):
        for name in results.get_all_result_keys() & now.keys():
            parts = (results.get_result_value, results.get_result_stats, results.get_result_samples)
            version = results.benchmark_version.get(name)
            columns = (part(name, now[name]) for part in parts)
            for full, value, stats, samples in unroll_result(name, now[name], *columns):
                found[full] = Value(value, stats, samples, version)
    return found


# -- asv ---------------------------------------------------------------------------------------------------------------


def config() -> Config:
    """The configuration; where the results are does not depend on the folder this is called in."""
    found = Config.load(str(paths.root() / "asv.conf.json"))
    found.results_dir = str(paths.root() / found.results_dir)
    return found


def asv(*arguments: str, given: str | None = None) -> int:
    """Run asv in the checkout; its exit code, which is the same for a failed benchmark as for a regression."""
    command = [sys.executable, "-m", "asv", *arguments]
    return subprocess.run(command, cwd=paths.root(), input=given, text=True).returncode


def machine_name() -> str:
    """A name for this machine by its processor, which says nothing about whose it is."""
    return re.sub(r"[^a-z0-9]+", "-", f"{environment()['cpu']} {os.cpu_count()} cores".lower()).strip("-")


def register(machine: str) -> None:
    """Tell asv about this machine, by its file in the home folder; ``asv machine`` would keep only what is unusual."""
    facts = {"os": platform.system(), "arch": platform.machine(), "cpu": environment()["cpu"]}
    facts |= {"num_cpu": str(os.cpu_count()), "ram": f"{_memory_bytes() / 2**30:.0f} GiB"}
    MachineCollection.save(machine, {"machine": machine, **facts})


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# -- commits -----------------------------------------------------------------------------------------------------------


def commits(span: str) -> list[str]:
    """The full hashes of a git range, oldest first, with the commit before it; a single commit is a range of one.

    Raises:
        UsageError: git knows no such range, or nothing is in it.
    """
    span = span if ".." in span else f"{span}~1..{span}"
    found = git("rev-list", "--first-parent", "--reverse", span, "--").split()
    if not found:
        raise UsageError(f"no commit is in {span}; an example: main~3..main")
    return [git("rev-parse", f"{found[0]}~1").strip(), *found]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=paths.root(), capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


# -- the command -------------------------------------------------------------------------------------------------------


def measure(machine: str, hashes: list[str], pattern: str, again: bool) -> None:
    """Measure these commits; without ``again`` only benchmarks that have no results yet, or failed.

    A benchmark that fails is a result: asv's exit code says no more than the results do.
    """
    options = ["--machine", machine, "--record-samples", "--interleave-rounds", "--no-pull", "--bench", pattern]
    options += [] if again else ["--skip-existing-successful"]
    asv("run", "HASHFILE:-", *options, given="\n".join(hashes))


def measured(machine: str, hashes: list[str], pattern: str, again: bool) -> Comparison:
    """Measure these commits and compare the last two; what looks worse is measured again."""
    measure(machine, hashes, pattern, again)
    older, newer = hashes[-2:]
    found = compared(machine, older, newer, pattern)
    worse = sorted({name.split("(")[0] for name, (what, *_) in found.items() if what is Outcome.WORSE})
    if not worse:
        return found
    print(f"\nmeasured again, because they look worse: {', '.join(worse)}", flush=True)
    measure(machine, [older, newer], f"^({'|'.join(map(re.escape, worse))})($|\\()", True)
    return twice(found, compared(machine, older, newer, pattern))


def lines(found: Comparison) -> Iterator[str]:
    """What differs or was not measured, worst first, and how many benchmarks there are of each outcome."""
    order = list(Outcome)
    for name, (what, before, after) in sorted(found.items(), key=lambda item: (order.index(item[1][0]), item[0])):
        if what not in (Outcome.SAME, Outcome.NEW, Outcome.SKIPPED):
            numbers = (
                f"{before.value:.4g} -> {after.value:.4g}" if before and after and before.known and after.known else ""
            )
            yield f"{what:8} {numbers:24} {name}"
    counts = [(what, sum(each[0] is what for each in found.values())) for what in order]
    yield ", ".join(f"{count} {what}" for what, count in counts if count) or "nothing was measured"


def main() -> int:
    """Measure, print what differs, and return the exit code."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("range", nargs="?", default="HEAD", help="a git range; default: HEAD and the commit before it")
    ask.add_argument("--bench", default=".", help="a regular expression: benchmarks whose names match")
    ask.add_argument("--machine", default=machine_name(), help="the machine's name in results/asv")
    ask.add_argument("--again", action="store_true", help="measure also what has results")
    given = ask.parse_args()
    try:
        hashes = commits(given.range)
        register(given.machine)
        found = measured(given.machine, hashes, given.bench, given.again)
    except (LossboardError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, LossboardError) else 3
    print(f"\n{hashes[-2][:8]} -> {hashes[-1][:8]} on {given.machine}:")
    print("\n".join(lines(found)))
    if (apart := hours_apart(given.machine, hashes[-2], hashes[-1])) > 1:
        print(
            f"measured {apart:.0f} hours apart, on a machine that may do other things: --again measures both in turns"
        )
    return exit_code(what for what, *_ in found.values())


if __name__ == "__main__":
    raise SystemExit(main())

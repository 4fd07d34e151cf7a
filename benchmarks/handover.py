"""What one driver carries: units that each pool hands to its workers and takes back in a second, cells planned in one.

Workers make up their records, so that what is timed is the way there and back: a unit of 210 cells, as a fleet of
small networks is, and one of a single cell, as a larger network is. The last column is what a run of units of one
second takes beyond them, without the start of the workers.

    python -m benchmarks.handover                 every pool that is installed, two workers each
    python -m benchmarks.handover --jobs 8
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lossboard import planning, pools, protocol, run
from lossboard.environment import Provenance
from lossboard.protocol import Cell
from lossboard.records import Record

SUITE, TRACK = "noisy", "quick"
FLEETS, SINGLES, SLOW = 300, 1000, 10  # units of each kind; of the slow ones for each worker
METRICS = {"last": 0.912345, "val": 0.898765, "best": 0.923456, "ece": 0.0345678, "nll": 0.345678}


def main() -> None:
    """Print a line for each pool, and one for planning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    jobs = parser.parse_args().jobs
    suite = protocol.load(SUITE)
    methods = run.suite_methods(suite)
    start = time.perf_counter()
    cells = suite.cells(suite.track(TRACK), methods)
    provenance = Provenance("0" * 40, False, {"python": "3"}, "2026-01-01T00:00:00Z")
    planned = run._jobs(suite, cells, methods, provenance, Path("/nowhere"))
    planning.seed_blocks(cells, planning.seconds(suite, cells, []))
    rate = len(cells) / (time.perf_counter() - start)
    print(f"planning: {rate:,.0f} cells a second")
    fleets = [planned[i % len(planned)] for i in range(FLEETS)]
    single = [run._cut(job, job.unit.cells[:1]) for job in fleets]
    singles = [replace(single[i % len(single)]) for i in range(SINGLES)]
    for name in pools.POOLS:
        if importlib.util.find_spec(pools.PACKAGES.get(name, "joblib")) is not None:
            pool = pools.named(name)
            start_s, many = _rate(pool, pretend, fleets, jobs)
            _, few = _rate(pool, pretend, singles, jobs)
            beyond = 1 / (_rate(pool, slow, single[: SLOW * jobs], jobs)[1] / jobs) - 1
            print(
                f"{name}: starts in {start_s:.1f} s; {many:,.0f} units of 210 cells a second, "
                f"{few:,.0f} units of one cell; {beyond:.1%} beyond units of one second"
            )


def _rate(
    pool: pools.Pool, work: Callable[[run.Job], object], items: Sequence[run.Job], jobs: int
) -> tuple[float, float]:
    """Seconds until the workers work, and items a second from then on."""
    begun = time.perf_counter()
    results: Iterator[object] = pool(work, [*items[:jobs], *items], jobs)
    for _ in range(jobs):
        next(results)
    first = time.perf_counter()
    count = sum(1 for _ in _until_last(results, len(items)))
    return first - begun, count / (time.perf_counter() - first)


def _until_last(results: Iterator[object], count: int) -> Iterator[object]:
    """So many results, not waiting for the workers' end."""
    for _ in range(count):
        yield next(results)


def pretend(job: run.Job) -> tuple[float, list[Record], Provenance]:
    """In a worker: what a unit gives, made up."""
    return job.unit.cost, [_record(cell) for cell in job.unit.cells], job.provenance


def slow(job: run.Job) -> tuple[float, list[Record], Provenance]:
    """In a worker: the same after a second."""
    time.sleep(1.0)
    return pretend(job)


def _record(cell: Cell) -> Record:
    return run.recorded(cell, "ok", METRICS, seconds=0.4, bits="0" * 12)


if __name__ == "__main__":
    main()

"""Seconds to plan 100,000 recorded cells: read their unit files and compare them with what is asked. No torch."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.tracked.stores import pinned, write
from lossboard import records, run

CELLS = 100_000


def main() -> None:
    """Print the seconds of three rounds, the fastest last."""
    methods, cells = pinned(CELLS)
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), cells)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            known, _ = records.read_units(Path(name))
            read = time.perf_counter()
            result = run.plan(cells, methods, known)
            times.append(time.perf_counter() - start)
            print(
                f"{len(result.done):,} of {len(cells):,} cells done: read {read - start:.2f} s, all {times[-1]:.2f} s"
            )
        print(f"seconds {min(times):.2f}")


if __name__ == "__main__":
    main()

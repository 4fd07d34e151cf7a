"""Seconds to plan 100,000 recorded cells: read their unit files and compare them with what is asked. No torch.

python -m benchmarks.planning 1000000     so many cells
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tracked.stores import pinned, write
from lossboard import records, run

CELLS = 100_000


def main() -> None:
    """Print the seconds of three rounds, the fastest last."""
    methods, cells = pinned(int(sys.argv[1]) if len(sys.argv) > 1 else CELLS)
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
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(f"memory of the process at most {peak / 2**30:.2f} GiB")
        print(f"seconds {min(times):.2f}")


if __name__ == "__main__":
    main()

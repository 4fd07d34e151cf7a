"""Seconds to build the site from 103,200 records of 200 methods, and to build it again.

What is measured of the catalogue's losses themselves, and their curves, is kept between builds; it is timed apart.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.tracked.stores import invented
from lossboard import paths

METHODS, TRACKS = 200, ("quick", "ldr", "gpu")  # 103,200 records


def main() -> None:
    """Print the seconds of three builds, in a checkout of its own."""
    here = paths.root()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("suites", "site"):
            shutil.copytree(here / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        os.environ["LOSSBOARD_ROOT"] = name
        from lossboard.publish import publish

        found = list(invented(METHODS, TRACKS))
        for what, rows in (("the catalogue, measured", []), ("with the records", found), ("again", found)):
            start, used = time.perf_counter(), time.process_time()
            publish(root / "out", {"noisy": rows})
            seconds, used = time.perf_counter() - start, time.process_time() - used
            files = sum(path.is_file() for path in (root / "out").rglob("*"))
            print(
                f"{what}: {len(rows):,} records, {files} files, {seconds:.1f} s ({used:.1f} s of processor)", flush=True
            )


if __name__ == "__main__":
    main()

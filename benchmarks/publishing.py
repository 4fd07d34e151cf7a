"""Seconds to build the site from 103,200 records of 200 methods, and to build it again.

What is measured of the catalogue's losses themselves, and their curves, is kept between builds; it is timed apart.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lossboard import paths, protocol
from lossboard.records import Header, Record
from lossboard.sources import source

METHODS, TRACKS = 200, ("quick", "ldr", "gpu")  # 103,200 records


def header() -> Header:
    """Provenance of records that are current: their methods borrow the module of cross-entropy."""
    module = "reference.losses.ce"
    return Header(
        suite="noisy",
        module=module,
        source=source(module) or "",
        commit="0" * 40,
        dirty=False,
        env={"python": "3"},
        data={},
        started="2026-01-01T00:00:00Z",
        file="0" * 12,
    )


def invented() -> Iterator[Record]:
    """Every cell of these tracks; every method has its own height and its own luck."""
    suite, shared = protocol.load("noisy"), header()
    blocks = [block for name in TRACKS for block in suite.track(name).blocks]
    for number, block in itertools.product(range(METHODS), blocks):
        method, draw = f"invented_{number:03}", random.Random(number)
        height = 0.5 + 0.4 * draw.random()
        for task, seed in itertools.product(block.tasks, block.seeds):
            for trial, rate in enumerate(block.budget.learning_rates(task.rate, method)):
                score = min(1.0, max(0.0, height + draw.gauss(0, 0.02)))
                metrics = {"last": score, "val": score, "ece": draw.random() / 10}
                row = (method, task.name, task.id, seed, trial, {"lr": rate}, "ok", metrics, draw.random())
                yield Record(*row, header=shared)


def main() -> None:
    """Print the seconds of three builds, in a checkout of its own."""
    here = paths.root()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("suites", "site"):
            shutil.copytree(here / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        os.environ["LOSSBOARD_ROOT"] = name
        from lossboard.publish import publish

        found = list(invented())
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

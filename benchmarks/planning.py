"""Seconds to plan 100,000 recorded cells: read their unit files and compare them with what is asked. No torch."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lossboard import protocol, records, run
from lossboard.environment import provenance
from lossboard.protocol import Cell
from lossboard.records import Record
from lossboard.sources import source
from reference.methods import Method

CELLS, UNIT = 100_000, 70


def pinned() -> tuple[dict[str, Method], list[Cell]]:
    """The noisy suite's quick track with enough seeds for 100,000 cells of one method."""
    suite = protocol.load("noisy")
    (block,) = suite.track("quick").blocks
    seeds = tuple(range(-(-CELLS // (len(block.tasks) * len(block.budget.learning_rates(block.tasks[0].rate, "gce"))))))
    track = replace(suite.track("quick"), blocks=(replace(block, seeds=seeds),))
    method = Method("gce", "loss", print, "reference.losses.gce", {"q": 0.7}, {})
    return {"gce": method}, suite.cells(track, {"gce": method})[:CELLS]


def write(folder: Path, cells: list[Cell]) -> None:
    """Unit files as workers write them."""
    names = {"gce": {"module": "reference.losses.gce", "source": source("reference.losses.gce") or ""}}
    header = {"suite": "noisy", **provenance().header(), "data": {"digits": "0"}}
    metrics = {"last": 0.912345, "val": 0.812345, "best_val": 0.912345, "oracle": 0.923456}
    for part in run.chunks(cells, UNIT):
        rows = [
            Record(c.method, c.task.name, c.task.id, c.seed, c.trial, c.params, "ok", metrics, 0.0341, "0123456789ab")
            for c in part
        ]
        path = records.unit_path(folder, "noisy", [(cell.key, "s") for cell in part])
        records.write_unit(path, header, names, rows)


def main() -> None:
    """Print the seconds of three rounds, the fastest last."""
    methods, cells = pinned()
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

"""A suite that needs no torch, in a folder of its own: what proves that the harness knows no suite by name."""

import os
import subprocess
import sys
from pathlib import Path

PINS = """
name = "toy"
version = 1
title = "Toy"
question = "Which constant is largest?"
kind = "constant"
control = "one"

[metrics]
rank = "last"
select = "val"
tolerance = 0.01

[metrics.columns]
last = "score"
val = "score seen by tuning"

[tracks.quick]
summary = "seconds"
seeds = [0, 1, 2, 3, 4]
budget = "rates"

[[tracks.quick.tasks]]
dataset = "digits"
corruption = ["clean", "dirty"]
split = "all"
model = "none"
recipe = "none"

[corruption.clean]
kind = "clean"

[corruption.dirty]
kind = "dirty"
rate = 0.5

[split.all]
kind = "random"
val = 0.2
test = 0.2

[model.none]
kind = "none"

[recipe.none]
epochs = 1
batch = 16
lr = 0.1

[budget.rates]
rates = [0.2]
"""

CODE = '''
"""Constants, compared. What goes wrong is told by files in LOSSBOARD_ROOT: a method named there fails that way."""

import os
import sys
import time
from pathlib import Path

from lossboard.protocol import Unit
from lossboard.records import Record
from reference.methods import Method, MethodError

NAMES = {"one": 0.1, "two": 0.2, "three": 0.3, "four": 0.4, "five": 0.5}
methods = {
    name: Method(id=name, kind="constant", function=lambda: None, module="suites.toy", defaults={}, search={})
    for name in NAMES
}


def group(cells):
    for method in dict.fromkeys(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method]
        for seed in sorted({cell.seed for cell in own}):
            yield Unit(tuple(cell for cell in own if cell.seed == seed), 1.0)


def run(unit, context):
    assert "torch" not in sys.modules or "pytest" in sys.modules, "the harness imports torch by itself"
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    for cell in unit.cells:
        fault = Path(os.environ["LOSSBOARD_ROOT"], f"{cell.method}-{cell.seed}")
        word = fault.read_text() if fault.exists() else ""
        if word == "die" or (word == "die-trial" and cell.trial == 1):
            os._exit(9)
        if word == "raise" and cell.trial == 1:
            raise ValueError("a bad cell")
        if word == "contract":
            raise MethodError("shape (3,) instead of (4,)")
        if word == "memory":
            raise MemoryError
        score = NAMES[cell.method] + 0.01 * cell.seed + 0.001 * cell.trial
        status = "diverged" if word == "nan" else "ok"
        metrics = {"last": score, "val": score} if status == "ok" else {}
        yield Record(
            cell.method, cell.task.name, cell.task.id, cell.seed, cell.trial, dict(cell.params), status, metrics, 0.01
        )
'''


def make(root: Path, pins: str = PINS) -> Path:
    """A checkout with the toy suite alone; returns its root."""
    folder = root / "suites" / "toy"
    folder.mkdir(parents=True)
    (root / "suites" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text(CODE)
    (folder / "suite.toml").write_text(pins)
    return root


def command(root: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "lossboard", *args]


def environ(root: Path, **more: str) -> dict[str, str]:
    checkout = str(Path(__file__).parents[1])
    return (
        os.environ
        | {"LOSSBOARD_ROOT": str(root), "PYTHONPATH": f"{root}{os.pathsep}{checkout}", "COLUMNS": "200"}
        | more
    )


def call(root: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line on a toy checkout."""
    return subprocess.run(command(root, *args), env=environ(root, **more), capture_output=True, text=True, timeout=120)


CELLS = 5 * 2 * 5 * 2  # methods x tasks x seeds x trials

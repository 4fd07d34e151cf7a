"""Where things lie: the checkout, and the folder of what this machine measured."""

import os
import sys
from pathlib import Path


def root() -> Path:
    """The checkout: the folder with ``suites/`` and ``results/``; ``LOSSBOARD_ROOT`` points to another one."""
    return Path(os.environ.get("LOSSBOARD_ROOT") or Path(__file__).parents[1]).resolve()


def importable() -> None:
    """Put the checkout before everything else on the import path, so that its suites are the ones found."""
    if sys.path[:1] != [str(root())]:
        sys.path.insert(0, str(root()))


def suites() -> Path:
    return root() / "suites"


def results() -> Path:
    """The published records: one folder a suite, one a method."""
    return root() / "results"


def local() -> Path:
    """What this machine measured and made; safe to delete, never committed."""
    return root() / ".lossboard"


def units(suite: str) -> Path:
    return local() / "units" / suite


def site() -> Path:
    return local() / "site"

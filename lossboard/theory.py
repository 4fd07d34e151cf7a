"""What a method's page says of its theory: measured by ``reference.theory``, once for each version of the method.

The result is a function of the method's source and of that module's. It is kept in ``.lossboard/theory`` under their
hash, so that the next build neither measures again nor shows anything else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from lossboard import paths
from lossboard.records import StoreError, write_atomically
from lossboard.sources import source
from lossboard.train import one_thread
from reference.curves import Curves
from reference.curves import curves as drawn
from reference.methods import Method, catalogue
from reference.theory import Facts, Family, Minima, Sums, left_out, measure

KEPT = 500  # results on disk


def theory(method: Method) -> Facts | str:
    """What was measured of a loss at its author's defaults, or why nothing was."""
    reason = left_out(method)
    if reason:
        return reason
    path = _place(method)
    known = _read(path) if path else None
    if known is not None:
        return known
    one_thread()  # the operations are small
    try:
        facts = measure(method)
    except Exception as error:  # of a contributed loss, which may break its contract in any way
        return f"it could not be measured ({type(error).__name__})"
    if path and isinstance(facts, Facts):
        _keep(path, facts)
    return facts


def curves(method: Method) -> Curves | str:
    """The shape of a loss at its author's defaults, or why it has none. Measured anew: it takes milliseconds."""
    one_thread()
    try:
        return drawn(method)
    except Exception as error:  # of a contributed loss, which may break its contract in any way
        return f"it could not be measured ({type(error).__name__})"


def prepare(id: str) -> None:
    """Measure a loss of the catalogue, so that its page finds the result: what a worker process does."""
    theory(catalogue("loss")[id])


def unmeasured(methods: Iterable[Method]) -> list[Method]:
    """Those losses among them that :func:`theory` would measure: about half a second each."""
    return [m for m in methods if m.kind == "loss" and not left_out(m) and (path := _place(m)) and not path.exists()]


def _place(method: Method) -> Path | None:
    """Where its result is kept; None if its source cannot be read."""
    own = source(method.module)
    if own is None:
        return None
    decides = f"{method.id} {own} {source('reference.theory')} {version('torch')}"
    return paths.local() / "theory" / f"{hashlib.sha256(decides.encode()).hexdigest()[:24]}.json"


def _read(path: Path) -> Facts | None:
    """A kept result; None if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
        kin = found["family"]
        if kin is not None:
            kin = Family(**kin | {"costs": tuple((margin, cost) for margin, cost in kin["costs"])})
        sums = tuple(Sums(**each) for each in found["sums"])
        minima = tuple(Minima(**each) for each in found["minima"])
        return Facts(**found | {"sums": sums, "minima": minima, "family": kin})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, facts: Facts) -> None:
    with contextlib.suppress(StoreError, OSError):  # it saves time only; the page itself says where a disk is full
        write_atomically(path, json.dumps(dataclasses.asdict(facts)) + "\n")
        kept = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in kept[:-KEPT]:
            file.unlink(missing_ok=True)

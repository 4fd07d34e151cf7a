"""Datasets that arrive clean, verified and read-only; suites corrupt them, never this package.

    >>> from lossboard.data import load
    >>> digits = load("digits")
    >>> digits.features["all"].shape, digits.labels["all"].dtype, digits.classes
    ((1797, 64), dtype('int64'), 10)

Requirements that this package meets:

- The content decides, not the place: every load ends in a sha256 pinned in pins.toml, of the decoded arrays where that
  can be (else of the encoded images or of the published file).
- Look-up: the folder $LOSSBOARD_DATA (`<name>/<split>.parquet`, multi-label data in `multilabel/`, texts under their
  published names), the local cache ($LOSSBOARD_CACHE), then the hub or the addresses of the pin. `Dataset.source` says
  which it was.
- Wrong content stops the look-up with a DataError; a dataset that is nowhere names every place tried.
- Listing and planning need `pins()` only, which imports neither numpy nor anything heavier.
- Rows come in the order of the original publication, so that labels published by row number belong to them: `human`.
- A new dataset is one entry in pins.toml where its format is known.
"""

from lossboard.data.content import content_hash
from lossboard.data.dataset import Dataset
from lossboard.data.errors import DataError
from lossboard.data.inventory import Check, Place, Status, Verification, status, verify
from lossboard.data.lookup import fetch, load
from lossboard.data.people import human
from lossboard.data.pins import Pin, pins
from lossboard.data.repeats import repeated

__all__ = [
    "Check",
    "DataError",
    "Dataset",
    "Pin",
    "Place",
    "Status",
    "Verification",
    "content_hash",
    "fetch",
    "human",
    "load",
    "pins",
    "repeated",
    "status",
    "verify",
]

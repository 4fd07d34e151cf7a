"""Labels that people gave to the training samples of a dataset, joined to it by the original order of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossboard.data.dataset import Dataset
from lossboard.data.errors import DataError, WrongContent
from lossboard.data.lookup import load
from lossboard.data.pins import pins

if TYPE_CHECKING:
    import numpy as np

CLEAN = "clean"  # the column that says which labels these are the noisy version of
TOLERANCE = 0.001  # of a declared rate: publications round


def human(dataset: Dataset, name: str, rate: float) -> np.ndarray:
    """The labels `name` of the training samples, int64 (N,), row for row those of `dataset.labels["train"]`.

    Raises DataError: there are no labels of that name for this dataset, or other than the share `rate` of them differ
    from the clean labels; WrongContent: the clean labels that they come with are not those of the dataset.
    """
    known = {pin.name: pin for pin in pins().values() if pin.labels_of}
    pin = next((pin for pin in known.values() if dataset.name in pin.labels_of), None)
    if pin is None:
        theirs = ", ".join(of for pin in known.values() for of in pin.labels_of)
        raise DataError(f"no labels by people for {dataset.name!r}; there are some for: {theirs}")
    columns = list(pin.columns)
    if name not in columns or name == CLEAN:
        there = ", ".join(column for column in columns if column != CLEAN)
        raise DataError(f"no labels {name!r} for {dataset.name!r}; {pin.name} has: {there}")
    table = load(pin.name).labels["train"]
    clean = table[:, columns.index(CLEAN)]
    _check_join(pin.name, clean, dataset)
    labels = table[:, columns.index(name)].copy()
    found = float((labels != clean).mean())
    if abs(found - rate) > TOLERANCE:
        raise DataError(f"{pin.name}: {found:.2%} of the labels {name!r} are wrong, not {rate:.2%}")
    return labels


def _check_join(name: str, clean: np.ndarray, dataset: Dataset) -> None:
    import numpy as np

    labels = dataset.labels["train"]
    if len(labels) != len(clean):
        raise WrongContent(f"{name}: labels of {len(clean)} rows, but {dataset.name} has {len(labels)} in train")
    differ = np.flatnonzero(labels != clean)
    if len(differ):
        row = differ[0]
        raise WrongContent(
            f"{name}: its clean labels are not those of {dataset.name}: {len(differ)} of {len(clean)} rows differ, the "
            f"first is row {row}, {clean[row]} there and {labels[row]} here.\n  Are the rows in their original order?"
        )

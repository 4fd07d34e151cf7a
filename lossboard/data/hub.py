"""The third step for datasets of the Hugging Face hub: `datasets.load_dataset` at the pinned revision.

A dataset that is pinned by its files is read from the files, since `load_dataset` shows only what it made of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lossboard.data import parquet
from lossboard.data.errors import NotThere, reason
from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# The hub's client retries an unreachable host for half a minute and longer; one short question comes before it.
PROBE_S = 5.0


def place(pin: Pin) -> str:
    """The repository and revision, as it stands in sources and messages."""
    return f"hub {pin.hub}@{pin.revision}"


def load(pin: Pin) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Verified features and labels of each split.

    `pin.hub` may also be a local folder laid out like the repository. Raises NotThere where the hub gives nothing, and
    DataError where it gives something else than was pinned.
    """
    if not os.path.isdir(str(pin.hub)):
        _probe(pin)
    return {split: _split(pin, split) for split in pin.splits}


def _split(pin: Pin, split: str) -> tuple[np.ndarray, np.ndarray]:
    where = f"{place(pin)}, split {split}"
    mend = f"Its client's cache in {_cache()} may be damaged: delete what it holds of {pin.hub}, then fetch again"
    if pin.pinned == "file":
        return parquet.read(pin, split, _file(pin, split), where, mend)
    return parquet.arrays(pin, split, _table(pin, split), where, mend)


def _table(pin: Pin, split: str) -> pa.Table:
    import datasets

    try:
        found = datasets.load_dataset(pin.hub, name=pin.config, revision=pin.revision, split=split)
        # The arrow form leaves images encoded, so that one decoder serves the hub and the Parquet folder.
        return found.with_format("arrow")[:]
    # The client raises its own, the network's and the file system's errors; each means that this place has no data.
    except Exception as error:
        raise NotThere((place(pin), f"split {split!r} cannot be loaded: {reason(error)}")) from error


def _file(pin: Pin, split: str) -> Path:
    """The file that a split is pinned by, on this machine."""
    import huggingface_hub

    name = next(name for name, value in pin.files.items() if f"file:{value}" == pin.content[split])
    if os.path.isdir(str(pin.hub)):
        path = Path(str(pin.hub), name)
        if not path.is_file():
            raise NotThere((place(pin), f"{name} does not exist"))
        return path
    try:
        return Path(huggingface_hub.hf_hub_download(str(pin.hub), name, repo_type="dataset", revision=pin.revision))
    # As above: whatever the client raises, this place has no data.
    except Exception as error:
        raise NotThere((place(pin), f"{name} cannot be downloaded: {reason(error)}")) from error


def _cache() -> str:
    import datasets

    return str(datasets.config.HF_CACHE_HOME)


def _probe(pin: Pin) -> None:
    """Raise NotThere within seconds where the hub cannot be reached, unless the client was told to stay offline."""
    import http.client
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD", headers={"User-Agent": "lossboard"})
        with urllib.request.urlopen(request, timeout=PROBE_S):
            return
    except urllib.error.HTTPError:
        return  # it answered
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotThere(
            (place(pin), f"no connection to {constants.ENDPOINT} ({reason(error)}): is this machine offline?")
        ) from error

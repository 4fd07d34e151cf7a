"""Small datasets with their own pins: arrays, Parquet files and entries of a pins file."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lossboard.data import Pin

# `import lossboard.data.pins as m` would give the function of that name.
PINS = importlib.import_module("lossboard.data.pins")
REAL_DATA = os.environ.get("LOSSBOARD_DATA")
Arrays = tuple[np.ndarray, np.ndarray]
Install = Callable[..., Pin]  # replaces the pins by those of the given datasets, returns the first one


def pixels_as_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(path: Path, features: np.ndarray, labels: np.ndarray) -> None:
    """The layout of the shared folder, written without the code under test."""
    if features.dtype == np.uint8:
        images = [{"bytes": pixels_as_png(image), "path": f"{row}.png"} for row, image in enumerate(features)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"image": pa.array(images, kind)}
    else:
        columns = {"features": pa.array(features.tolist(), pa.list_(pa.float32(), features.shape[1]))}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, "label": pa.array(labels, pa.int64())}), path)


@dataclass(frozen=True)
class Tiny:
    """A dataset of a few rows: its arrays, its entry for a pins file, and its Parquet files."""

    name: str
    splits: dict[str, Arrays]
    origin: str  # the lines of the entry that say where it can be had
    content: dict[str, str] | None = None  # what pins each split; the hash of the decoded arrays if None

    @property
    def kind(self) -> str:
        return "image" if self.splits["train"][0].dtype == np.uint8 else "tabular"

    def entry(self) -> str:
        shape = list(self.splits["train"][0].shape[1:])
        rows = ", ".join(f"{split} = {len(labels)}" for split, (_, labels) in self.splits.items())
        # Hashed from the bytes, as the definition says: content_hash is under test.
        hashes = {
            split: hashlib.sha256(features.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
            for split, (features, labels) in self.splits.items()
        }
        content = "\n".join(f'{split} = "{value}"' for split, value in (self.content or hashes).items())
        return (
            f'[{self.name}]\nkind = "{self.kind}"\nclasses = 3\nclass_names = ["a", "b", "c"]\nshape = {shape}\n'
            f'splits = {{ {rows} }}\nlicense = "none"\ncitation = "none"\n{self.origin}\n'
            f"[{self.name}.content]\n{content}\n"
        )

    def write(self, folder: Path) -> Path:
        for split, (features, labels) in self.splits.items():
            write_parquet(folder / self.name / f"{split}.parquet", features, labels)
        return folder


NOWHERE = 'format = "rows"\nrows = { label = 0, features = [1, 5], codes = ["0", "1", "2"] }\n'


def nowhere(tmp_path: Path) -> str:
    """An origin whose files do not exist: the look-up must have ended before."""
    address = (tmp_path / "no-such-file").as_uri()
    return f'{NOWHERE}addresses = {{ train = ["{address}"], test = ["{address}"] }}'


def tabular() -> dict[str, Arrays]:
    random = np.random.default_rng(0)
    return {
        split: (random.normal(size=(rows, 4)).round(3).astype(np.float32), np.arange(rows) % 3)
        for split, rows in {"train": 7, "test": 5}.items()
    }


def images(rows: int = 6) -> dict[str, Arrays]:
    random = np.random.default_rng(1)
    return {
        split: (random.integers(0, 256, (count, 5, 4, 1), dtype=np.uint8), np.arange(count) % 3)
        for split, count in {"train": rows, "test": 4}.items()
    }


def idx_origin(folder: Path) -> str:
    files = {
        f"{split}_{part}": [(folder / f"{split}-{part}.gz").as_uri()]
        for split in ("train", "test")
        for part in ("images", "labels")
    }
    return (
        'format = "idx"\naddresses = { '
        + ", ".join(f"{file} = {json.dumps(urls)}" for file, urls in files.items())
        + " }"
    )


def python(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Another Python with the same pins file; `code` finds its arguments in `sys.argv[2:]`."""
    head = (
        "import sys, importlib; from pathlib import Path\n"
        "importlib.import_module('lossboard.data.pins').PATH = Path(sys.argv[1])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, str(PINS.PATH), *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

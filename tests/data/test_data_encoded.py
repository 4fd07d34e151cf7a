"""Lossy images: pinned by their encoded bytes, from Parquet files or class folders, and kept decoded in the cache."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_datasets import Install, Tiny, images

from lossboard.data import DataError, load, pins, verify
from lossboard.data.content import encoded_hash
from lossboard.data.errors import WrongContent

NAMES = ("a", "b", "c")  # of Tiny's classes


def as_jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=75)
    return buffer.getvalue()


COLOURS = {split: (np.repeat(features, 3, axis=-1), labels) for split, (features, labels) in images(9).items()}
BLOBS = {split: [as_jpeg(image) for image in features] for split, (features, _) in COLOURS.items()}
CONTENT = {split: encoded_hash(BLOBS[split], labels) for split, (_, labels) in COLOURS.items()}


def write_parquet(folder: Path, change: bytes = b"") -> Path:
    """`change` is put after the end of each image, where no decoder looks."""
    (folder / "lossy").mkdir(parents=True)
    for split, (_, labels) in COLOURS.items():
        column = pa.array([{"bytes": blob + change, "path": None} for blob in BLOBS[split]])
        pq.write_table(pa.table({"image": column, "label": labels}), folder / "lossy" / f"{split}.parquet")
    return folder


def write_archive(folder: Path, *, without: str = "") -> dict[str, list[str]]:
    """The images in folders, each class's in the order of the samples, and files of labels; their addresses."""
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("images-0123/README.md", "pictures")
        archive.writestr("images-0123/train/zebra/0000.jpg", b"not of these classes")
        for split, (_, labels) in COLOURS.items():
            for number, (blob, label) in reversed(list(enumerate(zip(BLOBS[split], labels, strict=True)))):
                name = f"{split}/{NAMES[label]}/{number:04d}.jpg"
                if name != without:
                    archive.writestr(f"images-0123/{name}", blob)
    torch.save({"other": 1, "clean_label": COLOURS["train"][1]}, folder / "train.pt")
    np.save(folder / "test.npy", COLOURS["test"][1])
    files = {"images": "images.zip", "train_labels": "train.pt", "test_labels": "test.npy"}
    return {file: [(folder / name).as_uri()] for file, name in files.items()}


def origin(addresses: dict[str, list[str]]) -> str:
    urls = ", ".join(f"{file} = {json.dumps(urls)}" for file, urls in addresses.items())
    return f'format = "class_folders"\naddresses = {{ {urls} }}'


@pytest.fixture
def lossy(tmp_path: Path, install: Install) -> Tiny:
    """A dataset of JPEG files that only Parquet files can provide."""
    nothing = [(tmp_path / "nothing").as_uri()]
    tiny = Tiny("lossy", COLOURS, origin(dict.fromkeys(["images", "train_labels", "test_labels"], nothing)), CONTENT)
    install(tiny)
    return tiny


def assert_decoded() -> str:
    dataset = load("lossy")
    for split, (features, labels) in COLOURS.items():
        np.testing.assert_array_equal(dataset.labels[split], labels)
        decoded = np.stack([np.asarray(Image.open(io.BytesIO(blob))) for blob in BLOBS[split]])
        np.testing.assert_array_equal(dataset.features[split], decoded)
        assert not np.array_equal(decoded, features)  # lossy
    return dataset.source


def test_from_parquet_then_from_the_cache(lossy: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(write_parquet(tmp_path / "data")))
    assert assert_decoded() == str(tmp_path / "data" / "lossy")
    load.cache_clear()
    monkeypatch.delenv("LOSSBOARD_DATA")
    assert assert_decoded().startswith(f"cache {tmp_path / 'cache'}")


def test_other_bytes_of_the_same_pixels(lossy: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(write_parquet(tmp_path / "data", change=b"\0")))
    with pytest.raises(WrongContent, match=rf"(?s)lossy/train.*expected  {CONTENT['train']}.*found     encoded:"):
        load("lossy")


@pytest.mark.parametrize("damage", ["pixel", "label", "hash"])
def test_the_cache_is_checked(lossy: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(write_parquet(tmp_path / "data")))
    load("lossy")
    load.cache_clear()
    monkeypatch.delenv("LOSSBOARD_DATA")
    kept = tmp_path / "cache" / "datasets" / f"lossy-{pins()['lossy'].digest}"
    if damage == "hash":
        origin_file = kept / "origin.json"
        fields = json.loads(origin_file.read_text())
        del fields["decoded"]
        origin_file.write_text(json.dumps(fields))
    else:
        path = kept / f"train.{'features' if damage == 'pixel' else 'labels'}.npy"
        array = np.load(path)
        array[0] += 1
        np.save(path, array)
    with pytest.raises(WrongContent, match=r"(?s)lossy/train.*Delete the folder .*lossboard data fetch lossy"):
        load("lossy")
    assert not verify("lossy").ok


def test_from_class_folders(tmp_path: Path, install: Install) -> None:
    install(Tiny("lossy", COLOURS, origin(write_archive(tmp_path)), CONTENT))
    assert assert_decoded().startswith((tmp_path / "images.zip").as_uri())
    load.cache_clear()
    (tmp_path / "images.zip").unlink()
    assert assert_decoded().startswith("cache ")


def test_an_image_too_few(tmp_path: Path, install: Install) -> None:
    install(Tiny("lossy", COLOURS, origin(write_archive(tmp_path, without="train/b/0004.jpg")), CONTENT))
    with pytest.raises(
        DataError, match=r"lossy/train: the files at .* do not belong together: 2 images of class b, bu"
    ):
        load("lossy")


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("images", b"<html>", "BadZipFile"),
        ("images", b"PK\5\6" + bytes(18), "ValueError: no images in folders like train/a"),
        ("train_labels", b"<html>", "ValueError: not a file of arrays that torch saved"),
        ("test_labels", b"\x93NUMPY", "ValueError"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, install: Install, file: str, data: bytes, message: str) -> None:
    addresses = write_archive(tmp_path)
    (tmp_path / "else").write_bytes(data)
    install(Tiny("lossy", COLOURS, origin(addresses | {file: [(tmp_path / "else").as_uri()]}), CONTENT))
    with pytest.raises(DataError, match=rf"lossy: no place has it(?s:.*)/else: {message}"):
        load("lossy")

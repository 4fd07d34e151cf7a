"""The order of the look-up, what it says of the places it tried, and what ends it."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_datasets import Install, Tiny, idx_origin, images, nowhere, tabular, write_parquet

from lossboard.data import DataError, Dataset, fetch, load, pins
from lossboard.data.errors import WrongContent


def assert_is(dataset: Dataset, tiny: Tiny) -> None:
    for split, (features, labels) in tiny.splits.items():
        np.testing.assert_array_equal(dataset.features[split], features)
        np.testing.assert_array_equal(dataset.labels[split], labels)
        assert dataset.features[split].dtype == features.dtype
        assert not dataset.features[split].flags.writeable


def rows_origin(tmp_path: Path, tiny: Tiny) -> str:
    """Text files of a tabular dataset and the lines that point to them."""
    for split, (features, labels) in tiny.splits.items():
        lines = [
            f"{label} " + " ".join(f"{value:.3f}" for value in row) for row, label in zip(features, labels, strict=True)
        ]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    urls = {split: (tmp_path / f"{split}.txt").as_uri() for split in tiny.splits}
    return (
        nowhere(tmp_path).split("addresses")[0]
        + f'addresses = {{ train = ["{urls["train"]}"], test = ["{urls["test"]}"] }}'
    )


@pytest.fixture
def everywhere(tmp_path: Path, install: Install) -> Tiny:
    """A dataset that addresses provide too."""
    bare = Tiny("table", tabular(), "")
    tiny = Tiny("table", tabular(), rows_origin(tmp_path, bare))
    install(tiny)
    return tiny


def test_folder_then_cache_then_address(everywhere: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{(tmp_path / 'train.txt').as_uri()} and {(tmp_path / 'test.txt').as_uri()}"
    kept = tmp_path / "cache" / "datasets" / f"table-{pins()['table'].digest}"

    first = load("table")
    assert_is(first, everywhere)
    assert first.source == address

    load.cache_clear()
    (tmp_path / "train.txt").unlink()  # the address is not asked again
    second = load("table")
    assert_is(second, everywhere)
    assert second.source == f"cache {kept}, made from {address}"

    load.cache_clear()
    monkeypatch.setenv("LOSSBOARD_DATA", str(everywhere.write(tmp_path / "data")))
    third = load("table")
    assert_is(third, everywhere)
    assert third.source == str(tmp_path / "data" / "table")


def test_tables_of_the_folder_are_not_cached(table: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(table.write(tmp_path / "data")))
    assert_is(load("table"), table)
    assert not (tmp_path / "cache").exists()


def test_images_of_the_folder_are_decoded_once(pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.write(tmp_path / "data") / "pictures"
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "data"))
    kept = tmp_path / "cache" / "datasets" / f"pictures-{pins()['pictures'].digest}"
    sources = []
    for _ in range(2):
        load.cache_clear()
        dataset = load("pictures")
        assert_is(dataset, pictures)
        sources.append(dataset.source)
    assert sources == [str(data), f"cache {kept}, made from {data}"]

    # Another folder is decoded and compared once, too, and the source keeps saying what the cache was made from.
    other = pictures.write(tmp_path / "other") / "pictures"
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "other"))
    sources.clear()
    for _ in range(2):
        load.cache_clear()
        sources.append(load("pictures").source)
    assert sources == [str(other), f"cache {kept}, made from {data}, equal to {other}"]


def test_changed_images_do_not_hide_behind_the_cache(
    pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(pictures.write(tmp_path / "data")))
    load("pictures")
    load.cache_clear()
    features, labels = pictures.splits["test"]
    path = tmp_path / "data" / "pictures" / "test.parquet"
    write_parquet(path, features ^ 1, labels)
    with pytest.raises(WrongContent, match=re.escape(str(path))):
        load("pictures")


def test_wrong_content_ends_the_look_up(everywhere: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("table")  # a good cache and a good address must not be reached
    folder = everywhere.write(tmp_path / "data")
    features, labels = everywhere.splits["train"]
    path = folder / "table" / "train.parquet"
    write_parquet(path, features, (labels + 1) % 3)
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(WrongContent) as caught:
        load("table")
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert message.startswith("table/train: the content is not what was pinned")
    for part in (str(path), pins()["table"].content["train"], "Delete this file", "lossboard data fetch table"):
        assert part in message
    found = re.search(r"found     ([0-9a-f]{64})", message)
    assert found is not None
    assert found[1] != pins()["table"].content["train"]


def test_rows_missing_from_a_file_are_named(table: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = table.write(tmp_path / "data")
    features, labels = table.splits["train"]
    write_parquet(folder / "table" / "train.parquet", features[:6], labels[:6])
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(WrongContent, match=r"(?s)expected .* features \(7, 4\).*found .* features \(6, 4\)"):
        load("table")


def test_a_failed_look_up_names_every_place(table: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError) as caught:
        load("table")
    message = str(caught.value)
    places = ["LOSSBOARD_DATA: is not set", str(tmp_path / "cache"), (tmp_path / "no-such-file").as_uri()]
    positions = [message.index(place) for place in places]
    assert positions == sorted(positions)
    assert "lossboard data fetch table" in message
    assert "table/train.parquet and table/test.parquet" in message

    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"typo is not a folder"):
        load("table")
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"table has no train.parquet or test.parquet"):
        load("table")


def test_half_a_dataset_is_an_error(everywhere: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = everywhere.write(tmp_path / "data")
    (folder / "table" / "test.parquet").unlink()
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(DataError, match=r"test.parquet is missing beside train.parquet"):
        load("table")


LISTS = pa.list_(pa.float32(), 4)
GOOD = pa.array([[1.0, 2.0, 3.0, 4.0]] * 7, LISTS)
LABELS = pa.array([0] * 7)
# columns of a table that cannot be read as features and labels, and what the message must say
UNREADABLE = [
    ({"label": LABELS}, "no column 'features'; the columns are label"),
    ({"features": GOOD}, "no column 'label'; the columns are features"),
    ({"features": GOOD, "label": pa.array([0, None] + [0] * 5)}, "column 'label' has 1 empty cells"),
    ({"features": GOOD, "label": pa.array([0.5] * 7)}, "column 'label' holds double"),
    ({"features": pa.array(["x"] * 7), "label": LABELS}, "column 'features' holds string"),
    ({"features": pa.array([[1.0], [1.0, 2.0]] + [[1.0]] * 5), "label": LABELS}, "the same count in each row"),
    ({"features": pa.array([["x"]] * 7), "label": LABELS}, "must hold finite numbers"),
    ({"features": pa.array([[float("nan")] * 4] * 7, LISTS), "label": LABELS}, "must hold finite numbers"),
]


@pytest.mark.parametrize(("columns", "message"), UNREADABLE, ids=[message for _, message in UNREADABLE])
def test_unreadable_tables(
    table: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, pa.Array], message: str
) -> None:
    folder = table.write(tmp_path / "data")
    path = folder / "table" / "train.parquet"
    pq.write_table(pa.table(columns), path)
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load("table")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_damaged_parquet(table: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    folder = table.write(tmp_path / "data")
    path = folder / "table" / "train.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(DataError, match=r"train.parquet: not a readable Parquet file"):
        load("table")


def write_blobs(path: Path, blobs: list[bytes | None]) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": blob, "path": ""} for blob in blobs], kind)
    pq.write_table(pa.table({"image": column, "label": pa.array([0] * len(blobs))}), path)


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "none"])
def test_damaged_images(pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    folder = pictures.write(tmp_path / "data")
    path = folder / "pictures" / "train.parquet"
    blobs = [row["bytes"] for row in pq.read_table(path)["image"].to_pylist()]
    blobs[3] = {"cut": blobs[3][:45], "other": b"<html>", "empty": b"", "none": None}[damage]
    write_blobs(path, blobs)
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(DataError, match="the image in row 3 cannot be decoded"):
        load("pictures")


def test_images_of_different_sizes(pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures.write(tmp_path / "data")
    path = folder / "pictures" / "train.parquet"
    blobs = [row["bytes"] for row in pq.read_table(path)["image"].to_pylist()]
    larger = Tiny("larger", {"train": (np.zeros((1, 9, 9, 1), np.uint8), np.zeros(1, int))}, "").write(tmp_path)
    blobs[2] = pq.read_table(larger / "larger" / "train.parquet")["image"][0].as_py()["bytes"]
    write_blobs(path, blobs)
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(DataError, match=re.escape("the image in row 2 is uint8 (9, 9), not uint8 (5, 4)")):
        load("pictures")


def test_images_that_are_no_images(pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures.write(tmp_path / "data")
    pq.write_table(
        pa.table({"image": pa.array(["a.png"] * 6), "label": pa.array([0] * 6)}), folder / "pictures" / "train.parquet"
    )
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    with pytest.raises(DataError, match="column 'image' holds string, not encoded images"):
        load("pictures")


def test_colour_images(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {split: (np.repeat(features, 3, axis=-1), labels) for split, (features, labels) in images().items()}
    tiny = Tiny("colours", splits, idx_origin(tmp_path))
    install(tiny)
    monkeypatch.setenv("LOSSBOARD_DATA", str(tiny.write(tmp_path / "data")))
    assert_is(load("colours"), tiny)


def test_bundled_data_are_verified(install: Install) -> None:
    splits = {"train": (np.zeros((1797, 64), np.float32), np.zeros(1797, int))}
    install(Tiny("digits", splits, 'bundled = "sklearn.datasets.load_digits"'))
    with pytest.raises(WrongContent, match=r"(?s)digits/train.*bundled with scikit-learn"):
        load("digits")


def test_fetch_gives_the_folder(everywhere: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = fetch("table")
    assert sorted(os.listdir(place)) == [
        "origin.json",
        "test.features.npy",
        "test.labels.npy",
        "train.features.npy",
        "train.labels.npy",
    ]
    assert fetch("table") == place
    monkeypatch.setenv("LOSSBOARD_DATA", str(everywhere.write(tmp_path / "data")))
    assert fetch("table") == tmp_path / "data" / "table"

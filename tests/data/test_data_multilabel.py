"""Multi-label datasets: from a folder, from ARFF files and the cache, and those made on this machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_datasets import PINS, REAL_DATA

from lossboard.data import DataError, fetch, load, made, pins, repeated, status, verify
from lossboard.data.errors import WrongContent

NAMES = ("a", "b c", "d")
SPLITS = {
    "train": (np.array([[1, 0.5], [0, 2], [0, 0]], np.float32), np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.int8)),
    "test": (np.array([[3, 1.25]], np.float32), np.array([[1, 1, 1]], np.int8)),
}


def entry(folder: Path) -> str:
    lines = {
        "splits": {split: str(len(labels)) for split, (_, labels) in SPLITS.items()},
        "addresses": {split: f'["{(folder / f"{split}.arff").as_uri()}"]' for split in SPLITS},
        # Hashed from the bytes, as the definition says: content_hash is under test.
        "content": {
            split: f'"{hashlib.sha256(features.tobytes() + labels.astype("<i8").tobytes()).hexdigest()}"'
            for split, (features, labels) in SPLITS.items()
        },
    }
    tables = "".join(f"{key} = {{ {', '.join(f'{s} = {v}' for s, v in of.items())} }}\n" for key, of in lines.items())
    return (
        '[marks]\nkind = "multilabel"\nclasses = 3\nclass_names = ["a", "b c", "d"]\nshape = [2]\nlicense = "none"\n'
        f'citation = "none"\nformat = "arff"\nleft_out = ["id"]\n{tables}'
    )


def write_arff(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split, (features, labels) in SPLITS.items():
        rows = [
            [f"r{i}", *map(str, [*x.tolist(), *y.tolist()])]
            for i, (x, y) in enumerate(zip(features, labels, strict=True))
        ]
        head = "@relation marks\n@attribute id {r0,r1,r2}\n@attribute x real\n@attribute y numeric\n"
        head += "".join(f"@attribute '{name}' {{0,1}}\n" for name in NAMES)
        (folder / f"{split}.arff").write_text(head + "@data\n" + "".join(",".join(row) + "\n" for row in rows))
    return folder


def write_parquet(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split, (features, labels) in SPLITS.items():
        columns = {
            "features": pa.array(features.tolist(), pa.list_(pa.float32(), 2)),
            "labels": pa.array(labels.tolist(), pa.list_(pa.int8(), 3)),
        }
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    def replace(text: str) -> None:
        (tmp_path / "pins.toml").write_text(text)
        monkeypatch.setattr(PINS, "PATH", tmp_path / "pins.toml")
        pins.cache_clear()
        load.cache_clear()

    return replace


def assert_is_marks() -> None:
    dataset = load("marks")
    assert (dataset.kind, dataset.classes, dataset.class_names) == ("multilabel", 3, NAMES)
    for split, (features, labels) in SPLITS.items():
        np.testing.assert_array_equal(dataset.features[split], features)
        np.testing.assert_array_equal(dataset.labels[split], labels)
        assert (dataset.features[split].dtype, dataset.labels[split].dtype) == (np.float32, np.int8)
        assert not dataset.labels[split].flags.writeable


def test_from_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Callable[[str], None]) -> None:
    install(entry(tmp_path / "no-such-folder"))
    place = write_parquet(tmp_path / "data" / "multilabel" / "marks")
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "data"))
    assert_is_marks()
    assert load("marks").source == str(place)
    assert (status("marks").kind, status("marks").rows) == ("multilabel", 4)
    assert verify("marks").ok
    (place / "test.parquet").unlink()
    load.cache_clear()
    with pytest.raises(DataError, match=r"test\.parquet is missing beside train\.parquet"):
        load("marks")


def test_from_its_addresses_then_from_the_cache(tmp_path: Path, install: Callable[[str], None]) -> None:
    served = write_arff(tmp_path / "served")
    install(entry(served))
    assert_is_marks()
    for path in served.iterdir():
        path.unlink()
    load.cache_clear()
    assert_is_marks()
    assert load("marks").source.startswith(f"cache {fetch('marks')}, made from file://")
    assert verify("marks").ok


def test_another_label_ends_the_look_up(tmp_path: Path, install: Callable[[str], None]) -> None:
    served = write_arff(tmp_path / "served")
    path = served / "train.arff"
    path.write_text(path.read_text().replace("r1,0.0,2.0,0,0,0", "r1,0.0,2.0,0,1,0"))
    install(entry(served))
    with pytest.raises(WrongContent, match=r"marks/train: the content is not what was pinned"):
        load("marks")


def test_nowhere(tmp_path: Path, install: Callable[[str], None]) -> None:
    install(entry(tmp_path / "no-such-folder"))
    with pytest.raises(DataError, match=r"holds multilabel/marks/train\.parquet and multilabel/marks/test\.parquet"):
        load("marks")


@pytest.mark.parametrize(
    ("text", "replacement", "message"),
    [
        ('format = "arff"\n', 'format = "idx"\n', "left_out: must name attributes, of format = 'arff'"),
        ('left_out = ["id"]\n', "left_out = [1]\n", "left_out: must name attributes"),
        ("classes = 3", "classes = 4", "class_names: must be 4 different strings"),
    ],
)
def test_a_wrong_entry_is_named(
    tmp_path: Path, install: Callable[[str], None], text: str, replacement: str, message: str
) -> None:
    good = entry(tmp_path)
    assert text in good
    install(good.replace(text, replacement))
    with pytest.raises(DataError, match=message):
        pins()


# -- made on this machine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["documents", "digit_pairs"])
def test_made_datasets_are_what_is_pinned(name: str) -> None:
    dataset, pin = load(name), pins()[name]
    assert dataset.source == "made on this machine"
    assert {split: labels.shape for split, labels in dataset.labels.items()} == {
        split: (rows, pin.classes) for split, rows in pin.splits.items()
    }
    assert status(name).local is not None
    assert [check.split for check in verify(name).checks] == list(pin.splits)
    assert verify(name).ok


def test_made_datasets_have_what_real_ones_have() -> None:
    """Frequent and rare labels, rows without labels and with several."""
    for name in ("documents", "digit_pairs"):
        for labels in load(name).labels.values():
            counts, sizes = labels.sum(0), labels.sum(1)
            assert counts.max() > 10 * counts.min() > 0
            assert (sizes == 0).mean() > 0.02
            assert (sizes > 1).mean() > 0.3


def test_another_scikit_learn_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = made.digit_pairs

    def other() -> made.Made:
        found = real()
        found["test"][1][0, 0] ^= 1
        return found

    monkeypatch.setattr(made, "digit_pairs", other)
    with pytest.raises(WrongContent, match=r"digit_pairs/test(.|\n)*Install another version of scikit-learn"):
        load("digit_pairs")


def test_digit_pairs_are_of_the_digits_they_are_labelled_with() -> None:
    """Every half is blank or an image of a digit that the row has, training halves of other images than test ones."""
    digits, pairs = load("digits"), load("digit_pairs")
    known: dict[bytes, set[int]] = {}
    for image, label in zip(digits.features["all"], digits.labels["all"], strict=True):
        known.setdefault(image.tobytes(), set()).add(int(label))
    blank, used = np.zeros(64, np.float32).tobytes(), {}
    for split in ("train", "test"):
        halves = pairs.features[split].reshape(-1, 8, 2, 8).transpose(0, 2, 1, 3).reshape(-1, 2, 64)
        used[split] = {half.tobytes() for row in halves for half in row} - {blank}
        for row, labels in zip(halves, pairs.labels[split], strict=True):
            found = [known[half.tobytes()] for half in row if half.tobytes() != blank]
            assert set().union(*found) == set(np.flatnonzero(labels).tolist())
    assert not used["train"] & used["test"]


# -- rows that occur twice ---------------------------------------------------------------------------------------------


def test_repeated_rows() -> None:
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], np.float32)
    among = np.array([[5.0, 5.0], [0.0, 1.0], [2.0, 2.0]], np.float32)
    assert repeated(rows, among).tolist() == [True, True, False, True]
    assert repeated(rows[:0], among).tolist() == []
    assert repeated(rows, among[:0]).tolist() == [False] * 4
    assert repeated(rows[:, ::-1], among[:, ::-1]).tolist() == [True, True, False, True]


REPEATS = {  # test rows of Mulan sets whose features also occur in train
    "tmc2007_500": 1220,
    "delicious": 871,
    "genbase": 157,
    "enron": 62,
    "bibtex": 21,
    "scene": 6,
    "medical": 6,
    **dict.fromkeys(["emotions", "yeast", "birds", "corel5k", "flags"], 0),
}


@pytest.mark.parametrize(("name", "count"), REPEATS.items())
def test_repeats_of_mulan(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    if not REAL_DATA or not Path(REAL_DATA, "multilabel", name).is_dir():
        pytest.skip(f"LOSSBOARD_DATA does not hold multilabel/{name}")
    monkeypatch.setenv("LOSSBOARD_DATA", REAL_DATA)
    features = load(name).features
    assert repeated(features["test"], features["train"]).sum() == count

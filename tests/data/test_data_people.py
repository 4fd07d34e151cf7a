"""Labels that people gave: read, joined by the original order of the rows, and refused where they do not belong."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_datasets import PINS, REAL_DATA, Tiny, images, write_parquet

from lossboard.data import DataError, Dataset, human, load, pins, status
from lossboard.data.errors import WrongContent
from lossboard.data.label_files import array, columns

ORDER = [3, 1, 2]  # in which the tiny repository keeps the parts of train
STORED = images(6)
BACK = [2, 3, 4, 5, 0, 1]  # rows of the parts 1, 2, 3 among the stored ones
CLEAN = STORED["train"][1][BACK]
SETS = {"clean": CLEAN, "worst": (CLEAN + 1) % 3, "some": np.where(np.arange(6) < 3, (CLEAN + 2) % 3, CLEAN)}
FILE = {"clean": "clean_label", "worst": "worse_label", "some": "some_label"}


def pinned(folder: Path) -> str:
    """A dataset whose training rows lie in another order, and the labels of people for it."""
    nothing = (folder / "nothing").as_uri()
    addresses = ", ".join(f'{split}_{part} = ["{nothing}"]' for split in STORED for part in ("images", "labels"))
    origin = f'batches = {{ train = {ORDER} }}\nformat = "idx"\naddresses = {{ {addresses} }}'
    table = np.stack(list(SETS.values()), 1).astype("<i8")
    names = ", ".join(f'{ours} = "{theirs}"' for ours, theirs in FILE.items())
    return Tiny("pictures", STORED, origin).entry() + (
        '[people]\nkind = "labels"\nclasses = 3\nclass_names = ["a", "b", "c"]\nshape = [3]\n'
        'splits = { train = 6 }\nlicense = "none"\ncitation = "none"\n'
        f'columns = {{ {names} }}\nlabels_of = ["pictures"]\n'
        f'format = "torch"\naddresses = {{ train = ["{(folder / "people.pt").as_uri()}"] }}\n'
        f'[people.content]\ntrain = "{hashlib.sha256(table.tobytes()).hexdigest()}"\n'
    )


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data, which holds the pictures; the labels are in a file of torch."""
    (tmp_path / "pins.toml").write_text(pinned(tmp_path))
    monkeypatch.setattr(PINS, "PATH", tmp_path / "pins.toml")
    pins.cache_clear()
    for split, (features, labels) in STORED.items():
        write_parquet(tmp_path / "data" / "pictures" / f"{split}.parquet", features, labels)
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "data"))
    torch.save({FILE[name]: labels for name, labels in SETS.items()}, tmp_path / "people.pt")
    return tmp_path / "data"


def test_rows_come_in_their_original_order(people: Path) -> None:
    for _ in range(2):  # from the folder, then from the cache
        dataset = load("pictures")
        np.testing.assert_array_equal(dataset.features["train"], STORED["train"][0][BACK])
        np.testing.assert_array_equal(dataset.labels["train"], CLEAN)
        np.testing.assert_array_equal(dataset.features["test"], STORED["test"][0])
        assert not dataset.features["train"].flags.writeable
        load.cache_clear()


def test_labels_are_joined(people: Path) -> None:
    dataset = load("pictures")
    np.testing.assert_array_equal(human(dataset, "worst", 1.0), SETS["worst"])
    np.testing.assert_array_equal(human(dataset, "some", 0.5), SETS["some"])
    assert human(dataset, "some", 0.5009).flags.writeable
    assert load("people").labels["train"].shape == (6, 3)
    assert load("people").features["train"].shape == (6, 0)
    assert load("people").kind == status("people").kind == "labels"


def test_from_the_folder_too(people: Path) -> None:
    (people / "people").mkdir()
    columns = {FILE[name]: labels for name, labels in SETS.items()}
    pq.write_table(pa.table(columns), people / "people" / "train.parquet")
    assert load("people").source == str(people / "people")
    np.testing.assert_array_equal(human(load("pictures"), "worst", 1.0), SETS["worst"])
    load.cache_clear()
    pq.write_table(pa.table(columns).drop_columns("some_label"), people / "people" / "train.parquet")
    with pytest.raises(DataError, match="no column 'some_label'; the columns are clean_label, worse_label"):
        load("people")


def changed(dataset: Dataset, labels: np.ndarray) -> Dataset:
    return dataclasses.replace(dataset, labels={**dataset.labels, "train": labels})


def test_rows_in_another_order_are_refused(people: Path) -> None:
    dataset = changed(load("pictures"), STORED["train"][1])
    first = np.flatnonzero(STORED["train"][1] != CLEAN)[0]
    differ = int((STORED["train"][1] != CLEAN).sum())
    message = (
        f"people: its clean labels are not those of pictures: {differ} of 6 rows differ, the first is row {first}, "
        f"{CLEAN[first]} there and {STORED['train'][1][first]} here"
    )
    with pytest.raises(WrongContent, match=re.escape(message)):
        human(dataset, "worst", 1.0)


def test_another_number_of_rows_is_refused(people: Path) -> None:
    with pytest.raises(WrongContent, match="people: labels of 6 rows, but pictures has 5 in train"):
        human(changed(load("pictures"), CLEAN[:5]), "worst", 1.0)


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("aggre", 0.5, "no labels 'aggre' for 'pictures'; people has: worst, some"),
        ("clean", 0.0, "no labels 'clean' for 'pictures'; people has: worst, some"),
        ("some", 0.49, "people: 50.00% of the labels 'some' are wrong, not 49.00%"),
    ],
)
def test_what_is_not_there_is_refused(people: Path, name: str, rate: float, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        human(load("pictures"), name, rate)


def test_a_dataset_that_nobody_labelled() -> None:
    with pytest.raises(
        DataError, match="no labels by people for 'digits'; there are some for: cifar10, cifar10_jpeg, "
    ):
        human(load("digits"), "worst", 0.4)


# -- files of labels ---------------------------------------------------------------------------------------------------


def saved(path: Path, held: object) -> bytes:
    torch.save(held, path)
    return path.read_bytes()


def test_a_file_of_torch_executes_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    with pytest.raises(ValueError, match="not a file of arrays that torch saved"):
        columns(saved(tmp_path / "trap.pt", {"a": Trap()}), ["a"])
    with pytest.raises(ValueError, match="not a file of arrays"):
        columns(pickle.dumps(Trap(), protocol=2), ["a"])
    assert not (tmp_path / "sprung").exists()


def test_columns_of_any_whole_numbers(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pt", {"a": np.array([1, 2], np.uint8), "b": torch.tensor([3, 4]), "c": np.arange(2)})
    assert columns(data, ["b", "a"]).tolist() == [[3, 1], [4, 2]]
    assert columns(data, ["b", "a"]).dtype == np.int64


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"b": np.zeros(2, int)}, "no columns a in it, but b"),
        ([1, 2], "no columns a in it, but list"),
        ({"a": torch.zeros(2)}, "float32 (2,) are not labels"),
        ({"a": np.zeros((2, 1), int)}, "int64 (2, 1) are not labels"),
    ],
)
def test_columns_that_are_no_labels(tmp_path: Path, held: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        columns(saved(tmp_path / "a.pt", held), ["a"])


def test_an_array_that_holds_objects_is_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, 1], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        array((tmp_path / "a.npy").read_bytes())


# -- the published labels ----------------------------------------------------------------------------------------------

RATES = {"aggre": 0.0901, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worst": 0.4021}


@pytest.mark.parametrize("name", RATES)
def test_cifar10n_belongs_to_its_images(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if not REAL_DATA or not Path(REAL_DATA, "cifar10n").is_dir():
        pytest.skip("LOSSBOARD_DATA does not hold cifar10n")
    monkeypatch.setenv("LOSSBOARD_DATA", REAL_DATA)
    clean = load("cifar10n").labels["train"][:, 0]
    pin = pins()["cifar10"]
    dataset = Dataset("cifar10", {}, {"train": clean}, 10, pin.class_names, "image", "")
    assert abs((human(dataset, name, RATES[name]) != clean).mean() - RATES[name]) < 6e-5
    # The hub keeps the labels as its content hash says: in the order of the pinned batches.
    stored = np.concatenate([np.split(clean, 5)[number - 1] for number in pin.batches["train"]])
    assert pin.content["train"].endswith(hashlib.sha256(stored.astype("<i8").tobytes()).hexdigest())


def test_cifar100n_knows_the_superclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL_DATA or not Path(REAL_DATA, "cifar100n").is_dir():
        pytest.skip("LOSSBOARD_DATA does not hold cifar100n")
    from reference.noise.superclasses import CIFAR100

    table = pq.read_table(Path(REAL_DATA, "cifar100n", "train.parquet"))
    fine, coarse = (table[name].to_numpy() for name in ("clean_label", "clean_coarse_label"))
    assert tuple(tuple(np.unique(fine[coarse == group]).tolist()) for group in range(20)) == CIFAR100
    monkeypatch.setenv("LOSSBOARD_DATA", REAL_DATA)
    dataset = Dataset("cifar100", {}, {"train": fine}, 100, pins()["cifar100"].class_names, "image", "")
    assert (human(dataset, "noisy", 0.402) != fine).mean() == 0.402

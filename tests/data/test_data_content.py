"""The content hash, and the shipped datasets against their pins."""

import doctest
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import REAL_DATA

import lossboard.data
from lossboard.data import DataError, content_hash, load, pins
from lossboard.data.content import arrays_hash, check, encoded_hash
from lossboard.data.folder import home

FLOATS = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)
LABELS = np.array([1, 0])


def test_the_hash_is_that_of_the_bytes() -> None:
    expected = hashlib.sha256(struct.pack("<4f", 1.5, -2.0, 0.25, 3.0) + struct.pack("<2q", 1, 0)).hexdigest()
    assert content_hash(FLOATS, LABELS) == expected
    pixels = np.array([[[[7], [8]]], [[[9], [255]]]], np.uint8)
    assert content_hash(pixels, LABELS) == hashlib.sha256(b"\x07\x08\x09\xff" + struct.pack("<2q", 1, 0)).hexdigest()


@pytest.mark.parametrize(
    "same",
    [np.asfortranarray(FLOATS), FLOATS.astype(">f4"), FLOATS.astype(np.float64), FLOATS[::-1][::-1]],
    ids=["column order", "big-endian", "float64", "strides"],
)
def test_storage_plays_no_part(same: np.ndarray) -> None:
    assert content_hash(same, LABELS.astype(">i4")) == content_hash(FLOATS, LABELS)


def test_one_bit_one_label_and_the_order_play_a_part() -> None:
    other = FLOATS.copy()
    other[1, 1] = np.nextafter(other[1, 1], np.float32(9))
    hashes = {
        content_hash(*pair)
        for pair in [(FLOATS, LABELS), (other, LABELS), (FLOATS, 1 - LABELS), (FLOATS[::-1], LABELS)]
    }
    assert len(hashes) == 4


def test_arrays_apart() -> None:
    features, labels = hashlib.sha256(FLOATS.tobytes()), hashlib.sha256(struct.pack("<2q", 1, 0))
    assert arrays_hash(FLOATS, LABELS) == f"features:{features.hexdigest()} labels:{labels.hexdigest()}"


def test_encoded_images_are_hashed_with_their_lengths() -> None:
    expected = hashlib.sha256(struct.pack("<q", 2) + b"ab" + struct.pack("<q", 1) + b"c" + struct.pack("<2q", 1, 0))
    assert encoded_hash([b"ab", b"c"], LABELS) == f"encoded:{expected.hexdigest()}"
    assert encoded_hash([b"a", b"bc"], LABELS) != encoded_hash([b"ab", b"c"], LABELS)


@pytest.mark.parametrize("name", ["cifar10_jpeg", "cifar100"])
def test_arrays_alone_do_not_pass_for_what_they_were_decoded_from(name: str) -> None:
    pin = pins()[name]
    features, labels = np.zeros((pin.splits["test"], *pin.shape), np.uint8), np.zeros(pin.splits["test"], int)
    with pytest.raises(DataError, match="not what was pinned"):
        check(pin, "test", features, labels, "here", "mend")
    check(pin, "test", features, labels, "here", "mend", pin.content["test"])


def test_the_same_bytes_in_another_shape_are_refused() -> None:
    digits = load("digits")
    features, labels = digits.features["all"], digits.labels["all"]
    pin = pins()["digits"]
    check(pin, "all", features, labels, "here", "mend")
    with pytest.raises(DataError, match=r"features \(3594, 32\)"):
        check(pin, "all", features.reshape(3594, 32), labels, "here", "mend")


def test_digits() -> None:
    digits = load("digits")
    assert digits.source == "bundled with scikit-learn"
    assert content_hash(digits.features["all"], digits.labels["all"]) == pins()["digits"].content["all"]
    assert digits.features["all"].dtype == np.float32
    assert set(np.unique(digits.features["all"])) == set(range(17))
    assert np.bincount(digits.labels["all"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert load("digits") is digits
    with pytest.raises(ValueError, match="read-only"):
        digits.features["all"][0, 0] = 1


@pytest.mark.parametrize("name", [name for name, pin in pins().items() if not pin.bundled])
def test_shipped_pins_fit_the_data(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pin = pins()[name]
    if not REAL_DATA or not Path(REAL_DATA, home(pin)).is_dir():
        pytest.skip(f"LOSSBOARD_DATA does not hold {name}")
    monkeypatch.setenv("LOSSBOARD_DATA", REAL_DATA)
    dataset = load(name)
    if pin.kind == "labels":
        ((split, labels),) = dataset.labels.items()
        assert content_hash(dataset.features[split], labels) == pin.content[split]
        assert labels.shape == (pin.splits[split], len(pin.columns))
        assert {tuple(np.unique(column)) for column in labels.T} == {tuple(range(pin.classes))}
        return
    assert dataset.source == str(Path(REAL_DATA, home(pin)).absolute())
    assert {split: features.shape for split, features in dataset.features.items()} == {
        split: (rows, *pin.shape) for split, rows in pin.splits.items()
    }
    for split, labels in dataset.labels.items():
        if pin.pinned == "content":  # anything else was checked by the loader against what the arrays were made from
            assert content_hash(dataset.features[split], labels) == pin.content[split]
        if pin.kind == "multilabel":
            assert (labels.shape, labels.dtype) == ((pin.splits[split], pin.classes), np.int8)
            assert set(np.unique(labels)) == {0, 1}
        else:
            assert set(labels.tolist()) == set(range(pin.classes))
            assert labels.dtype == np.int64
        assert not labels.flags.writeable


def test_examples_in_docstrings() -> None:
    # `load` is wrapped by a cache, which the finder does not see through; `__wrapped__` has the docstring.
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for documented in (lossboard.data, content_hash, load.__wrapped__):
        (example,) = finder.find(documented, name="example", globs={"load": load, "content_hash": content_hash})
        assert runner.run(example).attempted > 0
    assert runner.summarize().failed == 0

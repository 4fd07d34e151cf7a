"""ARFF: dense and sparse rows, quotes, nominal values, and what is refused."""

import numpy as np
import pytest

from lossboard.data import arff

HEADER = """% a comment
@RELATION 'small one'

@attribute size numeric
@attribute 'it\\'s far' {YES,NO}
@attribute "the kind" {red, 'dark, green' ,blue}
@attribute label-a {0,1}
@ATTRIBUTE 'label b' {1, 0}
@attribute id {x1,x2,x3}

@data
"""
DENSE = """
1.5,YES,red,0,1,x1
% another comment
-2e-3, NO, 'dark, green', 1, 0, x2
7,NO,"blue",1,1,x3
"""
SPARSE = """
{0 1.5,1 YES,5 x1,2 red}
{0 -2e-3,1 NO, 2 'dark, green',3 1,4 0,5 x2}
{0 7, 1 NO,2 blue, 3 1, 5 x3}
"""
LABELS = ("label-a", "label b")
FEATURES = [[1.5, 1, 1, 0, 0], [-2e-3, 0, 0, 1, 0], [7, 0, 0, 0, 1]]


@pytest.mark.parametrize("rows", [DENSE, SPARSE, DENSE.replace("\n", "\r\n")])
def test_rows(rows: str) -> None:
    """A sparse row leaves out 0, or the first declared value: YES, red, and 1 of `label b`."""
    features, labels = arff.read((HEADER + rows).encode(), LABELS, ["id"])
    assert (features.dtype, labels.dtype) == (np.float32, np.int8)
    np.testing.assert_array_equal(features, np.array(FEATURES, np.float32))
    np.testing.assert_array_equal(labels, [[0, 1], [1, 0], [1, 1]])


def test_an_identifier_that_is_not_left_out_is_a_feature() -> None:
    features, _ = arff.read((HEADER + DENSE).encode(), LABELS)
    np.testing.assert_array_equal(features[:, 5:], np.eye(3))


def test_an_empty_sparse_row_is_all_defaults() -> None:
    features, labels = arff.read((HEADER + "{}\n").encode(), LABELS, ["id"])
    assert features.tolist() == [[0, 1, 1, 0, 0]]
    assert labels.tolist() == [[0, 1]]


def test_numbers_are_rounded_once() -> None:
    """From the text to float32 by way of float64, as Parquet copies of the files were made."""
    text = "@attribute a real\n@attribute y {0,1}\n@data\n0.1234567890123,1\n16777217,0\n"
    features, _ = arff.read(text.encode(), ["y"])
    assert features[:, 0].tolist() == [float(np.float32(0.1234567890123)), 16777216.0]


REFUSED = [
    ("7,NO", "7,NO,NO", "line 16 is not ARFF"),
    ("7,NO", "seven,NO", "line 16 is not ARFF: could not convert string to float: 'seven'"),
    ("7,NO", "?,NO", "line 16 is not ARFF"),
    ("7,NO", "nan,NO", "attribute 'size' holds numbers that are not finite"),
    ("7,NO", "7,MAYBE", "line 16 is not ARFF: 'MAYBE'"),
    ("1,1,x3", "2,1,x3", "line 16 is not ARFF: '2'"),
    ('"blue"', '"blue', "line 16 is not ARFF: quotes that do not close"),
    ("size numeric", "size string", "line 4 is not ARFF: an attribute of a kind that is not known"),
    ("@data", "@end", "line 11 is not ARFF: '@end' in the header"),
    ("label-a {0,1}", "label-a {0,1,2}", "a label has other values than 0 and 1"),
    ("label-a", "label-c", "do not hold the 2 labels in their order"),
    ("id {", "number {", "no attribute 'id' to leave out"),
]


@pytest.mark.parametrize(("text", "replacement", "message"), REFUSED, ids=[f"{b}" for _, b, _ in REFUSED])
def test_what_is_refused(text: str, replacement: str, message: str) -> None:
    whole = HEADER + DENSE
    assert text in whole
    with pytest.raises(ValueError, match=message):
        arff.read(whole.replace(text, replacement).encode(), LABELS, ["id"])


@pytest.mark.parametrize("data", [b"", b"@data\n", HEADER.encode(), b"\xff\xfe"])
def test_a_file_without_rows(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no rows of ARFF|codec"):
        arff.read(data, LABELS)


def test_labels_in_another_order() -> None:
    with pytest.raises(ValueError, match="in their order"):
        arff.read((HEADER + DENSE).encode(), LABELS[::-1])

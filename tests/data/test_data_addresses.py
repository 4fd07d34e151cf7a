"""Addresses and their file formats, over file:// and a server on this machine that fails in the ways servers do."""

import gzip
import http.server
import io
import json
import re
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import Install, Tiny, idx_origin, images, tabular

from lossboard.data import DataError, load
from lossboard.data.errors import WrongContent
from lossboard.data.formats import idx, matrix, table
from lossboard.data.pins import Rows


def as_idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def as_text(features: np.ndarray, labels: np.ndarray) -> bytes:
    """The layout of UCI's tables: comma-separated, the label last."""
    rows = zip(features, labels, strict=True)
    return "".join(",".join(f"{value:.3f}" for value in row) + f", {label}\n" for row, label in rows).encode()


TEXT = {split: as_text(*pair) for split, pair in tabular().items()}


@dataclass
class Server:
    """Serves `files` by path and counts requests; a file in `cut` promises more than it sends."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            here.asked.append(name)
            if name not in here.files:
                self.send_error(404)
                return
            body = here.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if name in here.cut else body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        here = Server(f"http://127.0.0.1:{listening.server_port}")
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield here
        listening.shutdown()


def origin(addresses: dict[str, list[str]], extra: str = "") -> str:
    rows = f'{{ label = 4, features = [0, 4], codes = ["0", "1", "2"]{extra} }}'
    urls = ", ".join(f"{file} = {json.dumps(list_)}" for file, list_ in addresses.items())
    return f'format = "rows"\nrows = {rows}\naddresses = {{ {urls} }}'


Serve = Callable[[dict[str, list[str]]], Tiny]


@pytest.fixture
def serve(server: Server, install: Install) -> Serve:
    """Pin the small table to paths of the server, and serve the two good files."""

    def pinned(paths: dict[str, list[str]]) -> Tiny:
        server.files |= {"train.csv": TEXT["train"], "test.csv": TEXT["test"]}
        urls = {file: [f"{server.address}/{path}" for path in candidates] for file, candidates in paths.items()}
        tiny = Tiny("table", tabular(), origin(urls))
        install(tiny)
        return tiny

    return pinned


def assert_loads(tiny: Tiny) -> str:
    dataset = load(tiny.name)
    for split, (features, labels) in tiny.splits.items():
        np.testing.assert_array_equal(dataset.features[split], features)
        np.testing.assert_array_equal(dataset.labels[split], labels)
    return dataset.source


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_over_http(serve: Serve, server: Server) -> None:
    tiny = serve({"train": ["train.csv"], "test": ["test.csv"]})
    assert assert_loads(tiny) == f"{server.address}/train.csv and {server.address}/test.csv"


def test_one_archive_is_fetched_once(serve: Serve, server: Server) -> None:
    server.files["all.zip"] = zipped(tra=TEXT["train"], tes=TEXT["test"])
    assert_loads(serve({"train": ["all.zip#tra"], "test": ["all.zip#tes"]}))
    assert server.asked == ["all.zip"]


# a first address that gives nothing usable: (its path, the bytes there, what the list of places must say)
USELESS = [
    ("gone", None, "HTTPError: HTTP Error 404"),
    ("page", b"<html>\nNot here any more\n</html>", "line 2 is no row of this table"),
    ("empty", b"", "no rows"),
    ("cut.gz", gzip.compress(TEXT["train"])[:-20], "EOFError"),
    ("bad.gz", b"\x1f\x8b" + bytes(40), "BadGzipFile"),
    ("no.zip#train", b"PK but not a zip", "BadZipFile"),
    ("other.zip#train", zipped(readme=b"hello"), "There is no item named 'train'"),
    ("binary", bytes(range(256)), "UnicodeDecodeError"),
    ("half", TEXT["train"], "IncompleteRead"),
]


useless = pytest.mark.parametrize(("path", "data", "message"), USELESS, ids=[path for path, *_ in USELESS])


def put(server: Server, path: str, data: bytes | None) -> None:
    if data is not None:
        server.files[path.split("#")[0]] = data
    server.cut.add("half")


@useless
def test_the_next_address_is_tried(serve: Serve, server: Server, path: str, data: bytes | None, message: str) -> None:
    put(server, path, data)
    tiny = serve({"train": [path, "train.csv"], "test": ["test.csv"]})
    assert assert_loads(tiny).startswith(f"{server.address}/train.csv and ")


@useless
def test_every_address_is_named(serve: Serve, server: Server, path: str, data: bytes | None, message: str) -> None:
    put(server, path, data)
    serve({"train": [path, "gone-too"], "test": ["test.csv"]})
    with pytest.raises(DataError) as caught:
        load("table")
    (first,) = [line for line in str(caught.value).splitlines() if f"{server.address}/{path}: " in line]
    assert message in first
    assert f"{server.address}/gone-too: HTTPError" in str(caught.value)


def test_wrong_content_stops_before_the_next_address(serve: Serve, server: Server, tmp_path: Path) -> None:
    server.files["old.csv"] = TEXT["train"].replace(b"0", b"1", 1)
    serve({"train": ["old.csv", "train.csv"], "test": ["test.csv"]})
    with pytest.raises(WrongContent, match=rf"(?s)table/train.*{server.address}/old.csv.*LOSSBOARD_DATA/table"):
        load("table")
    assert server.asked == ["old.csv", "test.csv"]
    assert not (tmp_path / "cache").exists()


def test_a_silent_server_is_given_up(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossboard.data.addresses.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        install(Tiny("table", tabular(), origin({"train": [address], "test": [address]})))
        start = time.perf_counter()
        with pytest.raises(DataError, match=rf"{address}: .*timed out"):
            load("table")
        assert time.perf_counter() - start < 5


def test_idx_files(tmp_path: Path, install: Install) -> None:
    tiny = Tiny("pictures", images(), idx_origin(tmp_path))
    install(tiny)
    for split, (features, labels) in tiny.splits.items():
        (tmp_path / f"{split}-images.gz").write_bytes(gzip.compress(as_idx(features[..., 0])))
        (tmp_path / f"{split}-labels.gz").write_bytes(gzip.compress(as_idx(labels)))
    assert assert_loads(tiny).startswith((tmp_path / "train-images.gz").as_uri())


def test_one_file_cut_by_position_or_by_a_column(tmp_path: Path, install: Install) -> None:
    (features, labels), (more, others) = tabular().values()
    lines = as_text(np.concatenate([features, more]), np.concatenate([labels, others])).decode().splitlines()
    (tmp_path / "cut.csv").write_text("\n".join(lines))
    tiny = Tiny("cut", tabular(), origin({"all": [(tmp_path / "cut.csv").as_uri()]}))
    install(tiny)
    assert_loads(tiny)

    # The flag decides, whatever the order; columns between it and the features do not count.
    flagged = [f"{0 if row < 7 else 1} speaker {line}" for row, line in enumerate(lines)]
    (tmp_path / "flag.csv").write_text("\n".join(flagged[9:] + flagged[:9][::-1][:2] + flagged[:7]))
    layout = origin({"all": [(tmp_path / "flag.csv").as_uri()]}, ", split = 0")
    layout = layout.replace("label = 4", "label = 6").replace("[0, 4]", "[2, 6]")
    order = [2, 3, 4, 1, 0]
    tiny = Tiny("flag", {"train": (features, labels), "test": (more[order], others[order])}, layout)
    install(tiny)
    assert_loads(tiny)


def test_rows_too_many_are_not_cut_away(tmp_path: Path, install: Install) -> None:
    whole = as_text(*(np.concatenate(pair) for pair in zip(*tabular().values(), strict=True)))
    (tmp_path / "all.csv").write_bytes(whole + b"1,2,3,4,0\n")
    install(Tiny("table", tabular(), origin({"all": [(tmp_path / "all.csv").as_uri()]})))
    with pytest.raises(WrongContent, match=r"(?s)table/test.*found .* features \(6, 4\)"):
        load("table")


LAYOUT = Rows(label=2, features=(0, 2), codes=("A", "3", "7"))
# the same three rows as files write them
WRITTEN = [
    b"1,2,A\n3,4,7\n5,6,3\n",
    b"1 2 A\n3 4 7\n5 6 3",
    b"  1.0,  2e0, A\r\n\r\n3.0, 4, 7.0000\r\n5, 6, 3.\r\n",
    b"height,width,letter\n1,2,A\n3,4,7\n5,6,3\n",
    b"1\t2\t4\n1\t2\tA\n3\t4\t7\n5\t6\t3\n",
]


@pytest.mark.parametrize("data", WRITTEN, ids=["commas", "spaces", "windows", "header", "numbered header"])
def test_ways_to_write_a_table(data: bytes) -> None:
    read = table(data, LAYOUT)
    assert read.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert read.labels is not None
    assert read.labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1,2,A\n3,4,B\n", "line 2 is no row of this table: 'B'"),
        (b"1,2,A\n\n3,x,A\n", "line 3 is no row of this table: could not convert"),
        (b"1,2,A\n3\n", "line 2 is no row of this table"),
        (b"\n\n", "no rows"),
        (b"height,width,letter\n", "no rows"),
    ],
)
def test_lines_that_are_no_rows(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        table(data, LAYOUT)


SPARSE = Rows(label=0, features=(1, 4), codes=("-1", "+2"))


def test_a_sparse_table() -> None:
    read = table(b"-1 1:0.5 3:2 \n+2 2:-1\r\n\n2.0\n", SPARSE, sparse=True)
    assert read.values.tolist() == [[0.5, 0, 2], [0, -1, 0], [0, 0, 0]]
    assert read.labels is not None
    assert read.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"-1 4:1", "feature 4"),
        (b"-1 0:1", "feature 0"),
        (b"-1 x:1", "invalid literal"),
        (b"-1 1", "not enough values"),
        (b"-1 1:2:3", "too many values"),
        (b"3 1:1", "'3'"),
    ],
)
def test_lines_that_are_no_sparse_rows(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"line 2 is no row of this table: {message}")):
        table(b"-1 1:1\n" + line, SPARSE, sparse=True)


def test_a_sparse_dataset(tmp_path: Path, install: Install) -> None:
    for split, (features, labels) in tabular().items():
        lines = [
            f"{y} " + " ".join(f"{number}:{value:.3f}" for number, value in enumerate(row, 1))
            for row, y in zip(features, labels, strict=True)
        ]
        (tmp_path / split).write_text("\n".join(lines))
    urls = ", ".join(f'{split} = ["{(tmp_path / split).as_uri()}"]' for split in ("train", "test"))
    rows = 'rows = { label = 0, features = [1, 5], codes = ["0", "1", "2"] }'
    tiny = Tiny("sparse", tabular(), f'format = "libsvm"\n{rows}\naddresses = {{ {urls} }}')
    install(tiny)
    assert_loads(tiny)


def test_arrays_of_numpy(tmp_path: Path, install: Install) -> None:
    """Features of any number type become float32; what is not rows of numbers is refused."""
    addresses = []
    for split, (features, labels) in tabular().items():
        for part, array in (("features", features.astype(np.float64)), ("labels", labels)):
            np.save(tmp_path / f"{split}_{part}.npy", array)
            addresses.append(f'{split}_{part} = ["{(tmp_path / f"{split}_{part}.npy").as_uri()}"]')
    tiny = Tiny("plain", tabular(), f'format = "npy"\naddresses = {{ {", ".join(addresses)} }}')
    install(tiny)
    assert_loads(tiny)
    with pytest.raises(ValueError, match="are not rows of numbers"):
        matrix(as_npy(np.zeros(3)))


def as_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_idx_of_any_shape() -> None:
    for shape in [(3,), (2, 3), (2, 3, 4), (0, 2)]:
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        np.testing.assert_array_equal(idx(as_idx(array)), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it starts with nothing"),
        (b"<html>", "it starts with 3c68746d"),
        (b"\0\0\x0d\x01" + bytes(8), "not an IDX file of bytes"),
        (b"\0\0\x08\x02" + bytes(6), "the IDX header is cut short"),
        (as_idx(np.zeros(5))[:-1], "promises 5 values (5,), the file holds 4"),
        (as_idx(np.zeros(5)) + b"x", "promises 5 values (5,), the file holds 6"),
    ],
)
def test_bytes_that_are_no_idx(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        idx(data)

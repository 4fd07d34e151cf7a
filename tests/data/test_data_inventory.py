"""Status says where a dataset stands without reading it; verify reads every copy on this machine."""

import re
from pathlib import Path

import pytest
from tiny_datasets import Install, Tiny, images, tabular, write_parquet

from lossboard.data import DataError, Place, cache, content_hash, load, pins, status, verify


def test_status_of_a_new_machine(table: Tiny, tmp_path: Path) -> None:
    here = status("table")
    assert (here.kind, here.classes, here.rows, here.license) == ("tabular", 3, 12, "none")
    assert here.local is None
    folder, cached, network = here.places
    assert folder == Place("folder", "LOSSBOARD_DATA", False, "is not set")
    assert (cached.step, cached.present, cached.note) == ("cache", False, "does not exist")
    assert (network.step, network.present) == ("addresses", None)
    assert not (tmp_path / "cache").exists()


def test_status_follows_the_look_up(pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(pictures.write(tmp_path / "data")))
    place = status("pictures").local
    assert place == Place("folder", str(tmp_path / "data" / "pictures"), True)
    load("pictures")
    monkeypatch.delenv("LOSSBOARD_DATA")
    kept = str(cache.folder(pins()["pictures"]))
    assert status("pictures").local == Place("cache", kept, True, f"made from {tmp_path / 'data' / 'pictures'}")


def test_status_of_half_a_dataset(table: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = table.write(tmp_path / "data")
    (folder / "table" / "train.parquet").unlink()
    monkeypatch.setenv("LOSSBOARD_DATA", str(folder))
    here = status("table")
    assert here.local is None
    assert "train.parquet is missing beside test.parquet" in here.places[0].note
    verification = verify("table")
    assert not verification.ok
    assert [check.split for check in verification.checks] == ["train", "test"]


def test_status_of_bundled_and_hub_data(install: Install) -> None:
    place = status("digits").local
    assert place is not None
    assert (place.step, Path(place.where).name) == ("bundled", "sklearn")
    install(Tiny("small", images(), f'hub = "somebody/small"\nrevision = "{"0" * 40}"'))
    assert status("small").places[-1] == Place("hub", f"hub somebody/small@{'0' * 40}", None)


def test_verify_reads_every_copy(pictures: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBOARD_DATA", str(pictures.write(tmp_path / "data")))
    load("pictures")
    good = verify("pictures")
    assert good.ok
    assert [(check.step, check.split) for check in good.checks] == [
        ("folder", "train"),
        ("folder", "test"),
        ("cache", "train"),
        ("cache", "test"),
    ]

    features, labels = pictures.splits["test"]
    path = tmp_path / "data" / "pictures" / "test.parquet"
    write_parquet(path, features, (labels + 1) % 3)
    found = verify("pictures")
    assert not found.ok
    assert [check.ok for check in found.checks] == [True, False, True, True]
    assert str(path) in found.checks[1].problem
    assert content_hash(features, (labels + 1) % 3) in found.checks[1].problem


def test_verify_finds_a_damaged_cache(pictures: Tiny, tmp_path: Path) -> None:
    pin = pins()["pictures"]
    place = cache.keep(pin, pictures.splits, cache.Origin("elsewhere"))
    (place / "train.labels.npy").write_bytes(b"")
    assert [check.ok for check in verify("pictures").checks] == [False, True]
    (place / "origin.json").unlink()
    assert [check.ok for check in verify("pictures").checks] == [False, False]
    assert status("pictures").local is None


def test_verifying_nothing_is_no_success(table: Tiny) -> None:
    with pytest.raises(
        DataError, match=re.escape("table: no copy on this machine to verify. Run: lossboard data fetch table")
    ):
        verify("table")


def test_verify_bundled_data(install: Install) -> None:
    assert verify("digits").ok
    wrong = {"train": (tabular()["train"][0], tabular()["train"][1])}
    install(Tiny("digits", wrong, 'bundled = "sklearn.datasets.load_digits"'))
    (check,) = verify("digits").checks
    assert "digits/train: the content is not what was pinned" in check.problem


@pytest.mark.parametrize("ask", [status, verify])
def test_unknown_names(ask: object) -> None:
    with pytest.raises(DataError, match=r"no dataset is called 'nmist'. Did you mean mnist"):
        ask("nmist")  # type: ignore[operator]

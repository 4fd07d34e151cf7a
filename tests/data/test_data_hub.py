"""The hub, from a folder laid out like a repository of it, and a hub that cannot be reached or has nothing."""

import dataclasses
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from tiny_datasets import Install, Tiny, images, pixels_as_png, tabular, write_parquet

from lossboard.data import DataError, fetch, load, pins
from lossboard.data.errors import WrongContent

REVISION = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train-*
  - split: test
    path: small/test-*
---
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's cache is this test's, and progress bars are off."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub-cache"))
    datasets.disable_progress_bars()


def write_repository(folder: Path, tiny: Tiny) -> None:
    (folder / "small").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split, (features, labels) in tiny.splits.items():
        label = datasets.ClassLabel(names=["a", "b", "c"])
        if tiny.kind == "image":
            columns = {"image": [{"bytes": pixels_as_png(image), "path": None} for image in features]}
            kinds = datasets.Features(image=datasets.Image(), label=label)
        else:
            columns = {"features": features.tolist()}
            kinds = datasets.Features(features=datasets.List(datasets.Value("float32")), label=label)
        rows = datasets.Dataset.from_dict({**columns, "label": labels}, features=kinds)
        rows.to_parquet(str(folder / "small" / f"{split}-00000-of-00001.parquet"))


def origin(repository: object) -> str:
    return f'hub = "{repository}"\nconfig = "small"\nrevision = "{REVISION}"'


@pytest.mark.parametrize("splits", [images(), tabular()], ids=["image", "tabular"])
def test_from_a_repository(tmp_path: Path, install: Install, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    tiny = Tiny("small", splits, origin(tmp_path / "repository"))
    install(tiny)
    write_repository(tmp_path / "repository", tiny)
    first = load("small")
    assert first.source == f"hub {tmp_path / 'repository'}@{REVISION}"
    for split, (features, labels) in splits.items():
        np.testing.assert_array_equal(first.features[split], features)
        np.testing.assert_array_equal(first.labels[split], labels)
    load.cache_clear()
    assert load("small").source == f"cache {fetch('small')}, made from {first.source}"


def test_other_content_than_pinned(tmp_path: Path, install: Install) -> None:
    pinned, served = images(), images()
    served["test"][0][2, 1, 1, 0] ^= 1
    install(Tiny("small", pinned, origin(tmp_path / "repository")))
    write_repository(tmp_path / "repository", Tiny("small", served, ""))
    with pytest.raises(WrongContent, match=rf"(?s)small/test.*hub .*@{REVISION}, split test.*fetch again"):
        load("small")
    assert not (tmp_path / "cache").exists()


def test_a_repository_without_the_split(tmp_path: Path, install: Install) -> None:
    tiny = Tiny("small", images(), origin(tmp_path / "repository"))
    install(tiny)
    write_repository(tmp_path / "repository", tiny)
    (tmp_path / "repository" / "small" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=rf"hub .*@{REVISION}: split 'train' cannot be loaded"):
        load("small")


def test_no_network_is_said_at_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(Tiny("small", images(), origin("somebody/small")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        start = time.perf_counter()
        with pytest.raises(DataError, match=r"hub somebody/small@\w+: no connection to http://127.0.0.1.*offline\?"):
            load("small")
        assert time.perf_counter() - start < 5


def test_a_silent_network_is_given_up(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(Tiny("small", images(), origin("somebody/small")))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("lossboard.data.hub.PROBE_S", 0.2)
        with pytest.raises(DataError, match=r"no connection to .*timed out"):
            load("small")


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that knows no repository; yields the paths it was asked for."""
    asked: list[str] = []

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
        yield asked
        server.shutdown()


def test_a_hub_that_answers_is_asked(install: Install, monkeypatch: pytest.MonkeyPatch, empty_hub: list[str]) -> None:
    # The client's own endpoint cannot be moved once it is imported, so the last call stands in for it.
    def missing(*arguments: object, **options: object) -> None:
        raise FileNotFoundError(f"Dataset {arguments[0]} doesn't exist ({options['revision']})")

    install(Tiny("small", images(), origin("somebody/small")))
    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(DataError, match=rf"split 'train' cannot be loaded: FileNotFoundError: .*{REVISION}"):
        load("small")
    assert len(empty_hub) == 1


def test_the_call_is_pinned(install: Install, monkeypatch: pytest.MonkeyPatch, empty_hub: list[str]) -> None:
    calls = []

    def recorded(*arguments: object, **options: object) -> datasets.Dataset:
        calls.append((arguments, options))
        features, labels = tabular()[str(options["split"])]
        return datasets.Dataset.from_dict({"features": features.astype(np.float32).tolist(), "label": labels})

    install(Tiny("small", tabular(), origin("somebody/small")))
    monkeypatch.setattr(datasets, "load_dataset", recorded)
    load("small")
    assert calls == [
        (("somebody/small",), {"name": "small", "revision": REVISION, "split": split}) for split in ("train", "test")
    ]


def test_a_client_told_to_stay_offline_is_not_probed(
    install: Install, monkeypatch: pytest.MonkeyPatch, empty_hub: list[str]
) -> None:
    def held(*arguments: object, **options: object) -> datasets.Dataset:
        features, labels = tabular()[str(options["split"])]
        return datasets.Dataset.from_dict({"features": features.tolist(), "label": labels})

    install(Tiny("small", tabular(), origin("somebody/small")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", held)
    assert load("small").source == f"hub somebody/small@{REVISION}"
    assert empty_hub == []


def test_an_endpoint_that_is_no_address(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(Tiny("small", images(), origin("somebody/small")))
    monkeypatch.setattr(constants, "ENDPOINT", "hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"no connection to hub.example \(ValueError: unknown url type"):
        load("small")


def by_file(repository: Path, files: dict[str, str]) -> str:
    lines = ", ".join(f'"small/{name}" = "{value}"' for name, value in files.items())
    return origin(repository) + f"\nfiles = {{ {lines} }}"


def pinned_by_file(repository: Path, served: Tiny) -> Tiny:
    """A dataset whose content is not known, pinned by the files that the repository serves."""
    write_repository(repository, served)
    names = {split: f"{split}-00000-of-00001.parquet" for split in served.splits}
    hashes = {split: hashlib.sha256((repository / "small" / names[split]).read_bytes()).hexdigest() for split in names}
    content = {split: f"file:{value}" for split, value in hashes.items()}
    return Tiny("small", served.splits, by_file(repository, {names[s]: hashes[s] for s in names}), content)


def test_pinned_by_its_files(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = pinned_by_file(tmp_path / "repository", Tiny("small", images(), ""))
    install(tiny)
    for source in (f"hub {tmp_path / 'repository'}@{REVISION}", "cache "):
        dataset = load("small")
        assert dataset.source.startswith(source)
        for split, (features, labels) in tiny.splits.items():
            np.testing.assert_array_equal(dataset.features[split], features)
            np.testing.assert_array_equal(dataset.labels[split], labels)
        load.cache_clear()

    # The folder may hold the published files, and nothing else.
    (tmp_path / "data" / "small").mkdir(parents=True)
    for split in tiny.splits:
        published = tmp_path / "repository" / "small" / f"{split}-00000-of-00001.parquet"
        (tmp_path / "data" / "small" / f"{split}.parquet").write_bytes(published.read_bytes())
    monkeypatch.setenv("LOSSBOARD_DATA", str(tmp_path / "data"))
    assert load("small").source == str(tmp_path / "data" / "small")
    load.cache_clear()
    write_parquet(tmp_path / "data" / "small" / "test.parquet", *tiny.splits["test"])
    with pytest.raises(WrongContent, match=r"(?s)small/test.*expected  file:.*found     file:"):
        load("small")


def test_another_file_than_pinned(tmp_path: Path, install: Install) -> None:
    install(pinned_by_file(tmp_path / "repository", Tiny("small", images(), "")))
    path = tmp_path / "repository" / "small" / "test-00000-of-00001.parquet"
    write_parquet(path, *images()["test"])
    with pytest.raises(WrongContent, match=rf"(?s)small/test.*hub .*@{REVISION}, split test.*found     file:"):
        load("small")
    assert not (tmp_path / "cache").exists()
    path.unlink()
    with pytest.raises(DataError, match=rf"hub .*@{REVISION}: small/test-00000-of-00001.parquet does not exist"):
        load("small")


def test_the_download_of_a_file_is_pinned(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, empty_hub: list[str]
) -> None:
    tiny = pinned_by_file(tmp_path / "repository", Tiny("small", images(), ""))
    install(dataclasses.replace(tiny, origin=tiny.origin.replace(str(tmp_path / "repository"), "somebody/small")))
    calls = []

    def recorded(repository: str, name: str, **options: object) -> str:
        calls.append((repository, name, options))
        return str(tmp_path / "repository" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", recorded)
    load("small")
    options = {"repo_type": "dataset", "revision": REVISION}
    names = [f"small/{split}-00000-of-00001.parquet" for split in ("train", "test")]
    assert calls == [("somebody/small", name, options) for name in names]


def test_a_file_that_cannot_be_downloaded(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, empty_hub: list[str]
) -> None:
    def missing(*arguments: object, **options: object) -> str:
        raise FileNotFoundError(f"404 for {arguments[1]}")

    tiny = pinned_by_file(tmp_path / "repository", Tiny("small", images(), ""))
    install(dataclasses.replace(tiny, origin=tiny.origin.replace(str(tmp_path / "repository"), "somebody/small")))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
    with pytest.raises(DataError, match=r"small/train-\S+ cannot be downloaded: FileNotFoundError: 404"):
        load("small")


def test_columns_with_other_names(tmp_path: Path, install: Install) -> None:
    tiny = Tiny(
        "small", images(), 'columns = { features = "img", label = "fine_label" }\n' + origin(tmp_path / "other")
    )
    install(tiny)
    write_repository(tmp_path / "other", tiny)
    for split in tiny.splits:
        path = tmp_path / "other" / "small" / f"{split}-00000-of-00001.parquet"
        renamed = datasets.Dataset.from_parquet(str(path)).rename_columns({"image": "img", "label": "fine_label"})
        renamed.add_column("label", [0] * len(renamed)).to_parquet(str(path))
    dataset = load("small")
    for split, (features, labels) in tiny.splits.items():
        np.testing.assert_array_equal(dataset.features[split], features)
        np.testing.assert_array_equal(dataset.labels[split], labels)


def test_mnist_is_pinned_to_a_commit_and_its_files() -> None:
    pin = pins()["mnist"]
    assert (pin.hub, pin.revision) == ("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c")
    assert list(pin.files) == ["mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet"]

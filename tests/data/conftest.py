"""A look-up that starts from an empty machine in every test, and pins of small datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_datasets import PINS, Install, Tiny, idx_origin, images, nowhere, tabular

from lossboard.data import Pin, load, pins


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No folder of data, an empty cache, nothing remembered in the process."""
    monkeypatch.delenv("LOSSBOARD_DATA", raising=False)
    monkeypatch.setenv("LOSSBOARD_CACHE", str(tmp_path / "cache"))
    load.cache_clear()
    yield
    load.cache_clear()
    pins.cache_clear()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Replace the pins by those of the given datasets; returns the first one's."""

    def replace(*datasets: Tiny) -> Pin:
        path = tmp_path / "pins.toml"
        path.write_text("\n".join(dataset.entry() for dataset in datasets))
        monkeypatch.setattr(PINS, "PATH", path)
        pins.cache_clear()
        load.cache_clear()
        return pins()[datasets[0].name]

    return replace


@pytest.fixture
def table(tmp_path: Path, install: Install) -> Tiny:
    """A tabular dataset that only Parquet files can provide."""
    tiny = Tiny("table", tabular(), nowhere(tmp_path))
    install(tiny)
    return tiny


@pytest.fixture
def pictures(tmp_path: Path, install: Install) -> Tiny:
    """An image dataset from IDX files that do not exist: only Parquet files can provide it."""
    tiny = Tiny("pictures", images(), idx_origin(tmp_path / "none"))
    install(tiny)
    return tiny

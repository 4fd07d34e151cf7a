"""The third step for datasets that lie in plain files: download, unpack, parse; the first address that works wins."""

from __future__ import annotations

import functools
import gzip
import http.client
import io
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from lossboard.data import compress, content, formats
from lossboard.data.errors import NotThere, reason
from lossboard.data.pins import Pin

if TYPE_CHECKING:
    import numpy as np

TIMEOUT_S = 10.0  # for the connection and for each read; a dataset has up to three addresses a file
BROKEN = (OSError, http.client.HTTPException, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


def load(pin: Pin) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Verified features and labels of each split, and the addresses they came from.

    Raises NotThere, with every address tried, where a file cannot be had, and DataError where the content differs.
    """
    download_once = functools.cache(download)  # two files may lie in one archive
    parsed, used = {}, []
    for file, candidates in pin.addresses.items():
        get = functools.partial(_parsed, pin, file, download_once)
        parsed[file], address = _first(candidates, get)
        used.append(address)
    source = " and ".join(dict.fromkeys(used))
    splits = formats.assemble(pin, parsed, source)
    mend = f"The address serves other data than was pinned: put verified files into $LOSSBOARD_DATA/{pin.name}/ instead"
    for split, (features, labels, encoded) in splits.items():
        content.check(pin, split, features, labels, source, mend, encoded)
    return {split: (features, labels) for split, (features, labels, _) in splits.items()}, source


def _parsed(pin: Pin, file: str, fetch: Callable[[str], bytes], address: str) -> formats.Parsed:
    return formats.parse(pin, file, unpack(address, fetch))


def _first(candidates: tuple[str, ...], get: Callable[[str], formats.Parsed]) -> tuple[formats.Parsed, str]:
    tried = []
    for address in candidates:
        try:
            return get(address), address
        except BROKEN as error:
            tried.append((address, reason(error)))
    raise NotThere(*tried)


def download(url: str) -> bytes:
    """The bytes at an http, https or file address; raises OSError or HTTPException, also for half an answer."""
    request = urllib.request.Request(url, headers={"User-Agent": "lossboard"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return response.read()


def unpack(address: str, fetch: Callable[[str], bytes] = download) -> bytes:
    """The file at an address: `archive.zip#member` out of a zip archive, gzip and .Z by their first bytes."""
    url, _, member = address.partition("#")
    data = fetch(url)
    if member:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(member)
    if data.startswith(compress.MAGIC):
        return compress.decompress(data)
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data

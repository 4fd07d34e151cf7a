"""``lossboard export``: everything behind the numbers as one archive, fit to be deposited under a DOI.

The code, pins, constraints and published records of the commit that is checked out, and ``MANIFEST.json``: what the
records are of, the environments that they were made in, the content of the datasets, and the SHA-256 of every file. A
function of the commit: two exports have the same bytes, whoever makes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossboard import board, paths, protocol, records
from lossboard.errors import CheckFailed

SCHEMA = 1


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    files: int
    records: int
    superseded: int  # batches of which no record counts any more


def export(out: Path | None = None) -> Exported:
    """Write the archive of the commit that is checked out, to ``.lossboard/`` if no file is named.

    Raises:
        CheckFailed: no git, results that are not committed, or a bad batch among them.
    """
    commit, seconds = _git("log", "-1", "--format=%H %ct").decode().split()
    if _git("status", "--porcelain", "--", "results"):
        raise CheckFailed("results/ is not as it was committed: commit it, or restore it, and export again")
    files = _committed()
    manifest = _manifest(commit, files)
    files["MANIFEST.json"] = (json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n", False)
    path = out or paths.local() / f"lossboard-{commit[:12]}.tar"
    records.write_atomically(path, _tar(files, f"lossboard-{commit[:12]}", int(seconds)))
    count = sum(suite["records"] for suite in manifest["suites"].values())
    return Exported(path, len(files), count, sum(len(suite["superseded"]) for suite in manifest["suites"].values()))


def _git(*args: str) -> bytes:
    try:
        return subprocess.run(["git", *args], cwd=paths.root(), capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        raise CheckFailed(f"export needs git, for the commit that the archive is of: {reason}") from error


Files = dict[str, tuple[bytes, bool]]  # name -> content, and whether it can be executed


def _committed() -> Files:
    """The plain files of the commit."""
    found: Files = {}
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", "HEAD"))) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name] = (file.read(), bool(member.mode & 0o100))
    return found


def _tar(files: Files, folder: str, seconds: int) -> bytes:
    """A tar with these files in order, without owners, all of one time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (content, executable) in sorted(files.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), seconds, 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


# -- the manifest ----------------------------------------------------------------------------------


def _manifest(commit: str, files: Files) -> dict[str, Any]:
    environments: Counter[str] = Counter()
    data: dict[str, set[str]] = {}
    suites = {}
    for name in protocol.available():
        suite = protocol.load(name)
        batches = _batches(name)
        for batch in batches.values():
            environments[json.dumps(dict(batch.header.env), sort_keys=True)] += 1
            for dataset, digest in batch.header.data.items():
                data.setdefault(dataset, set()).add(digest)
        suites[name] = _of_suite(suite, batches)
    return {
        "schema": SCHEMA,
        "commit": commit,
        "suites": suites,
        "environments": [{**json.loads(text), "batches": count} for text, count in sorted(environments.items())],
        "data": {dataset: sorted(digests) for dataset, digests in data.items()},
        "files": {name: hashlib.sha256(content).hexdigest() for name, (content, _) in files.items()},
    }


def _batches(suite: str) -> dict[str, records.Batch]:
    """The published batches by name, retracted ones too."""
    found = [records.read_batch(path) for path in sorted((paths.results() / suite).glob("*/*.jsonl"))]
    return {batch.path.stem: batch for batch in found}


def _of_suite(suite: protocol.Suite, batches: Mapping[str, records.Batch]) -> dict[str, Any]:
    gone = records.retracted(paths.results()).keys() & batches.keys()
    known = [record for name, batch in batches.items() if name not in gone for record in batch.records]
    best: set[str] = set()
    for machine in {record.header.machine for record in known if record.header}:
        found = records.resolve(records.of_machine(known, machine), board.currency(suite))
        best |= {record.header.file for record in found.values() if record.header}
    return {
        "version": suite.version,
        "records": sum(len(batch.records) for batch in batches.values()),
        "methods": len({batch.method for batch in batches.values()}),
        "batches": len(batches),
        "retracted": sorted(gone),
        "superseded": sorted(batches.keys() - best - gone),
    }

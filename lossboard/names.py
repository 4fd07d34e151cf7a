"""File names on the site for ids that came with a contribution: the id itself where that is safe, else a hash."""

from __future__ import annotations

import hashlib
import re

SAFE = re.compile(r"[a-z][a-z0-9_]*")
PART = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*")  # of the name of a task, dataset or track
LONGEST = 100
# What every record has beside its metrics, whose names must be others.
RESERVED = frozenset({"method", "task", "id", "seed", "trial", "params", "status", "seconds", "bits", "error"})
PAGES = ("index", "protocol", "claims", "downloads")  # of a suite; no method's page may take their place


def page_name(method: str) -> str:
    """The file of a method's page: its id where that is a safe and free name, else a hash.

    >>> page_name("gce")
    'gce.html'
    """
    free = SAFE.fullmatch(method) and len(method) <= LONGEST and method not in PAGES
    return f"{method}.html" if free else f"method-{_hash(method)}.html"


def stem(*parts: str) -> str:
    """Names joined to that of a file without its suffix; a hash where one of them is not safe.

    >>> stem("quick", "digits/uniform-0.3")
    'quick-digits-uniform-0.3'
    """
    pieces = [piece for part in parts for piece in part.split("/")]
    if all(map(PART.fullmatch, pieces)) and sum(map(len, pieces)) <= LONGEST:
        return "-".join(pieces)
    return f"x-{_hash(chr(0).join(parts))}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]

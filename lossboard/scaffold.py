"""``lossboard new``: the one file of a new method, in the form that its kind has, to be filled in."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from lossboard import paths
from lossboard.errors import UsageError
from lossboard.protocol import nearest
from reference.methods import PACKAGES

FORMS = Path(__file__).parent / "forms"


def kinds() -> list[str]:
    """What there is a form of."""
    return sorted(path.stem for path in FORMS.glob("*.txt"))


def new(kind: str, id: str) -> Path:
    """Write the file of a new method and return its path; nothing is ever overwritten.

    Raises:
        UsageError: there is no form of this kind, the id is none, or there is such a file.
    """
    if kind not in kinds():
        raise UsageError(f"no form of a '{kind}'; {nearest(kind, kinds())}")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", id):
        raise UsageError(f"'{id}': an id is lower-case letters, digits and underscores, a letter first, at most 40")
    text = Template((FORMS / f"{kind}.txt").read_text("utf-8"))
    path = _folder(kind) / f"{id}.py"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.substitute(id=id, title=id.replace("_", " ").capitalize()))
    except FileExistsError:
        raise UsageError(f"{path} is there already; take another id, or edit it") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path


def _folder(kind: str) -> Path:
    """Where files of a kind live: the package of its name, or the second one of losses, of what corrects them."""
    package = PACKAGES["loss"][1] if kind == "correction" else PACKAGES[kind][0]
    return paths.root().joinpath(*package.split("."))

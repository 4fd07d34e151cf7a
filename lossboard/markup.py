"""How values look on a page: filters of the templates. What came with a contribution is escaped, or an allow-list."""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup, escape

from lossboard.board import Board, Row, Score
from lossboard.scales import Scale
from reference.methods import Method

Interval = tuple[float, float]  # mean and half-width of its 95 % t interval (nan: not known)


def interval(score: Score | None) -> Interval | None:
    return (score.mean, score.half) if score else None


def score(interval: Interval | None, scale: Scale) -> Markup:
    """'87.3 ±0.4', parted so that a column lines up; a dash for None."""
    if interval is None or not math.isfinite(interval[0]):
        return Markup('<span class="none">–</span>')
    return Markup(f'{scale.text(interval[0])}<span class="half">{scale.half(*interval)}</span>')


def total(row: Row, shown: Board) -> Interval | None:
    """The mean of a row over the tasks of its board; None where a task is missing: it would be of other tasks."""
    return (row.score, row.half) if len(row.tasks) == len(shown.tasks) else None


def apart(interval: Interval, scale: Scale) -> Markup:
    """A difference as its scale says it: in percentage points with the sign, or a factor."""
    return Markup(f'{scale.difference(interval[0])}<span class="half">{scale.half(*interval)}</span>')


def groups(shown: Board) -> list[tuple[int | None, list[Row]]]:
    """Tie groups in order, best first; unranked rows last, as group None."""
    return [(group, list(rows)) for group, rows in itertools.groupby(shown.rows, key=lambda row: row.group)]


def number(value: float) -> str:
    return f"{value:.4g}"


def share(part: float) -> str:
    """A part of all in whole percent, rounded down: '100 %' means all of it."""
    return f"{math.floor(100 * part + 1e-9)} %"


def flags(method: Method) -> list[str]:
    """What a method declares of itself."""
    declared = [flag for flag in ("symmetric", "bounded", "batchwise") if getattr(method, flag)]
    return declared + [f"needs {name}" for name in method.supplied]


def spell(part: Any) -> str:
    """A pinned part as words: 'mlp, layers 2', without what is 0 or empty."""
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    told = {key: value for key, value in values.items() if value not in (0, "", ())}
    return ", ".join(f"{value}" if key == "kind" else f"{key} {value}" for key, value in told.items())


PARTS = {"corruption": "Labels", "model": "Network", "recipe": "Training"}  # sections, as pages call them


def part_name(section: str) -> str:
    """What a page calls a section of which tasks are made."""
    return PARTS.get(section, section.replace("_", " ").capitalize())


UNITS = {  # what the name of a metric ends with -> steps of its unit
    "_s": (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)),
    "_bytes": (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)),
}
PLAIN = {
    "_bits": "{:.2f}",
    "passes": "{:,.0f}",
    "ratio": "{:.1f}",
    "power": "{:.2f}",
    "nll": "{:.3f}",
    "perplexity": "{:.2f}",
}  # what is no share


def metric(value: float, name: str) -> str:
    """A metric in the unit that its name ends with; errors in powers of ten, counts as they are, shares in percent
    without the sign.

    >>> metric(0.00213, "forward_s"), metric(3 * 2**20, "extra_bytes"), metric(2.5e-7, "error"), metric(0.125, "ece")
    ('2.13 ms', '3 MiB', '2.5e-07', '12.5')
    >>> metric(4.25, "weight_bits"), metric(125.3, "passes"), metric(7.91, "ratio")
    ('4.25', '125', '7.9')
    """
    for ending, steps in UNITS.items():
        if name.endswith(ending):
            unit, size = next((step for step in steps if abs(value) >= step[1]), steps[-1])
            return f"{value / size:.3g} {unit}"
    if name.endswith("error"):
        return f"{value:.1e}"
    for ending, form in PLAIN.items():
        if name.endswith(ending):
            return form.format(value)
    return f"{100 * value:.1f}" + (" %" if name.endswith("_share") else "")


def prose(text: str) -> Markup:
    """Docstring text: ``code`` as code, arrows as arrows, arXiv numbers as links, the rest escaped."""
    safe = re.sub(r"``(.+?)``", r"<code>\1</code>", str(escape(text.replace("->", "→"))))
    return Markup(re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', safe))


_CITED = re.compile(
    r"(?P<what>[^()]+) \((?P<who>.+), (?P<where>[^,]+?) (?P<year>\d{4}), arXiv:(?P<arxiv>\d{4}\.\d{4,5})\)"
)


def bibtex(method: Method) -> str:
    """An entry for the paper of a method, as far as its citation says it; '' where that names no arXiv number.

    The citation has surnames only, and what the method is called instead of the paper's title: that is a note.
    """
    found = _CITED.match(method.citation)
    if not found or set("{}\\") & set(method.citation):
        return ""
    who = found["who"].removesuffix(" et al.")
    names = re.split(r", | & ", who) + (["others"] if who != found["who"] else [])
    key = re.sub(r"\W", "", names[0].split()[-1].lower(), flags=re.ASCII) + found["year"]
    fields = {"author": " and ".join(names), "year": found["year"], "booktitle": found["where"]}
    fields |= {"eprint": found["arxiv"], "archivePrefix": "arXiv", "note": found["what"]}
    return f"@misc{{{key},\n" + "".join(f"  {name} = {{{text}}},\n" for name, text in fields.items()) + "}"


def origin(dataset: str) -> dict[str, Any]:
    """Where a dataset comes from, by its pin."""
    from lossboard.data import pins

    pin = pins()[dataset]
    hosts = dict.fromkeys(url.split("/")[2] for urls in pin.addresses.values() for url in urls[:1])
    hub = f"{pin.hub} at {(pin.revision or '')[:12]}" if pin.hub else ""
    place = f"bundled: {pin.bundled}" if pin.bundled else hub or ", ".join(hosts)
    return {"pin": pin, "rows": sum(pin.splits.values()), "place": place}


def code_path(method: Method) -> str:
    """The file of a method, relative to the checkout (or to the folder its package is installed in)."""
    module = method.described.__module__
    path = module.replace(".", "/")
    is_package = Path(sys.modules[module].__file__ or "").name == "__init__.py"
    return f"{path}/__init__.py" if is_package else f"{path}.py"


# -- formulas ----------------------------------------------------------------------------------------------------------

_TAGS = re.compile(
    "math|mrow|mi|mn|mo|ms|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mmultiscripts"
    "|mtable|mtr|mtd|mstyle|mpadded|mphantom"
)
_ATTRIBUTES = re.compile(
    "xmlns|display|mathvariant|stretchy|fence|form|separator|accent|accentunder|movablelimits|largeop|lspace|rspace"
    "|minsize|maxsize|width|height|depth|linethickness|displaystyle|scriptlevel|columnalign|columnspacing|rowspacing"
)


@cache
def mathml(latex: str) -> Markup | None:
    """A formula as MathML, of known tags and attributes only; None (show the LaTeX) if it cannot be converted."""
    from latex2mathml.converter import convert_to_element

    try:
        root = convert_to_element(latex, display="block")
    except Exception:  # it stumbles over LaTeX it does not know in many ways, without a common base
        return None
    for node in root.iter():
        node.text = html.unescape(node.text or "")
        if not _TAGS.fullmatch(node.tag) or node.text.startswith("\\"):
            return None
        node.attrib = {key: value for key, value in node.attrib.items() if _ATTRIBUTES.fullmatch(key)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


FILTERS = {
    "apart": apart,
    "bibtex": bibtex,
    "code_path": code_path,
    "flags": flags,
    "groups": groups,
    "interval": interval,
    "mathml": mathml,
    "metric": metric,
    "number": number,
    "origin": origin,
    "part_name": part_name,
    "prose": prose,
    "score": score,
    "share": share,
    "spell": spell,
    "total": total,
}

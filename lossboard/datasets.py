"""What the page of a dataset shows: its pin, the noise of its labels as matrices, samples where they are bundled."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lossboard import protocol
from lossboard.data import Pin, load, pins
from lossboard.views import corruption

SIDE = 180  # pixels of a drawn matrix
SAMPLES = 10


@dataclass(frozen=True)
class Noise:
    """One corruption of a dataset's labels. ``matrix`` is drawn; it is None where the noise depends on the sample."""

    name: str
    kind: str
    rate: float
    matrix: Markup | None
    words: str
    pairs: tuple[tuple[str, str], ...]  # (class, class it is mistaken for), where each has at most one
    tasks: tuple[tuple[str, protocol.Task], ...]  # (track, task)
    rows: str = ""  # whose labels it is of, in words


ROWS = {"": "training and validation rows", "train": "training rows alone", "all": "all rows, test rows too"}


UNDRAWN = {  # kinds of corruption that change no label into another
    "everything": "All labels are seen as they are.",
    "single_positive": "Of each row one label that holds is seen, and none that does not.",
    "random_entries": "Entries of the table of labels are hidden at random.",
    "long_tail": "Labels are right; the larger a class's number, the fewer of its rows are kept.",
}


@dataclass(frozen=True)
class DatasetView:
    """A dataset of a suite."""

    pin: Pin
    tasks: tuple[tuple[str, protocol.Task], ...]
    noises: tuple[Noise, ...]
    samples: Markup | None


def datasets(suite: protocol.Suite) -> dict[str, DatasetView]:
    """The datasets of a suite by name, in the order in which its tracks come to them."""
    tasks: dict[str, list[tuple[str, protocol.Task]]] = defaultdict(list)
    for track in suite.tracks.values():
        for task in (task for task in track.tasks if task.dataset):
            tasks[task.dataset].append((track.name, task))
    return {name: _dataset(pins()[name], own) for name, own in tasks.items()}


def _dataset(pin: Pin, tasks: Sequence[tuple[str, protocol.Task]]) -> DatasetView:
    kinds: dict[str, list[tuple[str, protocol.Task]]] = defaultdict(list)
    for track, task in ((track, task) for track, task in tasks if "corruption" in task.parts):
        kinds[corruption(task.name)].append((track, task))
    noises = tuple(_noise(pin, name, own) for name, own in kinds.items())
    return DatasetView(pin, tuple(tasks), noises, samples(pin))


def _noise(pin: Pin, name: str, tasks: Sequence[tuple[str, protocol.Task]]) -> Noise:
    how = tasks[0][1].corruption
    found = matrix(how, pin)
    drawn = draw(found, f"Transition matrix of {name} on {pin.name}") if found and how.rate else None
    told, pairs = describe(found, pin.class_names) if found else (_no_matrix(how), ())
    return Noise(name, how.kind, how.rate, drawn, told, pairs, tuple(tasks), ROWS[how.rows])


def _no_matrix(how: protocol.Corruption) -> str:
    if how.people:
        return "What people answered: nothing is drawn."
    return UNDRAWN.get(how.kind, "No matrix: it depends on the sample.")


# -- matrices ----------------------------------------------------------------------------------------------------------

Matrix = list[list[float]]  # a row a clean label: the probability of each label that is seen


def matrix(how: protocol.Corruption, pin: Pin) -> Matrix | None:
    """The probabilities of noisy labels given clean ones; None where they depend on the sample or are people's."""
    from reference import noise

    if how.kind not in noise.TRANSITIONS:
        return None
    rows: Matrix = noise.transition(how.kind, pin.classes, how.rate, pin.name).tolist()
    return [[float(f"{value:.6g}") for value in row] for row in rows]


def describe(rows: Matrix, names: Sequence[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A matrix in words, and the class that each class is mistaken for, where every class has at most one.

    >>> describe([[0.7, 0.3], [0.0, 1.0]], ["cat", "dog"])
    ('A label stays with a probability of 70 % to 100 %.', (('cat', 'dog'),))
    """
    stay = sorted({rows[i][i] for i in range(len(rows))})
    ends = " to ".join(dict.fromkeys(f"{100 * value:.4g} %" for value in (stay[0], stay[-1])))
    wrong = [[j for j, value in enumerate(row) if j != i and value > 0] for i, row in enumerate(rows)]
    if not any(wrong):
        return "Every label stays.", ()
    told = f"A label stays with a probability of {ends}."
    if max(map(len, wrong)) == 1:
        return told, tuple((names[i], names[js[0]]) for i, js in enumerate(wrong) if js)
    others = {rows[i][j] for i, js in enumerate(wrong) for j in js}
    if len(others) == 1:
        told += f" Every other label has {100 * others.pop():.3g} %."
    return told, ()


def draw(rows: Matrix, label: str) -> Markup:
    """A matrix as a square of cells, the darker the more probable: the commonest value is the ground, others a path."""
    size = len(rows)
    counts = Counter(value for row in rows for value in row)
    ground = counts.most_common(1)[0][0]
    marks = []
    for value in sorted(counts.keys() - {ground}):
        cells = "".join(
            f"M{j} {i}h1v1h-1z" for i, row in enumerate(rows) for j, each in enumerate(row) if each == value
        )
        marks.append(f'<path d="{cells}" fill-opacity="{_ink(value)}"/>')
    name = escape(label)
    return Markup(
        f'<svg class="matrix" role="img" aria-label="{name}" viewBox="0 0 {size} {size}" width="{SIDE}" '
        f'height="{SIDE}"><title>{name}</title><rect width="{size}" height="{size}" '
        f'fill-opacity="{_ink(ground)}"/>{"".join(marks)}</svg>'
    )


def _ink(value: float) -> str:
    """Opacity of a probability: its root, so that small ones can be told from none."""
    return f"{math.sqrt(max(value, 0.0)):.3g}"


# -- samples -----------------------------------------------------------------------------------------------------------


def samples(pin: Pin) -> Markup | None:
    """The first sample of each class as a picture, of data that comes with an installed package and is square.

    Only then is a build the same on every machine: other data may be there or not.
    """
    side = math.isqrt(pin.shape[0]) if len(pin.shape) == 1 else 0
    if not pin.bundled or not side or side * side != pin.shape[0] or pin.classes > SAMPLES:
        return None
    data = load(pin.name)
    split = next(iter(pin.splits))
    features, labels = data.features[split], data.labels[split].tolist()
    top = float(features.max()) or 1.0
    pictures = []
    for place, y in enumerate(range(pin.classes)):
        shades = [float(value) / top for value in features[labels.index(y)].tolist()]
        pictures.append(_picture(shades, side, place * (side + 1)))
    width = pin.classes * (side + 1) - 1
    name = escape(f"The first sample of each class of {pin.name}: {', '.join(pin.class_names)}")
    return Markup(
        f'<svg class="matrix samples" role="img" aria-label="{name}" viewBox="0 0 {width} {side}" '
        f'width="{6 * width}" height="{6 * side}"><title>{name}</title>{"".join(pictures)}</svg>'
    )


def _picture(shades: Sequence[float], side: int, left: int) -> str:
    """Pixels row by row: one path for each shade."""
    paths = []
    for shade in sorted({shade for shade in shades if shade > 0}):
        cells = "".join(f"M{left + i % side} {i // side}h1v1h-1z" for i, value in enumerate(shades) if value == shade)
        paths.append(f'<path d="{cells}" fill-opacity="{shade:.3g}"/>')
    return "".join(paths)

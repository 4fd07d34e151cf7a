"""What a suite pins: tasks, recipes, seeds and tuning budgets, as frozen dataclasses read from ``suite.toml``.

The task id is the hash of everything that decides a number: suite, version, data pin, corruption, split, model and
recipe. Seeds, the list of tasks, tracks, budgets and metrics are not in it, so adding one of them orphans no record.
Entries equal to a field's default are left out of the hash, so a new field with a default changes no id either.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import hashlib
import importlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType, ModuleType
from typing import Any

from lossboard import paths
from lossboard.errors import UsageError
from lossboard.names import RESERVED
from lossboard.scales import SCALES
from reference.methods import Method, Range

PEOPLE = "human_"  # kinds of corruption that are labels by people begin so


@dataclass(frozen=True)
class Corruption:
    """How the labels (or, in other suites, the inputs) of a task are damaged; ``kind`` names it in the reference."""

    kind: str
    rate: float = 0.0
    rows: str = ""  # whose labels are damaged: "train", "all", or if empty those of training and validation rows

    def __post_init__(self) -> None:
        _within("rate", self.rate, 0, 1)
        _one_of("rows", self.rows, ("", "train", "all"))

    @property
    def people(self) -> str | None:
        """Which labels by people the kind "human_NAME" needs; None for what is drawn."""
        return self.kind.removeprefix(PEOPLE) if self.kind.startswith(PEOPLE) else None


@dataclass(frozen=True)
class Split:
    """Which rows are for training, validation and test, and how the features are scaled.

    ``random`` shuffles all rows by seed and cuts them at the fractions ``val`` and ``test``; ``official`` keeps the
    dataset's own test rows and takes the fraction ``val`` of the others by seed. ``folds`` keeps the test rows and
    cross-validates on the others in the order they come, 1 / ``val`` folds: seed s is fold s modulo their number, and
    the folds of one round share their noise. ``train`` and ``held_out`` cap the number of rows (0: all).
    """

    kind: str
    val: float
    test: float = 0.0
    train: int = 0
    held_out: int = 0
    scale: str = "standard"  # "standard": mean 0, sd 1 of each feature; "unit": divided by the largest magnitude

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, ("random", "official", "folds"))
        _one_of("scale", self.scale, ("standard", "unit"))
        if not 0 < self.val < 1 or not 0 <= self.test < 1 or self.val + self.test > 1:
            raise UsageError(f"val = {self.val}, test = {self.test}: fractions whose sum is at most 1, val above 0")
        if self.kind == "folds" and abs(1 / self.val - self.folds) > 1e-9:
            raise UsageError(f"val = {self.val}: of 'folds', 1 / val is the number of folds")
        if self.kind == "folds" and self.test:
            raise UsageError(f"test = {self.test}: 'folds' keep the dataset's own test rows; leave it out")

    @property
    def folds(self) -> int:
        """How many folds a round of cross-validation has; 1 where a split draws its own rows for each seed."""
        return round(1 / self.val) if self.kind == "folds" else 1


@dataclass(frozen=True)
class Model:
    """The network: ``kind`` names it in ``reference.models``; ``width`` 0 is the smaller of features and classes.

    Of a network that comes trained, ``repository`` is its id on the Hugging Face hub (or a folder), ``revision`` the
    commit there.
    """

    kind: str
    layers: int = 0
    width: int = 0
    repository: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        _within("layers", self.layers, 0, 1000)
        _within("width", self.width, 0, 100_000)
        if self.repository and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise UsageError(f"repository = '{self.repository}' needs a revision: the 40 hex digits of a commit")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum on batches of equal size (the rest of an epoch is left out).

    ``clip`` is the largest norm of a gradient (0: any). ``augment`` is what is done to training images: "crop-flip"
    shifts by up to 4 pixels and mirrors, "crop-flip-turn" turns by up to 20 degrees too. ``precision`` "bfloat16" is
    mixed precision.
    """

    epochs: int
    batch: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"  # "cosine" to 0; "step": a tenth after half and a hundredth after three quarters
    nesterov: bool = False
    clip: float = 0.0
    augment: str = ""
    precision: str = "float32"
    every: int = 1  # epochs between evaluations; the last epoch is always evaluated

    def __post_init__(self) -> None:
        _one_of("schedule", self.schedule, ("cosine", "step", "constant"))
        _one_of("augment", self.augment, ("", "crop-flip", "crop-flip-turn"))
        _one_of("precision", self.precision, ("float32", "bfloat16"))
        _within("clip", self.clip, 0, 1e9)
        _within("momentum", self.momentum, 0, 1)
        _within("weight_decay", self.weight_decay, 0, 1)
        _within("every", self.every, 1, self.epochs)
        if self.epochs < 1 or self.batch < 1 or self.batch % 16 or self.lr <= 0:
            raise UsageError("epochs >= 1, lr > 0, and batch a multiple of 16 (equal bits in every slot of a fleet)")

    def evaluates(self, epoch: int) -> bool:
        """Whether this epoch (0 to epochs - 1) ends with an evaluation."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs

    def factor(self, epoch: int) -> float:
        """What the learning rate is multiplied by in this epoch (0 to epochs - 1)."""
        done = epoch / self.epochs
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 if self.schedule == "constant" or done < 0.5 else 0.1 if done < 0.75 else 0.01


@dataclass(frozen=True)
class Budget:
    """The tuning every method gets. Trial 0 is the author's default at the recipe's learning rate.

    Either ``rates`` lists the learning rates of the further trials, all at the author's defaults, or ``trials`` is
    their number, drawn with the method's own search space from one quasi-random (Halton) sequence, with the learning
    rate between ``low`` and ``high``. ``settings`` is for protocols of papers, which tune each method over a grid of
    its own: method -> hyperparameters that are tried at every learning rate beside the defaults.
    """

    rates: tuple[float, ...] = ()
    trials: int = 0
    low: float = 0.0
    high: float = 0.0
    settings: Mapping[str, Sequence[Mapping[str, float]]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))
        if len({*self.rates}) < len(self.rates):
            raise UsageError(f"rates = {list(self.rates)}: one stands twice")
        if bool(self.rates) and bool(self.trials):
            raise UsageError("give 'rates' (a grid) or 'trials' (quasi-random), not both")
        if self.trials and not 0 < self.low < self.high:
            raise UsageError(f"'trials' needs 0 < low < high for the learning rate, found {self.low}, {self.high}")
        if any(rate <= 0 for rate in self.rates) or self.trials < 0:
            raise UsageError("learning rates must be positive, 'trials' not negative")

    def learning_rates(self, rate: float | None, method: str) -> tuple[float, ...]:
        """Of each trial, the first at ``rate`` (nan: nothing is trained); the same for methods without settings."""
        every = (math.nan if rate is None else rate, *self.rates)
        return (*every, *(point["lr"] for point in self._points({})), *every * len(self.settings.get(method, ())))

    def of(self, method: Method, rate: float | None) -> tuple[dict[str, float], ...]:
        """The hyperparameters of each trial of a method, the learning rate among them as ``lr`` (None: there is none).

        Raises:
            UsageError: a setting names a hyperparameter that the method does not have.
        """
        if rate is None:
            return (dict(method.defaults),)
        default = {"lr": rate, **method.defaults}
        settings = self.settings.get(method.id, ())
        for key in sorted({key for setting in settings for key in setting} - method.defaults.keys()):
            raise UsageError(f"settings of '{method.id}': unknown '{key}'; {nearest(key, method.defaults)}")
        grid = [{**default, **setting, "lr": lr} for setting in ({}, *settings) for lr in (rate, *self.rates)]
        first, rest = grid[: 1 + len(self.rates)], grid[1 + len(self.rates) :]
        return (*first, *(default | point for point in self._points(method.search)), *rest)

    def _points(self, search: Mapping[str, Range]) -> list[dict[str, float]]:
        """The quasi-random trials over the learning rate and a method's search space."""
        ranges = dict(sorted(search.items()))
        space = {"lr": Range(self.low, self.high, log=True), **ranges} if self.trials else {}
        rows = _halton(len(space), self.trials)
        return [{key: box.at(u) for (key, box), u in zip(space.items(), row, strict=True)} for row in rows]


PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)


def _halton(dimensions: int, count: int) -> list[list[float]]:
    """The first points of the Halton sequence after 0 and 1/2: the middle is what the default stands for.

    Coordinate b of point n has the digits of n in the b-th prime, mirrored at the point. scipy has the same, tested
    equal, but takes longer to import than a plan to make.
    """

    def mirrored(n: int, base: int) -> float:
        value, scale = 0.0, 1.0
        while n:
            n, digit = divmod(n, base)
            scale /= base
            value += digit * scale
        return value

    return [[mirrored(n, base) for base in PRIMES[:dimensions]] for n in range(2, count + 2)]


@dataclass(frozen=True)
class Task:
    """What methods are compared on. ``parts`` are the entries of the suite's sections that it is made of.

    ``dataset`` is empty where the suite makes its own inputs; ``data`` is the digest of the dataset's pinned content.
    """

    suite: str
    version: int
    kind: str  # of the methods that enter it
    dataset: str
    data: str
    parts: Mapping[str, Any] = dataclasses.field(hash=False)  # section -> entry
    name: str  # as people say it: dataset/corruption, or kind/entry where there is no dataset

    @functools.cached_property
    def id(self) -> str:
        """12 hex digits over everything that decides a number."""
        pinned = {key: _pinned(part) for key, part in self.parts.items()}
        data = {"data": [self.dataset, self.data]} if self.dataset else {"kind": self.kind}
        return digest({"suite": self.suite, "version": self.version, **data, **pinned})

    def having(self, **parts: Any) -> Task:
        """The same with other entries in some sections."""
        return replace(self, parts=MappingProxyType({**self.parts, **parts}))

    @property
    def corruption(self) -> Corruption:
        return self.parts["corruption"]

    @property
    def split(self) -> Split:
        return self.parts["split"]

    @property
    def model(self) -> Model:
        return self.parts["model"]

    @property
    def recipe(self) -> Recipe:
        return self.parts["recipe"]

    @property
    def folds(self) -> int:
        """How many folds share their noise: 1 but for cross-validation."""
        return self.split.folds if "split" in self.parts else 1

    @property
    def rate(self) -> float | None:
        """The learning rate of the recipe; None where nothing is trained."""
        return self.recipe.lr if "recipe" in self.parts else None

    @property
    def stratum(self) -> str:
        """What shares draws: tasks of one dataset share splits, weights and batches; others share nothing."""
        return self.dataset or self.name


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one task with one seed and one tuning trial: what is planned, recorded, skipped."""

    method: str
    task: Task
    seed: int
    trial: int
    params: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str, int, int]:
        return (self.method, self.task.id, self.seed, self.trial)


@dataclass(frozen=True)
class Unit:
    """Cells that run together in one process; ``cost`` is about their processor seconds: the largest run first."""

    cells: tuple[Cell, ...]
    cost: float


@dataclass(frozen=True)
class Block:
    """Tasks that share seeds, a tuning budget and the methods that enter them: those of their kind.

    If ``methods`` or ``tags`` are given, only these and those so tagged; never those with a tag of ``without``.
    """

    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]
    budget: Budget
    board: str = ""  # what ranks its methods: blocks of a track with one name; '': the kind's
    methods: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.tasks[0].kind

    @property
    def ranked_on(self) -> str:
        """The name of its board."""
        return self.board or self.kind

    def enters(self, method: Method) -> bool:
        """Whether a method is measured on these tasks."""
        if method.kind != self.kind or set(self.without) & set(method.tags):
            return False
        return not (self.methods or self.tags) or method.id in self.methods or bool(set(self.tags) & set(method.tags))


@dataclass(frozen=True)
class Track:
    """How far a suite is run."""

    name: str
    summary: str
    blocks: tuple[Block, ...]
    methods: tuple[str, ...] = ()  # those it is for; none: every method
    part_of: str = ""  # of a division: the track that it is cut from
    machine: str = ""  # of a part whose records are one machine's

    @property
    def pinned(self) -> str:
        """What ``--track`` calls it."""
        return self.part_of or self.name

    @property
    def title(self) -> str:
        """What pages call it: of a division the track and the name of its board."""
        return f"{self.part_of}, {self.blocks[0].ranked_on}" if self.part_of else self.name

    @property
    def kind(self) -> str:
        """Of the methods that enter it; of a track of several kinds, the first."""
        return self.blocks[0].kind

    @property
    def divisions(self) -> tuple[Track, ...]:
        """The track cut by boards, of which each kind of methods has one of its own; itself where there is one."""
        names = list(dict.fromkeys(block.ranked_on for block in self.blocks))
        if len(names) == 1:
            return (self,)
        return tuple(self.cut(name, [block for block in self.blocks if block.ranked_on == name]) for name in names)

    @property
    def tunes(self) -> bool:
        """Whether methods have more than their default trial."""
        return any(block.budget != Budget() for block in self.blocks)

    def cut(self, name: str, blocks: Sequence[Block]) -> Track:
        """A part of the track, as a track of its own."""
        return replace(self, name=f"{self.name}-{name}", blocks=tuple(blocks), part_of=self.pinned)

    def on(self, machine: str) -> Track:
        """The track as one machine ran it."""
        slug = f"{re.sub('[^a-z0-9]+', '-', machine.lower()).strip('-')[:50]}-{digest(machine)[:6]}".lstrip("-")
        return replace(self.cut(slug, self.blocks), machine=machine)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task for block in self.blocks for task in block.tasks)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that some block pins."""
        return tuple(sorted({seed for block in self.blocks for seed in block.seeds}))

    def require_seed(self, seed: int) -> None:
        if seed not in self.seeds:
            raise UsageError(f"track '{self.name}' has no seed {seed}; it pins {list(self.seeds)}")


@dataclass(frozen=True)
class Metrics:
    """What a record holds. ``rank`` orders the boards, ``select`` picks each method's trial; larger is better.

    ``scale`` says how values of ``rank`` are averaged and shown, see :mod:`lossboard.scales`.
    """

    rank: str
    select: str
    tolerance: float  # two current records of one cell that differ by more are reported
    columns: Mapping[str, str]  # metric -> what it is
    scale: str = "percent"
    beside: tuple[str, ...] = ()  # metrics that pages show beside the one that ranks
    unsteady: tuple[str, ...] = ()  # metrics that the same code on the same machine need not repeat: times, memory
    series: Mapping[str, str] = field(default_factory=dict)  # numbers for charts alone: name with * and ? -> what it is

    def __post_init__(self) -> None:
        object.__setattr__(self, "beside", tuple(self.beside))
        object.__setattr__(self, "unsteady", tuple(self.unsteady))
        for name in sorted(RESERVED & self.columns.keys()):
            raise UsageError(f"columns: a metric cannot be called '{name}', which is a key of every record; rename it")
        for role in ("beside", "unsteady"):
            for name in getattr(self, role):
                _one_of(role, name, tuple(self.columns))
        _one_of("scale", self.scale, tuple(SCALES))
        for role in ("rank", "select"):
            _one_of(role, getattr(self, role), tuple(self.columns))

    def known(self, name: str) -> bool:
        """Whether a record may have it."""
        return name in self.columns or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.series)


@dataclass(frozen=True)
class Suite:
    """One question with everything it pins."""

    name: str
    version: int
    title: str
    question: str
    controls: Mapping[str, str]  # kind of method -> what is measured beside every other one
    metrics: Metrics
    tracks: Mapping[str, Track]
    alone: bool = False  # a unit has the machine and a process to itself; records of different machines do not compare

    @property
    def control(self) -> str:
        """Of its first kind of methods."""
        return next(iter(self.controls.values()))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of methods that it compares."""
        return tuple(self.controls)

    def track(self, name: str) -> Track:
        """The track, or division of one, of this name."""
        named = {part.name: part for track in self.tracks.values() for part in track.divisions} | dict(self.tracks)
        if name not in named:
            raise UsageError(f"suite '{self.name}' has no track '{name}'; {nearest(name, named)}")
        return named[name]

    @property
    def tasks(self) -> dict[str, Task]:
        """Every task of every track, by id."""
        return {task.id: task for track in self.tracks.values() for task in track.tasks}

    def cells(self, track: Track, methods: Mapping[str, Method], seeds: Sequence[int] | None = None) -> list[Cell]:
        """What the track asks of these methods: method by method, each task, seed and trial."""
        for seed in seeds or ():
            track.require_seed(seed)
        cells = []
        entered = [method for method in methods.values() if not track.methods or method.id in track.methods]
        if methods and not entered:
            raise UsageError(f"track '{track.name}' is for these methods alone: {', '.join(track.methods)}")
        pairs = itertools.product(entered, track.blocks)
        for method, block in ((method, block) for method, block in pairs if block.enters(method)):
            wanted = [seed for seed in block.seeds if seeds is None or seed in seeds]
            for task in block.tasks:
                trials = [MappingProxyType(params) for params in block.budget.of(method, task.rate)]
                cells += [Cell(method.id, task, seed, i, params) for seed in wanted for i, params in enumerate(trials)]
        return cells


SECTIONS: Mapping[str, type] = {
    "corruption": Corruption,
    "split": Split,
    "model": Model,
    "recipe": Recipe,
    "budget": Budget,
}
TRAINED = ("dataset", "corruption", "split", "model", "recipe")  # what a task is made of where a suite does not say


@functools.cache
def suite_module(name: str) -> ModuleType:
    """The code beside a suite's pins: ``group(cells)``, ``run(unit, context)``, and what else it declares."""
    paths.importable()
    return importlib.import_module(f"suites.{name}")


def available() -> list[str]:
    """The suites of this checkout."""
    return sorted(path.parent.name for path in paths.suites().glob("*/suite.toml"))


def load(name: str) -> Suite:
    """The suite of this name, validated.

    Raises:
        UsageError: no such suite, or its suite.toml is wrong; the message names file and key.
    """
    path = paths.suites() / name / "suite.toml"
    if not path.is_file():
        raise UsageError(f"no suite '{name}'; {nearest(name, available())}")
    try:
        return _suite(name, tomllib.loads(path.read_text("utf-8")))
    except (UsageError, ValueError, RecursionError) as error:  # of tomllib too
        raise UsageError(f"{path}: {error}") from error


def _suite(name: str, table: dict[str, Any]) -> Suite:
    parts = _parts(table.get("parts", list(TRAINED)))
    own = [part for part in parts if part not in SECTIONS and part != "dataset"]
    optional = table.get("optional", [])
    if not isinstance(optional, list) or not set(optional) <= set(parts[1:]):
        raise UsageError(f"optional = {optional!r}: a list of those of parts, {parts[1:]}, that tasks may leave out")
    sections = [part for part in parts if part != "dataset"]
    named = table.get("named", sections[:1])
    if not isinstance(named, list) or not named or not set(named) <= set(sections) - set(optional):
        raise UsageError(f"named = {named!r}: those of parts, {sections}, that every task has and that make its name")
    kinds = {**SECTIONS, **_declared(name, own)}
    required = ("name", "version", "title", "question", "control", "metrics", "tracks")
    _keys("the top level", table, (*required, "kind", "parts", "optional", "named", "alone", *kinds), required)
    for key, kind in (("version", int), *((text, str) for text in ("title", "question")), ("alone", bool)):
        if key in table and type(table[key]) is not kind:
            raise UsageError(f"{key} = {table[key]!r} must be {kind.__name__}")
    if table["name"] != name:
        raise UsageError(f"name = '{table['name']}' but the folder is '{name}'")
    controls = _controls(table)
    metrics = _build("[metrics]", Metrics, table["metrics"])
    entries = {
        section: {
            entry: _build(f"[{section}.{entry}]", kind, given)
            for entry, given in _table(f"[{section}]", table.get(section, {})).items()
        }
        for section, kind in kinds.items()
    }
    reading = _Reading(name, table["version"], tuple(parts), tuple(optional), tuple(named), tuple(controls), entries)
    tracks = {key: reading.track(key, given) for key, given in _table("[tracks]", table["tracks"]).items()}
    plain = {key: table[key] for key in ("name", "version", "title", "question")}
    alone = table.get("alone", False)
    return Suite(**plain, controls=controls, metrics=metrics, tracks=MappingProxyType(tracks), alone=alone)


def _parts(parts: Any) -> list[str]:
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise UsageError(f"parts: a list of the sections that a task is made of, found {parts!r}")
    if "dataset" in parts[1:] or parts == ["dataset"]:
        raise UsageError(f"parts = {parts}: 'dataset' comes first, if at all, and a section after it")
    return parts


def _declared(suite: str, sections: Sequence[str]) -> Mapping[str, type]:
    """The suite's own sections: dataclasses in ``SECTIONS`` of its module."""
    if not sections:
        return {}
    known = getattr(suite_module(suite), "SECTIONS", {})
    for section in sections:
        if section not in known:
            raise UsageError(f"parts: no section '{section}'; {nearest(section, ('dataset', *SECTIONS, *known))}")
    return {section: known[section] for section in sections}


def _controls(table: Mapping[str, Any]) -> Mapping[str, str]:
    """Kind of method -> control: one kind and its control, or ``control`` as a table of them."""
    control, kind = table["control"], table.get("kind")
    if isinstance(control, str) and isinstance(kind, str):
        return MappingProxyType({kind: control})
    pairs = control.items() if isinstance(control, dict) and kind is None and control else None
    if pairs is None or not all(isinstance(id, str) for _, id in pairs):
        raise UsageError("kind = 'loss' and control = 'ce' (texts), or [control] alone: kind of method = its control")
    return MappingProxyType(dict(pairs))


@dataclass(frozen=True)
class _Reading:
    """Tracks of a suite.toml, from their tables."""

    suite: str
    version: int
    parts: tuple[str, ...]
    optional: tuple[str, ...]  # parts that a block may leave out, all of them together
    named: tuple[str, ...]  # parts that make the name of a task, beside those of which its block lists several entries
    kinds: tuple[str, ...]
    sections: Mapping[str, Mapping[str, Any]]

    def track(self, name: str, given: Any) -> Track:
        where = f"[tracks.{name}]"
        table = _table(where, given)
        keys = ("summary", "seeds", "budget", "tasks")
        _keys(where, table, (*keys, "methods"), required=keys)
        methods = _texts(where, "methods", table.get("methods", []))
        if not isinstance(table["summary"], str) or not isinstance(table["tasks"], list):
            raise UsageError(f"{where}: summary is a text, tasks a list of tables [[tracks.{name}.tasks]]")
        blocks: list[Block] = []
        for i, given in enumerate(table["tasks"]):
            here = f"[[tracks.{name}.tasks]] number {i + 1}"
            block = {"seeds": table["seeds"], "budget": table["budget"], **_table(here, given)}
            budget = self.entry(here, "budget", block["budget"])
            entered = {key: tuple(_texts(here, key, block.pop(key, []))) for key in ("methods", "tags", "without")}
            board = block.pop("board", "")
            if not isinstance(board, str) or board in self.kinds:
                raise UsageError(f"{here} board = {board!r}: a name, and none of a kind of methods")
            tasks = tuple(self.tasks(here, block))
            blocks.append(Block(tasks, _seeds(here, block["seeds"]), budget, board, **entered))
        for board in {block.ranked_on for block in blocks}:
            _agree(where, board, [block for block in blocks if block.ranked_on == board])
        names = [task.name for block in blocks for task in block.tasks]
        for twice in (task for i, task in enumerate(names) if task in names[:i]):
            raise UsageError(f"{where}: task '{twice}' stands twice")
        return Track(name, table["summary"], tuple(blocks), tuple(methods))

    def tasks(self, where: str, block: dict[str, Any]) -> Iterable[Task]:
        """The tasks of one block: every dataset with every entry of the sections that tasks are named after."""
        kind = block.get("kind", self.kinds[0])
        _one_of(f"{where} kind", kind, self.kinds)
        left_out = self.optional if not set(self.optional) & block.keys() else ()
        own = [part for part in self.parts if part not in left_out]
        required = [*own, "seeds", "budget", *(["kind"] if len(self.kinds) > 1 else [])]
        _keys(where, block, [*required, "kind"], required)
        datasets = _list(block["dataset"]) if "dataset" in self.parts else [""]
        others = [part for part in own if part != "dataset" and part not in self.named]
        varied = [*self.named, *(part for part in others if isinstance(block[part], list))]
        shared = {key: self.entry(where, key, block[key]) for key in others if key not in varied}
        for dataset, *entries in itertools.product(datasets, *(_list(block[part]) for part in varied)):
            named = {part: self.entry(where, part, e) for part, e in zip(varied, entries, strict=True)}
            parts = {part: named[part] if part in named else shared[part] for part in own if part != "dataset"}
            data = _pin(where, dataset, parts.get("corruption")) if dataset else ""
            name = f"{dataset or kind}/{'-'.join(entries)}"
            yield Task(self.suite, self.version, kind, dataset, data, MappingProxyType(parts), name)

    def entry(self, where: str, section: str, name: Any) -> Any:
        found = self.sections[section]
        if not isinstance(name, str) or name not in found:
            raise UsageError(f"{where} {section} = '{name}': no [{section}.{name}]; {nearest(str(name), found)}")
        return found[name]


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a table, found {_shown(value)}")
    return value


def _texts(where: str, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{where} {key}: a list of texts, found {value!r}")
    return value


def _agree(where: str, board: str, blocks: Sequence[Block]) -> None:
    """Every method of a board enters all of its tasks."""
    if len({(block.kind, block.methods, block.tags, block.without) for block in blocks}) > 1:
        raise UsageError(f"{where}: tasks of board '{board}' differ in kind, methods, tags or without")


def _seeds(where: str, seeds: Any) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UsageError(f"{where} seeds: a list of whole numbers >= 0, found {seeds}")
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise UsageError(f"{where} seeds: {twice} stand twice; a seed counts once")
    return tuple(seeds)


def _pin(where: str, dataset: str, corruption: Corruption | None) -> str:
    """The digest of the dataset's content, and of the labels by people that stand in for its own."""
    from lossboard.data import pins

    if dataset not in pins():
        raise UsageError(f"{where}: no dataset '{dataset}' in lossboard/data/pins.toml; {nearest(dataset, pins())}")
    if pins()[dataset].labels_of:
        raise UsageError(
            f"{where}: '{dataset}' holds people's labels, no features; name the dataset that they are for: "
            f"{', '.join(pins()[dataset].labels_of)}"
        )
    if pins()[dataset].kind == "text" and corruption is not None:
        raise UsageError(f"{where}: '{dataset}' is a text: it has no classes, so no labels for '{corruption.kind}'")
    own = pins()[dataset].digest
    if corruption is None or corruption.people is None:
        return own
    theirs = [pin.digest for pin in pins().values() if dataset in pin.labels_of]
    if not theirs:
        raise UsageError(f"{where}: corruption '{corruption.kind}', but there are no labels by people for '{dataset}'")
    return digest([own, *theirs])


def _build(where: str, kind: type, given: Any) -> Any:
    given = _table(where, given)
    fields = dataclasses.fields(kind)
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    _keys(where, given, [f.name for f in fields], required)
    for f in fields:
        if f.name in given and not TYPES[str(f.type)](given[f.name]):
            raise UsageError(f"{where}: {f.name} = {_shown(given[f.name])} must be {WORDS.get(str(f.type), f.type)}")
    try:
        return kind(**given)
    except (UsageError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from error


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_setting(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


TYPES = {  # of the fields of a section, as they are annotated
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "float": _is_number,
    "bool": lambda value: type(value) is bool,
    "tuple[float, ...]": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "tuple[int, ...]": lambda value: isinstance(value, list) and all(type(each) is int for each in value),
    "Mapping[str, str]": lambda value: isinstance(value, dict) and all(isinstance(v, str) for v in value.values()),
    "Mapping[str, Sequence[Mapping[str, float]]]": lambda value: (
        isinstance(value, dict)
        and all(isinstance(rows, list) and all(map(_is_setting, rows)) for rows in value.values())
    ),
}


WORDS = {  # what a message says of a type
    "float": "a number",
    "tuple[float, ...]": "a list of numbers",
    "tuple[str, ...]": "a list of texts",
    "tuple[int, ...]": "a list of whole numbers",
    "Mapping[str, str]": "a table of texts",
    "Mapping[str, Sequence[Mapping[str, float]]]": "a table: method -> list of {hyperparameter = number}",
}


def _keys(where: str, given: Mapping[str, Any], known: Sequence[str], required: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'; {nearest(key, known)}")
    missing = [key for key in required if key not in given]
    if missing:
        raise UsageError(f"{where}: missing {', '.join(repr(key) for key in missing)}")


def _within(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{where} = {value}: between {low} and {high}")


def _one_of(where: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{where} = '{value}': {nearest(str(value), choices)}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of an error message: the nearest choices, or all of them."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(choices) or 'none'}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _pinned(part: Any) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    return {f.name: values[f.name] for f in dataclasses.fields(part) if values[f.name] != f.default}


def digest(content: Any) -> str:
    """12 hex digits of the SHA-256 of this content as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]

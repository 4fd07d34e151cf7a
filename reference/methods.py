"""What a method is: the decorators that register one, and the catalogue of what they registered.

A method is one function in one file. Its hyperparameters are keyword-only with the author's default; a decorator
declares the rest. The catalogue finds methods by importing every module of the kind's package and every entry point
of the group ``lossboard.methods``, so a method may live in its author's own repository.

    >>> gce = catalogue("loss")["gce"]
    >>> dict(gce.defaults), gce.bounded
    ({'q': 0.7}, True)

This module needs no torch; importing a method does.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

PACKAGES = {  # kind of method -> the packages its files live in
    "loss": ("reference.losses", "reference.corrections"),
    "multilabel": ("reference.multilabel",),
    "longtail": ("reference.longtail",),
    "calibrator": ("reference.calibrators",),
    "calibration": ("reference.calibration",),
    "attack": ("reference.attacks",),
    "defence": ("reference.defences",),
    "compressor": ("reference.compressors",),
}
ENTRY_POINTS = "lossboard.methods"
SUPPLIED = ("state", "progress", "draws", "head", "learned", "transition")  # what a loss that names it is passed
PLACES = {  # where a correction acts -> its first parameters
    "loss": ("base", "logits", "target"),
    "inputs": ("inputs", "target"),
    "weights": ("weights", "gradients"),
    "gradients": ("weights", "gradients"),
}
MULTILABEL = ("state", "progress", "draws", "learned", "counts", "rows", "observed", "cardinality")  # likewise
LONG_TAIL = ("progress", "counts")  # likewise
TOLD = ("transition", "counts", "rows", "cardinality")  # of what losses are supplied with: facts of the training rows
FITTED_WITH = ("copies", "generator")  # and a calibrator
CALIBRATION = ("state", "progress", "draws", "adapted")  # and a loss that trains calibrated models
NORMS = ("linf", "l2")  # of a perturbation
ATTACKS_WITH = ("eps", "norm", "generator")  # and an attack
TRAINS_ON = ("clean", "adversarial", "worst", "right_steps", "accurate", "robust", "base", "carried", "progress")  # and
#             a defence
COMPRESSES_WITH = ("grid", "pattern", "training", "generator")  # and a compressor
PLAIN = "ce"  # the loss that a correction wraps where no other is named


class MethodError(Exception):
    """A method breaks its contract; the message names it and says what the contract asks."""


class UnknownMethod(LookupError):
    """No method has this id; the message lists the nearest ones."""


@dataclass(frozen=True)
class Range:
    """What tuning may try for one hyperparameter: low to high, uniformly or (``log``) uniformly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise MethodError(f"{self}: need low < high, and low > 0 for log")

    def at(self, u: float) -> float:
        """The value at quantile u in [0, 1], rounded to 4 significant digits so that it can be quoted."""
        value = self.low * (self.high / self.low) ** u if self.log else self.low + (self.high - self.low) * u
        return float(f"{value:.4g}")


@dataclass(frozen=True)
class Memory:
    """Per-sample memory of a loss: one value (or, ``per_class``, C values) for each training sample.

    The loss receives this batch's rows as ``state``, (N,) or (N, C), and returns ``(values, new_rows)``.
    """

    initial: float
    per_class: bool = False


@dataclass(frozen=True)
class Adapted:
    """Values (K,) of a loss that every run keeps, and that validation changes after each epoch.

    ``update(values, log_probabilities, target)`` returns them anew from what the network now predicts (N, C) of the
    validation rows, and their labels (N,).
    """

    initial: tuple[float, ...]
    update: Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Method:
    """One entry of the catalogue. ``function`` is the plain function; the rest is what its decorator declared."""

    id: str
    kind: str
    function: Callable[..., Any] = field(repr=False)
    module: str  # "correction+loss" for a corrected loss
    defaults: Mapping[str, float]
    search: Mapping[str, Range]
    supplied: tuple[str, ...] = ()  # which of SUPPLIED its signature names
    symmetric: bool = False  # sum over all labels is constant in the logits
    bounded: bool = False  # bounded over all logits
    batchwise: bool = False  # a property of the batch: returns a scalar
    memory: Memory | None = None
    draws: int = 0  # uniforms wanted for each sample of a batch
    link: Callable[..., Any] | None = None  # outputs -> log-probabilities; None: log-softmax
    outputs: Callable[[int], int] | None = None  # classes -> outputs of the network; None: one each
    learned: Callable[[int, Any], Any] | None = None  # (classes, generator) -> parameters trained with the network
    estimate: Callable[[Any], Any] | None = None  # log-probabilities of the training rows -> noise transition
    at: str = ""  # of a correction: one of PLACES
    correction: Method | None = None  # of a corrected loss
    tags: tuple[str, ...] = ()
    accuracy_preserving: bool = False  # of a calibrator: the most probable class stays the most probable
    adapted: Adapted | None = None
    calibrator: Method | None = None  # what is fitted to the trained network's outputs,
    base: Method | None = None  # and the loss that trained it
    norms: tuple[str, ...] = ()  # of an attack: those of NORMS whose balls it can stay in
    classes: int = 2  # of an attack: the fewest it can be used with
    black_box: bool = False  # of an attack: it takes no gradients
    inner: Callable[..., Any] | None = None  # of a defence: what finds the inputs it trains on
    weights: Callable[..., Any] | None = None  # of a defence: the weights at which its gradient is taken
    radius: Callable[[Any], Any] | None = None  # of a defence: progress -> share of eps that it trains at
    carried: tuple[float, ...] = ()  # of a defence: its memory before the first step
    needs: tuple[str, ...] = ()  # of a defence: those whose trained networks it combines or learns from
    combines: bool = False  # of a defence: it trains nothing, but combines

    def hook(self, place: str) -> Callable[..., Any] | None:
        """What its correction does at this place of :data:`PLACES`, if that is where it acts."""
        return self.correction.function if self.correction and self.correction.at == place else None

    @property
    def described(self) -> Callable[..., Any]:
        """The function whose docstring is the method's page: the calibrator's or correction's, where there is one."""
        outer = self.calibrator or self.correction
        return outer.function if outer else self.function

    @property
    def citation(self) -> str:
        """The paper: the first paragraph of the module's docstring, on one line."""
        return _paragraphs(sys.modules[self.described.__module__].__doc__)[0]

    @property
    def summary(self) -> str:
        """The first paragraph of the function's docstring, on one line."""
        return _paragraphs(self.described.__doc__)[0]

    @property
    def formula(self) -> str:
        """The LaTeX between ``$$`` in the function's docstring, or ''."""
        found = re.search(r"\$\$(.+?)\$\$", self.described.__doc__ or "", re.DOTALL)
        return " ".join(found[1].split()) if found else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The docstring's further paragraphs, without the formula."""
        return tuple(text for text in _paragraphs(self.described.__doc__)[1:] if not text.startswith("$$"))


@functools.cache
def named(function: Callable[..., Any]) -> tuple[str, ...]:
    """The keyword-only parameters of a function."""
    return tuple(p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY)


def supply(names: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are named; with :func:`named`, what a function asks of them."""
    return {key: values[key] for key in names if key in values}


def loss(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    symmetric: bool = False,
    bounded: bool = False,
    batchwise: bool = False,
    state: Memory | None = None,
    draws: int = 0,
    link: Callable[..., Any] | None = None,
    outputs: Callable[[int], int] | None = None,
    learned: Callable[[int, Any], Any] | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a multiclass classification loss under its function's name (or ``id``); the function is left as it is.

    The contract: ``f(logits, target, *, hyperparameters)`` with raw logits (N, C) and integer target (N,) returns the
    per-sample values (N,), or a scalar if ``batchwise``; a loss with ``state`` returns ``(values, new_rows)``. The
    harness takes the mean. Hyperparameters have the author's default and may arrive as 0-d tensors, so no Python
    branches on them; no random calls, no in-place scatter, no global state; finite values and gradients at logits of
    +-1e4. The module's docstring begins with the citation, "Name (Authors, Venue Year, arXiv:0000.00000)."; the
    function's first paragraph says what it is and the shapes, "for logits (N, C) and target (N,); returns (N,)", and
    another is its formula, ``$$ LaTeX $$``: its page is made of them.

    A loss is passed, keyword-only and without default, what it names of: ``state`` (this batch's rows of its memory),
    ``progress`` (epoch / epochs, a 0-d tensor in [0, 1)), ``draws`` (N, draws), ``head`` (the weights (C, h) of the
    network's last layer, without gradient), ``learned`` (its own parameters (P,), trained with the network's) and
    ``transition`` (C, C), the probability of each noisy label given the clean one.

    Args:
        search: hyperparameter -> range that tuning may try (the learning rate is added for every method).
        symmetric, bounded: properties that the contract tests check numerically.
        state: per-sample memory, see :class:`Memory`.
        draws: uniforms in [0, 1) wanted per sample, from the run's own stream.
        link: where the loss's probabilities are not the softmax of the logits, ``link(logits)`` returns their
            logarithms (N, C). It predicts, and NLL and calibration are of it. It may name the loss's hyperparameters
            and ``learned``.
        outputs: how many outputs the network has for C classes, if not C.
        learned: ``learned(classes, generator)`` returns the first values (P,) of the loss's own parameters.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        where, declared = _declaration("loss", function, ("logits", "target"), id, search, state, draws)
        _check_link(where, declared, link, learned)
        _add(
            Method(
                **declared,
                symmetric=symmetric,
                bounded=bounded,
                batchwise=batchwise,
                link=link,
                outputs=outputs,
                learned=learned,
                tags=tuple(tags),
            )
        )
        return function

    return register


def correction(
    *,
    at: str = "loss",
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    state: Memory | None = None,
    draws: int = 0,
    estimate: Callable[[Any], Any] | None = None,
    symmetric: bool = False,
    bounded: bool = False,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a correction of training that wraps any loss; the function is left as it is.

    It stands in the catalogue of losses by its id, around cross-entropy, and as ``id-loss`` around any other (see
    :func:`find`). Where it acts decides what the function is:

    - ``at="loss"``: ``f(base, logits, target)`` returns values (N,); ``base(logits, target)`` are the wrapped loss's.
    - ``at="inputs"``: ``f(inputs, target)`` with inputs (N, ...) returns new inputs, a second target (N,) and the share
      of the first (0-d): the loss is share * f(logits, target) + (1 - share) * f(logits, second).
    - ``at="weights"``: ``f(weights, gradients)``, both lists of tensors, one for each parameter of the network, returns
      the weights at which the gradient is taken again; the step goes from the old ones.
    - ``at="gradients"``: ``f(weights, gradients)`` returns the gradients to step with.

    Hyperparameters, what is supplied, and docstrings are as for :func:`loss`; of a hyperparameter's name the catalogue
    asks that no loss which it wraps has it too.

    Args:
        search, state, draws, symmetric, bounded: as for a loss (around cross-entropy).
        estimate: ``transition`` is then what ``estimate(log_probabilities)`` makes of the network's predictions
            (N, C) for its own training rows half-way through the training, and the identity before.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if at not in PLACES:
            raise MethodError(f"correction '{id or function.__name__}': at = '{at}'; there are: {', '.join(PLACES)}")
        where, declared = _declaration("correction", function, PLACES[at], id, search, state, draws)
        if estimate is not None and "transition" not in declared["supplied"]:
            raise MethodError(f"{where}: estimate=... is for a function that names 'transition'")
        if at != "loss" and (state or set(declared["supplied"]) - {"draws", "progress"}):
            raise MethodError(f"{where}: at '{at}' a correction is supplied with 'draws' and 'progress' only")
        _add(Method(**declared, at=at, estimate=estimate, symmetric=symmetric, bounded=bounded, tags=tuple(tags)))
        return function

    return register


def multilabel_loss(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    batchwise: bool = False,
    state: Memory | None = None,
    draws: int = 0,
    link: Callable[..., Any] | None = None,
    learned: Callable[[int, Any], Any] | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a multi-label loss under its function's name (or ``id``); the function is left as it is.

    The contract: ``f(logits, target, *, hyperparameters)`` with raw logits (N, L) and targets (N, L), 0 or 1 in the
    logits' dtype, returns per-sample values (N,), each the mean over the labels where its paper says nothing else, or a
    scalar if ``batchwise``. The rest of the contract, and how its files are documented, is that of :func:`loss`, with
    (N, L) for both shapes. A target is 1 only where a label was seen to hold: what was not seen is 0, and a loss that
    does not ask for ``observed`` takes it for absent.

    A loss is passed, keyword-only and without default, what it names of: ``state``, ``progress``, ``draws`` and
    ``learned``, as for :func:`loss`; ``counts`` (L,), the number of training rows that have each label, and ``rows``
    (0-d), how many there are; ``observed`` (N, L), 1 where the label is known, present or absent, else 0; and
    ``cardinality`` (0-d), how many labels a training row truly has in the mean, which authors tell their losses.

    Args:
        search, state, draws, learned: as for a loss.
        link: where a label's probability is not the sigmoid of its logit, ``link(logits)`` returns the logits (N, L) of
            the probabilities. It may name the loss's hyperparameters and ``learned``.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        first = ("logits", "target")
        where, declared = _declaration("multilabel", function, first, id, search, state, draws, MULTILABEL)
        _check_link(where, declared, link, learned)
        _add(Method(**declared, batchwise=batchwise, link=link, learned=learned, tags=tuple(tags)))
        return function

    return register


def long_tail_loss(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a loss for classes of very different size under its function's name (or ``id``).

    The contract is that of :func:`loss`, for logits (N, C) and integer target (N,); it is passed what it names of
    ``progress`` and ``counts`` (C,), the number of training samples of each class. The kind is its own so that such
    losses stand beside each other and not on boards of data whose classes are alike.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _, declared = _declaration("longtail", function, ("logits", "target"), id, search, None, 0, LONG_TAIL)
        _add(Method(**declared, tags=tuple(tags)))
        return function

    return register


def calibrator(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    accuracy_preserving: bool = False,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a post-hoc calibrator under its function's name (or ``id``); the function is left as it is.

    The contract: ``f(logits, target, *, hyperparameters)`` with the logits (N, C) and integer targets (N,) of a
    held-out set fits the calibrator and returns a function from any logits (M, C) to calibrated log-probabilities
    (M, C): float64, finite for finite logits, rows independent of each other. Fitting the same data twice gives the
    same bits, and the order of the rows matters to rounding only. Held-out sets may be degenerate: one sample, a class
    that is absent, all predictions right or wrong, constant logits. Hyperparameters and docstrings are as for
    :func:`loss`; the first paragraph says "for logits (N, C) and target (N,); returns ...".

    A calibrator is passed, keyword-only and without default, what it names of: ``copies`` (K, N, C), the logits of K
    transformed copies of the same inputs (what it returns is then called with ``copies`` (K, M, C) too), and
    ``generator``, a ``torch.Generator`` of the run's own.

    Args:
        search: hyperparameter -> range that tuning may try.
        accuracy_preserving: the class with the largest logit keeps the largest probability.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _, declared = _declaration("calibrator", function, ("logits", "target"), id, search, None, 0, FITTED_WITH)
        _add(Method(**declared, accuracy_preserving=accuracy_preserving, tags=tuple(tags)))
        return function

    return register


def calibration_loss(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    batchwise: bool = False,
    state: Memory | None = None,
    draws: int = 0,
    adapted: Adapted | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a loss that trains calibrated models under its function's name (or ``id``); the function is left alone.

    The contract is that of :func:`loss`, for logits (N, C) and integer target (N,); it is passed what it names of
    ``state``, ``progress`` and ``draws``, and of ``adapted`` (K,), see :class:`Adapted`. The kind is its own so that
    such losses stand on boards of calibration and not on those of noisy labels.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        first = ("logits", "target")
        where, declared = _declaration("calibration", function, first, id, search, state, draws, CALIBRATION)
        if (adapted is None) is ("adapted" in declared["supplied"]):
            raise MethodError(f"{where}: declare adapted=Adapted(...) exactly when the signature names it")
        _add(Method(**declared, batchwise=batchwise, adapted=adapted, tags=tuple(tags)))
        return function

    return register


def attack(
    *,
    id: str | None = None,
    norms: tuple[str, ...] = ("linf",),
    classes: int = 2,
    black_box: bool = False,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an attack under its function's name (or ``id``); the function is left as it is.

    The contract: ``f(model, x, target, *, eps, generator, hyperparameters)`` returns inputs of the shape of x (N, ...)
    that lie within ``eps`` of x and in [0, 1], as many of them misclassified as it can. ``model`` maps such inputs to
    logits (N, C) and is in evaluation mode; its parameters, their gradients and its mode are left as they were, and so
    are x and torch's own random state. What is random comes from ``generator``, a ``torch.Generator``: the same one
    gives the same bits. A sample that is misclassified as it is stays as it is. An attack for more norms than one is
    passed ``norm``, one of NORMS. Hyperparameters and docstrings are as for :func:`loss`; the first paragraph says
    "for inputs (N, ...) and target (N,); returns inputs (N, ...)".

    Args:
        norms: which balls it can stay in: "linf", the largest change of a feature; "l2", the Euclidean length.
        classes: the fewest classes it can be used with.
        black_box: it asks for logits alone.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        first = ("model", "x", "target")
        where, declared = _declaration("attack", function, first, id, None, None, 0, ATTACKS_WITH)
        if not norms or set(norms) - set(NORMS) or (len(norms) > 1) is not ("norm" in declared["supplied"]):
            raise MethodError(f"{where}: norms are of {NORMS}, and the signature names 'norm' where they are several")
        _add(Method(**declared, norms=tuple(norms), classes=classes, black_box=black_box, tags=tuple(tags)))
        return function

    return register


def defence(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    inner: Callable[..., Any] | None = None,
    weights: Callable[..., Any] | None = None,
    radius: Callable[[Any], Any] | None = None,
    carried: tuple[float, ...] = (),
    teachers: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a way to train a network against attacks under its function's name (or ``id``).

    The contract: ``f(target, *, ...)`` returns the values (N,) whose mean is descended, for integer target (N,). It is
    passed, keyword-only and without default, what it names of the following, and nothing else is computed:

    - ``clean`` (N, C), the network's logits for the inputs x, and ``adversarial`` (N, C), for those that ``inner``
      found;
    - ``right_steps`` (N,), at how many steps of the inner search the sample was still classified correctly;
    - ``worst`` (N, C), for each other class k the largest z_k - z_y that interval bounds allow in the ball, 0 for y;
    - ``base(logits, target)``, a loss of the catalogue (N,): cross-entropy, or, as ``id-loss``, any that is a function
      of logits and target alone;
    - ``accurate`` (N, C) and ``robust`` (N, C), logits without gradient of its two ``teachers``, for x and for what
      ``inner`` found;
    - ``carried`` (K,), its memory between steps: it then returns the values and the new memory;
    - ``progress``, the share of the training that is done, a 0-d tensor in [0, 1).

    The order of the samples does not matter beyond the order of the values. Hyperparameters and docstrings are as for
    :func:`loss`; the first paragraph says "for target (N,); returns (N,)".

    Args:
        search: hyperparameter -> range that tuning may try.
        inner: ``inner(model, x, target, search)`` with a ``reference.attacks.search.Search`` returns a ``Found``. It
            may name hyperparameters of the defence. Needed where ``adversarial`` or ``right_steps`` is named.
        weights: ``weights(weights, gradients)``, lists of tensors, returns the weights at which the gradient is taken
            again; the step goes from the old ones. It may name hyperparameters of the defence.
        radius: which share of eps to train at, as a function of progress; all of it where not given.
        carried: the memory before the first step.
        teachers: the ids of two defences, trained before: an accurate and a robust one.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        where, declared = _declaration("defence", function, ("target",), id, search, None, 0, TRAINS_ON)
        asked = set(declared["supplied"])
        if (inner is None) is bool(asked & {"adversarial", "right_steps"}):
            raise MethodError(f"{where}: declare inner=... exactly when the signature names what it finds")
        if bool(carried) is not ("carried" in asked) or bool(teachers) is not bool(asked & {"accurate", "robust"}):
            raise MethodError(f"{where}: declare carried=... and teachers=... exactly when the signature names them")
        for hook in filter(None, (inner, weights)):
            for key in named(hook):
                if key not in declared["defaults"]:
                    raise MethodError(f"{where}: '{key}' of {hook.__name__} is no hyperparameter of the defence")
        hooks: dict[str, Any] = {"inner": inner, "weights": weights, "radius": radius}
        _add(Method(**declared, **hooks, carried=carried, needs=tuple(teachers), tags=tuple(tags)))
        return function

    return register


def compressor(
    *,
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    semi_structured: bool = False,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a way to make a trained network smaller under its function's name (or ``id``).

    The contract: ``f(network, inputs, *, ...)`` with a ``torch.nn.Module`` in evaluation mode and calibration inputs
    (N, ...) returns the parameters that it changes by name: a packed form of ``reference.compressors.packing`` for
    every weight of a linear or convolutional layer, and tensors for those that stay in float32 (biases, scales). The
    network is left as it was, and so is torch's own random state. The same inputs give the same bits. What is returned
    can be written: ``encode`` and ``decode`` of that module lose nothing of it. Hyperparameters and docstrings are as
    for :func:`loss`; the first paragraph says "for a network and inputs (N, ...); returns ...".

    It is passed, keyword-only and without default, one of ``grid``, a ``reference.compressors.grid.Grid`` (it
    quantises), and ``pattern``, a ``reference.compressors.pattern.Pattern`` (it prunes), which say how small the result
    has to be: no more bits a weight in the mean, at least so many zeros. And what it names of ``training``, a
    ``reference.compressors.training.Training`` with the rows and the loss that the network was trained with and how
    long it may be trained further, and ``generator``, a ``torch.Generator`` of the run's own.

    Args:
        search: hyperparameter -> range that tuning may try.
        semi_structured: a method that prunes can keep n of every m weights, too.

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        first = ("network", "inputs")
        where, declared = _declaration("compressor", function, first, id, search, None, 0, COMPRESSES_WITH)
        asked = set(declared["supplied"])
        if ("grid" in asked) is ("pattern" in asked):
            raise MethodError(f"{where}: the signature names either 'grid' or 'pattern'")
        if semi_structured and "pattern" not in asked:
            raise MethodError(f"{where}: semi_structured=True is for a method that names 'pattern'")
        marks = [word for word, holds in (("trained", "training" in asked), ("n:m", semi_structured)) if holds]
        _add(Method(**declared, tags=(*marks, *tags)))
        return function

    return register


def ensemble(
    *,
    of: tuple[str, ...],
    id: str | None = None,
    search: Mapping[str, tuple[float, float] | Range] | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a defence that trains nothing: it combines networks that other defences trained with the same seed.

    The contract: ``f(members)`` with the logits (K, N, C) of the networks of the K defences that ``of`` names returns
    scores (N, C), rows independent of each other; it is differentiable, and attacks see it as one model. It stands in
    the catalogue of defences. Hyperparameters and docstrings are as for :func:`loss`; the first paragraph says "for
    members (K, N, C); returns (N, C)".

    Raises:
        MethodError: the signature or the declaration breaks the contract.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        where, declared = _declaration("defence", function, ("members",), id, search, None, 0, ())
        if len(of) < 2:
            raise MethodError(f"{where}: of=... names at least two defences")
        _add(Method(**declared, combines=True, needs=tuple(of), tags=tuple(tags)))
        return function

    return register


def _check_link(
    where: str, declared: Mapping[str, Any], link: Callable[..., Any] | None, learned: Callable[[int, Any], Any] | None
) -> None:
    """What a loss and its link say of each other."""
    if (learned is None) is ("learned" in declared["supplied"]):
        raise MethodError(f"{where}: declare learned=... exactly when the signature names it")
    for key in named(link) if link else ():
        if key not in (*declared["defaults"], "learned"):
            raise MethodError(f"{where}: its link names '{key}', which is no hyperparameter of the loss")


def _declaration(
    kind: str,
    function: Callable[..., Any],
    first: tuple[str, ...],
    id: str | None,
    search: Mapping[str, tuple[float, float] | Range] | None,
    state: Memory | None,
    draws: int,
    known: tuple[str, ...] = SUPPLIED,
) -> tuple[str, dict[str, Any]]:
    """What all kinds declare alike, read from the signature and checked; and how to name the method.

    ``known`` is what a method of this kind may be supplied with.
    """
    name = id or function.__name__
    where = f"{kind} '{name}' ({function.__module__})"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise MethodError(f"{where}: an id is lower-case letters, digits and underscores")
    parameters = list(inspect.signature(function).parameters.values())
    found = [p.name for p in parameters[: len(first)]]
    if found != list(first):
        raise MethodError(f"{where}: the first parameters are '{', '.join(first)}', found {found}")
    defaults: dict[str, float] = {}
    supplied = []
    for p in parameters[len(first) :]:
        if p.kind is not p.KEYWORD_ONLY:
            raise MethodError(f"{where}: '{p.name}' must be keyword-only (after '*')")
        if p.name in known:
            supplied.append(p.name)
        elif p.default is p.empty:
            raise MethodError(f"{where}: hyperparameter '{p.name}' needs the author's default")
        elif not isinstance(p.default, int | float):
            raise MethodError(f"{where}: the default of '{p.name}' must be a number, found {p.default!r}")
        else:
            defaults[p.name] = float(p.default)
    ranges = {key: value if isinstance(value, Range) else Range(*value) for key, value in (search or {}).items()}
    for key in ranges:
        if key not in defaults:
            raise MethodError(f"{where}: search names '{key}', not a hyperparameter; it has {sorted(defaults)}")
    if (state is None) is ("state" in supplied) or (draws == 0) is ("draws" in supplied):
        raise MethodError(f"{where}: declare state=Memory(...) and draws=n exactly when the signature names them")
    return where, {
        "id": name,
        "kind": kind,
        "function": function,
        "module": function.__module__,
        "defaults": MappingProxyType(defaults),
        "search": MappingProxyType(ranges),
        "supplied": tuple(supplied),
        "memory": state,
        "draws": draws,
    }


def corrected(correction: Method, base: Method) -> Method:
    """The loss ``base`` under a correction, as a method of its own.

    Raises:
        MethodError: the two do not go together; the message says why.
    """
    name = correction.id if base.id == PLAIN else f"{correction.id}-{base.id}"
    clash = sorted(set(correction.defaults) & set(base.defaults))
    reasons = {
        f"both have a hyperparameter '{', '.join(clash)}'": clash,
        "both keep memory": correction.memory and base.memory,
        "both use draws": correction.draws and base.draws,
        f"the values of '{base.id}' belong to a batch, not to samples": base.batchwise and correction.at == "loss",
        f"'{base.id}' keeps memory": base.memory and correction.at in ("loss", "inputs"),
        f"'{base.id}' has outputs or probabilities of its own": (base.outputs or base.link) and correction.at == "loss",
    }
    for reason, holds in reasons.items():
        if holds:
            raise MethodError(f"'{correction.id}' cannot wrap '{base.id}': {reason}")
    acts = correction.at == "loss"
    altered = correction.at in ("loss", "inputs")  # what is said of the base loss need not hold
    return dataclasses.replace(
        base,
        id=name,
        function=_wrapped(correction, base) if acts else base.function,
        module=f"{correction.module}+{base.module}",
        defaults=MappingProxyType({**base.defaults, **correction.defaults}),
        search=MappingProxyType({**base.search, **correction.search}),
        supplied=tuple(key for key in SUPPLIED if key in base.supplied or (acts and key in correction.supplied)),
        symmetric=correction.symmetric if acts else base.symmetric,
        bounded=correction.bounded if acts else base.bounded,
        memory=correction.memory or base.memory,
        draws=correction.draws or base.draws,
        estimate=correction.estimate,
        correction=correction,
        tags=correction.tags if altered else (*base.tags, *correction.tags),
    )


def calibrated(calibrator: Method, base: Method) -> Method:
    """Training with ``base`` and a calibrator behind it, as a method of its own: ``temperature-focal``.

    Raises:
        MethodError: the two do not go together; the message says why.
    """
    if base.calibrator:
        raise MethodError(f"'{calibrator.id}' cannot follow '{base.id}': one calibrator is enough")
    clash = sorted(set(calibrator.defaults) & set(base.defaults))
    if clash:
        raise MethodError(
            f"'{calibrator.id}' cannot follow '{base.id}': both have a hyperparameter '{', '.join(clash)}'"
        )
    return dataclasses.replace(
        base,
        id=calibrator.id if base.id == PLAIN else f"{calibrator.id}-{base.id}",
        module=f"{calibrator.module}+{base.module}",
        defaults=MappingProxyType({**base.defaults, **calibrator.defaults}),
        search=MappingProxyType({**base.search, **calibrator.search}),
        calibrator=calibrator,
        base=base,
        accuracy_preserving=calibrator.accuracy_preserving,
        tags=(*calibrator.tags, *base.tags),
    )


def _wrapped(correction: Method, base: Method) -> Callable[..., Any]:
    """A loss that calls the correction with the base loss, its signature that of both together."""

    plain, outer = base.function, correction.function
    for_plain, for_outer = named(plain), named(outer)

    def function(logits: Any, target: Any, **values: Any) -> Any:
        def inner(z: Any, y: Any) -> Any:
            return plain(z, y, **supply(for_plain, values))

        return outer(inner, logits, target, **supply(for_outer, values))

    both = (inspect.signature(part).parameters.values() for part in (plain, outer))
    keywords = {p.name: p for parameters in both for p in parameters if p.kind is p.KEYWORD_ONLY}
    first = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("logits", "target")]
    function.__signature__ = inspect.Signature([*first, *keywords.values()])  # type: ignore[attr-defined]
    return function


def defended(method: Method, base: Method) -> Method:
    """The defence with ``base`` for the cross-entropy in it, as a method of its own: ``at-gce``.

    Raises:
        MethodError: the two do not go together; the message says why.
    """
    name = method.id if base.id == PLAIN else f"{method.id}-{base.id}"
    clash = sorted(set(method.defaults) & set(base.defaults))
    reasons = {
        f"'{method.id}' has no loss to be replaced": "base" not in method.supplied,
        f"both have a hyperparameter '{', '.join(clash)}'": clash,
        f"'{base.id}' is not a function of logits and target alone": base.supplied or base.batchwise or base.correction,
        f"'{base.id}' has outputs or probabilities of its own": base.outputs or base.link,
    }
    for reason, holds in reasons.items():
        if holds:
            raise MethodError(f"'{method.id}' cannot be trained with '{base.id}': {reason}")
    return dataclasses.replace(
        method,
        id=name,
        function=_with_base(method, base),
        module=f"{method.module}+{base.module}",
        defaults=MappingProxyType({**base.defaults, **method.defaults}),
        search=MappingProxyType({**base.search, **method.search}),
        supplied=tuple(key for key in method.supplied if key != "base"),
    )


def _with_base(method: Method, base: Method) -> Callable[..., Any]:
    """A defence whose loss is filled in, its signature that of both together but for ``base``."""
    outer, plain = method.function, base.function
    for_outer, for_plain = named(outer), named(plain)

    @functools.wraps(outer)
    def function(target: Any, **values: Any) -> Any:
        own = supply(for_plain, values)
        return outer(target, **supply(for_outer, values), base=lambda z, y: plain(z, y, **own))

    of_outer = [p for p in inspect.signature(outer).parameters.values() if p.name != "base"]
    of_plain = [p for p in inspect.signature(plain).parameters.values() if p.kind is p.KEYWORD_ONLY]
    function.__signature__ = inspect.Signature([*of_outer, *of_plain])  # type: ignore[attr-defined]
    return function


_registered: dict[tuple[str, str], Method] = {}  # by kind and id


def _add(method: Method) -> None:
    known = _registered.get((method.kind, method.id))
    if known and (known.module, known.function.__qualname__) != (method.module, method.function.__qualname__):
        raise MethodError(f"two methods have the id '{method.id}': {known.module} and {method.module}; rename one")
    _registered[method.kind, method.id] = method


@functools.cache
def catalogue(kind: str) -> Mapping[str, Method]:
    """Every method of a kind, by id in alphabetical order. Imports the kind's package and the entry points (torch).

    Raises:
        MethodError: a method breaks the contract, two share an id, or an entry point cannot be imported.
    """
    if kind not in PACKAGES:
        raise UnknownMethod(f"no kind of method '{kind}'; there are: {', '.join(PACKAGES)}")
    for package in map(importlib.import_module, PACKAGES[kind]):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                importlib.import_module(found.name)
            except MethodError:
                raise
            except Exception as error:
                raise MethodError(f"{found.name} cannot be imported: {type(error).__name__}: {error}") from error
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise MethodError(f"entry point '{point.name}' = '{point.value}' cannot be loaded: {error}") from error
    own = {id: method for (found, id), method in _registered.items() if found == kind}
    for (registered, id), method in _registered.items():
        if registered == "correction" and kind == "loss":
            if id in own:
                raise MethodError(f"a loss and a correction have the id '{id}': {own[id].module} and {method.module}")
            own[id] = corrected(method, own[PLAIN])
    if kind == "defence":
        plain = catalogue("loss")[PLAIN]
        own = {id: defended(method, plain) if "base" in method.supplied else method for id, method in own.items()}
    return MappingProxyType(dict(sorted(own.items())))


def select(methods: Mapping[str, Method], ids: list[str] | None) -> dict[str, Method]:
    """The methods with these ids, or all of them for None. ``mixup-gce`` is the correction mixup around gce.

    Raises:
        UnknownMethod: an id is not in the catalogue; the message gives the nearest ids.
        MethodError: a correction and a loss that do not go together.
    """
    if ids is None:
        return dict(methods)
    found = (find(methods, id) for id in ids)
    return {method.id: method for method in sorted(found, key=lambda method: method.id)}


def find(methods: Mapping[str, Method], id: str) -> Method:
    """The method of this id: one of these, or a correction or calibrator and a loss of these, joined by a hyphen, or a
    defence of these and a loss.

    Raises:
        UnknownMethod, MethodError: as :func:`select`.
    """
    if id in methods:
        return methods[id]
    first, hyphen, second = id.partition("-")
    if hyphen and first in methods and methods[first].kind == "defence":
        return defended(_registered["defence", first], find(catalogue("loss"), second))
    if second and first in methods and (calibrator := methods[first].calibrator):
        return calibrated(calibrator, find(methods, second))
    parts = [first, second] if hyphen else [first]
    for part in parts:
        if part not in methods:
            near = difflib.get_close_matches(part, methods, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(methods)}"
            raise UnknownMethod(f"no method '{part}'; {hint}")
    outer, inner = methods[first].correction, methods[second]
    if outer is None or inner.correction is not None or inner.calibrator is not None:
        raise MethodError(f"'{id}': a correction, a hyphen, and the loss that it wraps")
    return corrected(outer, inner)


def _paragraphs(doc: str | None) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(doc or ""))]

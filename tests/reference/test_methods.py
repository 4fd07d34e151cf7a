"""What the decorator refuses, and how the catalogue finds methods."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reference import methods
from reference.methods import (
    Memory,
    MethodError,
    Range,
    UnknownMethod,
    catalogue,
    corrected,
    correction,
    find,
    long_tail_loss,
    loss,
    multilabel_loss,
    select,
)

ROOT = Path(methods.__file__).parents[1]
KNOWN = catalogue("loss")  # before any test empties the registry: the catalogue is made once


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """An empty registry, so that the catalogue of the other tests stays as it is."""
    monkeypatch.setattr(methods, "_registered", {})
    return methods._registered


def plain(logits, target):
    """A loss for logits (N, C) and target (N,); returns (N,)."""


def with_q(logits, target, *, q=0.7): ...


def positional(logits, target, q=0.7): ...


def without_default(logits, target, *, q): ...


def with_text(logits, target, *, q="high"): ...


def without_target(logits, labels): ...


def with_state(logits, target, *, state): ...


def with_draws(logits, target, *, draws): ...


def with_counts(logits, target, *, counts): ...


def with_observed(logits, target, *, observed, counts, rows, cardinality): ...


def with_transition(logits, target, *, transition): ...


def with_learned(logits, target, *, learned): ...


REFUSED = [
    (positional, {}, "'q' must be keyword-only"),
    (without_default, {}, "'q' needs the author's default"),
    (without_target, {}, "'logits, target', found \\['logits', 'labels'\\]"),
    (with_q, {"search": {"p": (0, 1)}}, "search names 'p'.*it has \\['q'\\]"),
    (plain, {"search": {"q": (0, 1)}}, "search names 'q'.*it has \\[\\]"),
    (plain, {"id": "Nice-Loss"}, "lower-case letters, digits and underscores"),
    (plain, {"id": "2nd"}, "lower-case letters, digits and underscores"),
    (plain, {"state": Memory(1.0)}, "exactly when the signature names them"),
    (with_state, {}, "exactly when the signature names them"),
    (plain, {"draws": 2}, "exactly when the signature names them"),
    (with_draws, {}, "exactly when the signature names them"),
    (with_text, {}, "default of 'q' must be a number, found 'high'"),
    (with_q, {"search": {"q": (1.0, 1.0)}}, "low < high"),
    (with_q, {"search": {"q": (0.9, 0.1)}}, "low < high"),
]


@pytest.mark.parametrize(("function", "declared", "message"), REFUSED)
def test_the_decorator_refuses(function, declared, message, registry):
    with pytest.raises(MethodError, match=message):
        loss(**declared)(function)
    assert not registry


def test_an_error_names_the_method_and_its_module():
    with pytest.raises(MethodError, match=rf"loss 'positional' \({__name__}\)"):
        loss()(positional)


def test_what_the_decorator_records(registry):
    declared = {"search": {"q": (0.05, 0.95)}, "symmetric": True, "bounded": True, "tags": ("robust",)}
    assert loss(**declared)(with_q) is with_q
    found = registry["loss", "with_q"]
    assert (found.id, found.kind, found.function, found.module) == ("with_q", "loss", with_q, __name__)
    assert found.defaults == {"q": 0.7}
    assert found.search == {"q": Range(0.05, 0.95)}
    assert (found.symmetric, found.bounded, found.batchwise, found.tags) == (True, True, False, ("robust",))
    with pytest.raises(TypeError):
        found.defaults["q"] = 1.0


def test_what_the_harness_supplies_is_no_hyperparameter(registry):
    def remembering(logits, target, *, q=0.7, state, progress, draws): ...

    loss(state=Memory(0.5, per_class=True), draws=3)(remembering)
    found = registry["loss", "remembering"]
    assert found.supplied == ("state", "progress", "draws")
    assert found.defaults == {"q": 0.7}
    assert (found.memory, found.draws) == (Memory(0.5, per_class=True), 3)


def test_two_modules_cannot_share_an_id(monkeypatch):
    loss(id="mine")(plain)
    loss(id="mine")(plain)  # a module that is imported again replaces its own
    monkeypatch.setattr(with_q, "__module__", "elsewhere")
    with pytest.raises(MethodError, match=rf"two methods have the id 'mine': {__name__} and elsewhere"):
        loss(id="mine")(with_q)


def test_range_at():
    assert [Range(1, 3).at(u) for u in (0, 0.25, 1)] == [1, 1.5, 3]
    assert [Range(0.01, 100, log=True).at(u) for u in (0, 0.25, 0.5, 1)] == [0.01, 0.1, 1, 100]
    assert Range(0, 1).at(1 / 3) == 0.3333  # 4 significant digits
    assert Range(0, 10000).at(1 / 3) == 3333


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (2, 1)])
def test_logarithmic_range_must_be_positive(bounds):
    with pytest.raises(MethodError, match="low > 0 for log"):
        Range(*bounds, log=True)


def test_documentation_comes_from_the_docstrings(registry):
    @loss()
    def documented(logits, target):
        r"""One sentence,
        on two lines.

        $$ a
        + b $$

        First remark.

        Second remark,
        longer.
        """

    found = registry["loss", "documented"]
    assert found.summary == "One sentence, on two lines."
    assert found.formula == "a + b"
    assert found.remarks == ("First remark.", "Second remark, longer.")
    assert found.citation == "What the decorator refuses, and how the catalogue finds methods."


def test_select():
    known = {id: KNOWN[id] for id in ("ce", "gce", "mae", "nce_rce")}
    assert list(select(known, None)) == list(known)
    assert list(select(known, ["mae", "ce"])) == ["ce", "mae"]
    with pytest.raises(UnknownMethod, match=r"no method 'gse'; did you mean gce"):
        select(known, ["gse"])
    with pytest.raises(UnknownMethod, match=r"no method 'xyz'; there are: ce, gce, mae, nce_rce"):
        select(known, ["xyz"])


def test_the_catalogue_is_sorted_and_knows_its_kinds():
    assert list(KNOWN) == sorted(KNOWN)
    assert catalogue("loss") is KNOWN
    with pytest.raises(UnknownMethod, match=r"no kind of method 'lost'; there are: loss"):
        catalogue("lost")


# -- corrections ------------------------------------------------------------------------------------------------------


def wraps(base, logits, target): ...


def wraps_with_q(base, logits, target, *, q=0.7, state, progress): ...


def wraps_with_transition(base, logits, target, *, transition): ...


def moves(weights, gradients, *, far=0.1): ...


def moves_with_transition(weights, gradients, *, transition): ...


def mixes(inputs, target, *, draws): ...


REFUSED_CORRECTIONS = [
    (plain, {}, "the first parameters are 'base, logits, target', found \\['logits', 'target'\\]"),
    (wraps, {"at": "weights"}, "the first parameters are 'weights, gradients', found \\['base', 'logits'\\]"),
    (moves, {"at": "inputs"}, "the first parameters are 'inputs, target'"),
    (moves, {"at": "start"}, "at = 'start'; there are: loss, inputs, weights, gradients"),
    (moves, {"at": "weights", "search": {"near": (0, 1)}}, "search names 'near'.*it has \\['far'\\]"),
    (moves_with_transition, {"at": "weights"}, "supplied with 'draws' and 'progress' only"),
    (mixes, {"at": "inputs"}, "exactly when the signature names them"),
    (wraps, {"estimate": print}, "estimate=... is for a function that names 'transition'"),
    (wraps, {"id": "a-b"}, "lower-case letters, digits and underscores"),
]


@pytest.mark.parametrize(("function", "declared", "message"), REFUSED_CORRECTIONS)
def test_the_decorator_of_corrections_refuses(function, declared, message, registry):
    with pytest.raises(MethodError, match=message):
        correction(**declared)(function)
    assert not registry


def test_a_correction_is_recorded_beside_the_losses(registry):
    assert correction(at="weights", search={"far": (0, 1)})(moves) is moves
    assert correction(estimate=print)(wraps_with_transition) is wraps_with_transition
    found = registry["correction", "moves"]
    assert (found.kind, found.at, found.defaults, found.search) == (
        "correction",
        "weights",
        {"far": 0.1},
        {"far": Range(0, 1)},
    )
    assert registry["correction", "wraps_with_transition"].estimate is print


def test_find_joins_a_correction_and_a_loss():
    assert find(KNOWN, "gce") is KNOWN["gce"]
    assert find(KNOWN, "mixup") is KNOWN["mixup"]
    found = find(KNOWN, "mixup-gce")
    assert (found.id, found.module) == ("mixup-gce", "reference.corrections.mixup+reference.losses.gce")
    assert found.defaults == {"q": 0.7, "mix": 1.0}
    assert found.function is KNOWN["gce"].function
    assert found.hook("inputs") is KNOWN["mixup"].correction.function
    assert found.hook("weights") is None
    assert find(KNOWN, "mixup-ce").id == "mixup"
    assert list(select(KNOWN, ["mixup-gce", "ce", "ls-nce_rce"])) == ["ce", "ls-nce_rce", "mixup-gce"]


@pytest.mark.parametrize(
    ("id", "error", "message"),
    [
        ("mixup-gse", UnknownMethod, "no method 'gse'; did you mean .*gce"),
        ("mixupp-gce", UnknownMethod, "no method 'mixupp'; did you mean mixup"),
        ("mixup-", UnknownMethod, "no method ''"),
        ("-gce", UnknownMethod, "no method ''"),
        ("mixup-gce-ce", UnknownMethod, "no method 'gce-ce'; did you mean"),
        ("mixup-mixup", MethodError, "'mixup-mixup': a correction, a hyphen, and the loss that it wraps"),
        ("gce-mixup", MethodError, "'gce-mixup': a correction, a hyphen, and the loss that it wraps"),
        ("gce-ce", MethodError, "'gce-ce': a correction, a hyphen, and the loss that it wraps"),
        ("elr-aldr", MethodError, "'elr' cannot wrap 'aldr': both keep memory"),
        ("ls-aldr", MethodError, "'ls' cannot wrap 'aldr': 'aldr' keeps memory"),
        ("mixup-aldr", MethodError, "'mixup' cannot wrap 'aldr': 'aldr' keeps memory"),
    ],
)
def test_what_find_refuses(id, error, message):
    with pytest.raises(error, match=message):
        find(KNOWN, id)


def with_features(logits, target, *, head): ...


CLASHES = [
    (wraps_with_q, {"state": Memory(0.0)}, with_q, {}, "both have a hyperparameter 'q'"),
    (wraps_with_q, {"state": Memory(0.0)}, with_state, {"state": Memory(0.0)}, "both keep memory"),
    (mixes, {"at": "inputs", "draws": 2}, with_draws, {"draws": 1}, "both use draws"),
    (mixes, {"at": "inputs", "draws": 2}, with_state, {"state": Memory(0.0)}, "'with_state' keeps memory"),
    (wraps, {}, plain, {"batchwise": True}, "the values of 'plain' belong to a batch, not to samples"),
    (wraps, {}, plain, {"outputs": lambda classes: classes - 1}, "'plain' has outputs or probabilities of its own"),
]


@pytest.mark.parametrize(("outer", "of_outer", "inner", "of_inner", "message"), CLASHES)
def test_what_does_not_go_together(outer, of_outer, inner, of_inner, message, registry):
    correction(**of_outer)(outer)
    loss(**of_inner)(inner)
    parts = registry["correction", outer.__name__], registry["loss", inner.__name__]
    with pytest.raises(MethodError, match=f"'{outer.__name__}' cannot wrap '{inner.__name__}': .*{message}"):
        corrected(*parts)


def test_a_corrected_loss_has_what_both_declare(registry):
    correction(search={"q": (0.0, 1.0)}, state=Memory(0.5), bounded=True, tags=("outer",))(wraps_with_q)
    loss(search={}, symmetric=True, tags=("inner",))(with_features)
    found = corrected(registry["correction", "wraps_with_q"], registry["loss", "with_features"])
    assert found.id == "wraps_with_q-with_features"
    assert found.supplied == ("state", "progress", "head")
    assert (found.symmetric, found.bounded, found.memory) == (False, True, Memory(0.5))
    assert (found.defaults, found.search) == ({"q": 0.7}, {"q": Range(0.0, 1.0)})
    assert found.tags == ("outer",)  # whether the whole is proper, the inner cannot say
    assert found.described is wraps_with_q


def test_a_corrected_loss_passes_each_what_it_names(registry):
    @correction()
    def doubled(base, logits, target, *, factor=2.0):
        return factor * base(logits, target)

    @loss()
    def shifted(logits, target, *, by=1.0, progress):
        return logits + by * progress

    both = corrected(registry["correction", "doubled"], registry["loss", "shifted"]).function
    assert both(1.0, None, factor=3.0, by=2.0, progress=0.5) == 6.0
    assert methods.named(both) == ("by", "progress", "factor")


def test_a_loss_and_a_correction_cannot_share_an_id():
    command = (
        "from reference.methods import catalogue, correction\n"
        "@correction(id='gce')\ndef f(base, logits, target): ...\ncatalogue('loss')"
    )
    found = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "a loss and a correction have the id 'gce': reference.losses.gce and __main__" in found.stderr


# -- methods from other packages --------------------------------------------------------------------------------------

OUTSIDE = '''
"""Outside (A. Author, Venue 2024)."""

from reference.methods import loss


@loss()
def {name}(logits, target):
    """A loss for logits (N, C) and target (N,); returns (N,)."""
'''


def installed(folder, name, *, module="outside_losses"):
    """A package with one loss of this name and an entry point to it, as pip would leave it in ``folder``."""
    (folder / "outside_losses.py").write_text(OUTSIDE.format(name=name))
    information = folder / "outside_losses-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-losses\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{methods.ENTRY_POINTS}]\noutside = {module}\n")


def catalogued(folder):
    """A new interpreter that sees the folder and prints the catalogue: id and module of each loss."""
    command = "from reference.methods import catalogue\nfor m in catalogue('loss').values(): print(m.id, m.module)"
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


def test_a_loss_from_another_package_is_found(tmp_path):
    installed(tmp_path, "outside")
    found = catalogued(tmp_path)
    assert "outside outside_losses" in found.stdout.splitlines(), found.stderr
    assert "ce reference.losses.ce" in found.stdout.splitlines()


def test_another_package_cannot_take_a_known_id(tmp_path):
    installed(tmp_path, "ce")
    assert "two methods have the id 'ce': reference.losses.ce and outside_losses" in catalogued(tmp_path).stderr


def test_an_entry_point_that_cannot_be_loaded_is_named(tmp_path):
    installed(tmp_path, "outside", module="no_such_module")
    assert "entry point 'outside' = 'no_such_module' cannot be loaded" in catalogued(tmp_path).stderr


def test_declaring_methods_needs_no_torch():
    """The command line plans and shows records without it."""
    command = "import sys, reference.methods; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize(
    ("decorator", "function", "refused"),
    [
        (loss, with_counts, "counts"),
        (loss, with_observed, "observed"),
        (multilabel_loss, with_transition, "transition"),
        (long_tail_loss, with_observed, "observed"),
        (long_tail_loss, with_state, "state"),
    ],
)
def test_each_kind_is_supplied_with_its_own(decorator, function, refused, registry):
    """What a kind is not passed is taken for a hyperparameter without a default."""
    with pytest.raises(MethodError, match=f"'{refused}' needs the author's default"):
        decorator()(function)
    assert not registry


def test_a_multilabel_loss_is_registered(registry):
    multilabel_loss(id="seen", batchwise=True)(with_observed)
    long_tail_loss()(with_counts)
    found = registry["multilabel", "seen"]
    assert (found.kind, found.batchwise, found.supplied) == (
        "multilabel",
        True,
        ("observed", "counts", "rows", "cardinality"),
    )
    assert registry["longtail", "with_counts"].supplied == ("counts",)
    with pytest.raises(MethodError, match=r"declare learned=\.\.\. exactly when the signature names it"):
        multilabel_loss()(with_learned)
    with pytest.raises(MethodError, match="its link names 'q', which is no hyperparameter"):
        multilabel_loss(link=lambda logits, *, q: logits)(plain)

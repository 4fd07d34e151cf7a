"""What ``@calibrator`` records and refuses."""

import pytest

from reference import methods
from reference.methods import MethodError, Range, calibrator, catalogue, loss

KNOWN = catalogue("calibrator")  # before any test empties the registry


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(methods, "_registered", {})
    return methods._registered


def plain(logits, target): ...


def with_copies(logits, target, *, copies, generator, rate=0.1): ...


def with_state(logits, target, *, state): ...


def labels_first(target, logits): ...


def test_what_is_recorded(registry):
    declared = {"search": {"rate": (0.01, 1.0)}, "accuracy_preserving": True, "tags": ("mine",)}
    assert calibrator(**declared)(with_copies) is with_copies
    found = registry["calibrator", "with_copies"]
    assert (found.kind, found.accuracy_preserving, found.tags) == ("calibrator", True, ("mine",))
    assert found.supplied == ("copies", "generator")
    assert dict(found.defaults) == {"rate": 0.1}
    assert found.search == {"rate": Range(0.01, 1.0)}
    calibrator()(plain)
    assert not registry["calibrator", "plain"].accuracy_preserving


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (with_state, "calibrator 'with_state'.*'state' needs"),
        (labels_first, "the first parameters are 'logits, target'"),
    ],
)
def test_what_is_refused(function, message, registry):
    with pytest.raises(MethodError, match=message):
        calibrator()(function)
    assert not registry


def test_a_loss_is_not_supplied_with_what_a_calibrator_is():
    with pytest.raises(MethodError, match="'copies' needs the author's default"):
        loss()(with_copies)


def test_kinds_do_not_mix():
    assert {"none", "temperature", "isotonic"} <= set(KNOWN)
    assert all(method.kind == "calibrator" for method in KNOWN.values())
    assert "temperature" not in catalogue("loss")

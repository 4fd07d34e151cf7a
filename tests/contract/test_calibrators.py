"""The contract of a calibrator, over every registered one: a file in ``reference/calibrators`` needs no edit here."""

import re

import pytest
import torch
from latex2mathml.converter import convert

from reference.methods import catalogue

CALIBRATORS = catalogue("calibrator")
every_calibrator = pytest.mark.parametrize("method", CALIBRATORS.values(), ids=list(CALIBRATORS))


def matching(condition):
    """Parametrises over the calibrators for which the condition holds."""
    return pytest.mark.parametrize("method", [pytest.param(m, id=m.id) for m in CALIBRATORS.values() if condition(m)])


def sample(rows=400, classes=5, *, seed=0, size=1.5, sharper=2.0, shifted=0.0, dtype=torch.float64):
    """Logits (N, C) that are too sharp by this factor, each class shifted; targets drawn from what they should be.

    Of the size depends how often the prediction is right.
    """
    g = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(rows, classes, generator=g, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    return (sharper * logits + shifted * torch.linspace(-1, 1, classes).double()).to(dtype), target


def copies(logits):
    """Logits (3, N, C) of "transformed copies": each row's own, disturbed in a way that the row alone decides."""
    return torch.stack([logits + torch.sin(7 * logits * k) for k in (1, 2, 3)])


def fit(method, logits, target, **hyperparameters):
    given = {"copies": copies(logits), "generator": torch.Generator().manual_seed(0)}
    return method.function(logits, target, **{key: given[key] for key in method.supplied}, **hyperparameters)


def apply(method, fitted, logits):
    return fitted(logits, copies=copies(logits)) if "copies" in method.supplied else fitted(logits)


def calibrated(method, logits, target, new, **hyperparameters):
    return apply(method, fit(method, logits, target, **hyperparameters), new)


def settings(method):
    """The default hyperparameters, and each one at the ends of its search range."""
    yield dict(method.defaults)
    for name, allowed in method.search.items():
        yield {**method.defaults, name: allowed.low}
        yield {**method.defaults, name: allowed.high}


def assert_valid(log_p, logits):
    assert log_p.shape == logits.shape
    assert log_p.dtype == torch.float64
    assert log_p.isfinite().all()
    assert (log_p <= 1e-12).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(logits), dtype=torch.float64), rtol=0, atol=1e-9)


def far_and_wide(classes, dtype=torch.float64):
    """Logits of every size up to 1e4, ties and constants among them."""
    rows, _ = sample(20, classes, seed=3)
    parts = [rows * size for size in (0, 1e-3, 1, 30, 1e3)] + [1e4 * torch.eye(classes), -1e4 * torch.eye(classes)]
    return torch.cat([part.double() for part in parts]).clamp(-1e4, 1e4).to(dtype)


def degenerate():
    """Held-out sets that ask for more than they say: name -> logits, target."""
    logits, target = sample(60, seed=4)
    best, worst = logits.argmax(1), logits.argmin(1)
    return {
        "one sample": (logits[:1], target[:1]),
        "one sample, wrong": (logits[:1], worst[:1]),
        "two equal samples": (logits[:1].repeat(2, 1), target[:2]),
        "a class is absent": (logits, target.clamp(max=3)),
        "one class only": (logits, torch.full_like(target, 2)),
        "all correct": (logits, best),
        "all wrong": (logits, worst),
        "constant logits": (torch.zeros_like(logits), target),
        "the same row": (logits[:1].repeat(60, 1), target),
        "certain and correct": (1e4 * torch.nn.functional.one_hot(target, 5).double(), target),
        "certain and wrong": (1e4 * torch.nn.functional.one_hot((target + 1) % 5, 5).double(), target),
    }


@every_calibrator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 7])
def test_returns_log_probabilities(method, dtype, classes):
    logits, target = sample(200, classes, dtype=dtype)
    for hyperparameters in settings(method):
        fitted = fit(method, logits, target, **hyperparameters)
        for new in (logits, sample(30, classes, seed=1, dtype=dtype)[0], far_and_wide(classes, dtype)):
            assert_valid(apply(method, fitted, new), new)


@every_calibrator
@pytest.mark.parametrize("name", degenerate())
def test_degenerate_sets(method, name):
    """The result is valid everywhere, and on the set itself the mean confidence is no further from the accuracy."""
    logits, target = degenerate()[name]
    fitted = fit(method, logits, target)
    for new in (logits, sample(30, seed=5)[0], far_and_wide(5)):
        assert_valid(apply(method, fitted, new), new)
    before, after = torch.log_softmax(logits, 1), apply(method, fitted, logits)
    assert gap(after, target) <= gap(before, target) + 0.05


def gap(log_p, target):
    """How far the mean confidence lies from the accuracy."""
    return abs(float(log_p.amax(1).exp().mean() - (log_p.argmax(1) == target).double().mean()))


@every_calibrator
def test_fits_logits_of_any_size(method):
    logits, target = sample()
    for size in (0.01, 100.0):
        assert_valid(calibrated(method, size * logits, target, size * logits), logits)


@every_calibrator
def test_is_deterministic_and_leaves_its_inputs_alone(method):
    logits, target = sample()
    before = logits.clone(), target.clone(), torch.get_rng_state()
    assert torch.equal(*(calibrated(method, logits, target, logits) for _ in range(2)))
    assert torch.equal(logits, before[0])
    assert torch.equal(target, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


@every_calibrator
def test_the_order_of_the_held_out_rows_does_not_matter(method):
    logits, target = sample()
    rows = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
    new, _ = sample(seed=1)
    found, expected = calibrated(method, logits[rows], target[rows], new), calibrated(method, logits, target, new)
    torch.testing.assert_close(found.exp(), expected.exp(), rtol=0, atol=1e-5)


@every_calibrator
def test_a_row_does_not_depend_on_the_others(method):
    fitted, (new, _) = fit(method, *sample()), sample(20, seed=1)
    whole, alone = apply(method, fitted, new), torch.cat([apply(method, fitted, row[None]) for row in new])
    torch.testing.assert_close(alone, whole, rtol=1e-9, atol=1e-9)


@matching(lambda m: m.accuracy_preserving)
def test_the_predicted_class_stays(method):
    """Wherever it is not tied; where it is, it is still among the most probable."""
    new = torch.cat([sample(300, seed=1)[0], far_and_wide(5)])
    first, second = new.topk(2, 1).values.unbind(1)
    for logits, target in (sample(), sample(shifted=4.0), *degenerate().values()):
        log_p = calibrated(method, logits, target, new)
        own = log_p.gather(1, new.argmax(1, keepdim=True))[:, 0]
        assert (own >= log_p.amax(1)).all()
        clear = first - second > 1e-2
        assert torch.equal(log_p.argmax(1)[clear], new.argmax(1)[clear])


@matching(lambda m: not m.accuracy_preserving)
def test_the_predicted_class_can_change_for_the_better(method):
    """Where some classes are predicted too often."""
    new, labels = sample(1000, seed=1, shifted=4.0)
    after = calibrated(method, *sample(1000, shifted=4.0), new).argmax(1)
    assert (after == labels).double().mean() > (new.argmax(1) == labels).double().mean() + 0.01


@matching(lambda m: m.id != "none")
def test_too_sharp_predictions_get_better(method):
    """The Brier score of new samples, which a probability of nearly 0 does not spoil, and their gap."""
    (logits, target), (new, labels) = sample(1500, sharper=3.0), sample(1500, seed=1, sharper=3.0)
    before, after = torch.log_softmax(new, 1), calibrated(method, logits, target, new)

    def brier(log_p):
        return float((log_p.exp() - torch.nn.functional.one_hot(labels, 5)).square().sum(1).mean())

    assert brier(after) < brier(before) - 0.02
    assert gap(after, labels) < gap(before, labels) / 2


SURE = 6.0  # size of logits of which 86 % are right


def change_of_calibrated(method, size=1.5):
    """What becomes of the probabilities (N, C) of new samples where nothing is to be done, in the mean."""
    (logits, target), (new, _) = (sample(n, seed=k, size=size, sharper=1.0) for k, n in enumerate((3000, 400)))
    return (calibrated(method, logits, target, new).exp() - new.softmax(1)).abs().mean()


@every_calibrator
def test_calibrated_predictions_stay_nearly_as_they_are(method):
    """Of which 57 % are right."""
    assert change_of_calibrated(method) < 0.05


@matching(lambda m: "rebalanced" not in m.tags)
def test_calibrated_predictions_stay_nearly_as_they_are_where_most_are_right(method):
    assert change_of_calibrated(method, SURE) < 0.05


@matching(lambda m: "rebalanced" in m.tags)
def test_what_is_rebalanced_is_less_sure_where_most_are_right(method):
    """The one exception, declared by the tag: a fit that gives right and wrong predictions half of the weight each, as
    the method's paper and code have it, is calibrated to a population half of which is predicted wrongly."""
    logits, target = sample(3000, size=SURE, sharper=1.0)
    accuracy = (logits.argmax(1) == target).double().mean()
    assert accuracy > 0.8
    assert calibrated(method, logits, target, logits).amax(1).exp().mean() < accuracy - 0.05
    assert change_of_calibrated(method, SURE) > 0.05
    assert any("less sure than it should be" in remark for remark in method.remarks), "and its page says so"


@every_calibrator
def test_documentation(method):
    cited = re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert cited, f"the module's docstring begins 'Name (Authors, Venue Year)', found {method.citation!r}"
    assert re.search(r"for logits \(N, C\) and target \(N,\); returns", method.summary), method.summary
    assert len(method.formula) > 3, "the docstring has a paragraph $$ LaTeX $$"
    assert convert(method.formula).startswith("<math")


@every_calibrator
def test_defaults_are_searched_or_explained(method):
    for name, default in method.defaults.items():
        if name in method.search:
            assert method.search[name].low <= default <= method.search[name].high, name
        else:
            assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say why '{name}' is not tuned"

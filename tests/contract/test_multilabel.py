"""The contract of a multi-label loss, over every registered one, and of the long-tailed losses where it is the same."""

import functools
import itertools
import re

import pytest
import torch
from latex2mathml.converter import convert

from reference.methods import catalogue, named, supply

LOSSES = catalogue("multilabel")
LABELS = ("counts",)  # what is supplied for each label
SAMPLES = ("state", "observed", "draws")  # and for each sample, all but draws also for each label
every_loss = pytest.mark.parametrize("method", LOSSES.values(), ids=list(LOSSES))


def matching(condition):
    """Parametrises over the losses for which the condition holds."""
    return pytest.mark.parametrize("method", [pytest.param(m, id=m.id) for m in LOSSES.values() if condition(m)])


def batch(n, labels, *, scale=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, labels, generator=generator, dtype=dtype)
    target = (torch.rand(n, labels, generator=generator) < 0.4).to(dtype)
    target[:2] = torch.tensor([[0.0], [1.0]], dtype=dtype)  # a row without labels and one with all
    return logits, target


def supplied(method, logits, target, seed=1):
    """What the harness would pass beside the hyperparameters: the batch is part of 100 rows."""
    generator = torch.Generator().manual_seed(seed)
    seen = (torch.rand(target.shape, generator=generator) < 0.5).to(target)
    counts = torch.randint(1, 60, (logits.shape[-1],), generator=generator)
    counts[0] = 0  # a label that no training row has
    given = {
        "progress": torch.tensor(0.75),
        "draws": torch.rand(len(logits), method.draws, generator=generator),
        "counts": counts,
        "rows": torch.tensor(100.0),
        "observed": torch.maximum(seen, target),
        "cardinality": torch.tensor(1.7),
    }
    if method.memory:
        shape = logits.shape if method.memory.per_class else logits.shape[:1]
        given["state"] = torch.full(shape, method.memory.initial)
    if method.learned:
        given["learned"] = method.learned(logits.shape[-1], generator)
    return {key: given[key].to(logits) for key in method.supplied}


def values(method, logits, target, given=None, **hyperparameters):
    """The loss values, without the memory that some losses return beside them."""
    given = supplied(method, logits, target) if given is None else given
    found = method.function(logits, target, **given, **hyperparameters)
    return found[0] if method.memory else found


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


def settings(method):
    """The default hyperparameters, and each one at the ends of its search range."""
    yield dict(method.defaults)
    for name, allowed in method.search.items():
        yield {**method.defaults, name: allowed.low}
        yield {**method.defaults, name: allowed.high}


def every_pattern(labels):
    """Every row of logits at +-1 or 0, with every row of targets: (M, L) twice."""
    rows = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=labels)))
    marks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=labels)))
    return rows.repeat_interleave(len(marks), 0), marks.repeat(len(rows), 1)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("labels", [2, 7])
def test_shape_and_dtype(method, dtype, labels):
    logits, target = batch(6, labels, dtype=dtype)
    found = values(method, logits.requires_grad_(), target)
    assert found.shape == (() if method.batchwise else (6,))
    assert found.dtype == dtype
    assert torch.autograd.grad(found.sum(), logits)[0].dtype == dtype


@every_loss
def test_inputs_and_random_state_are_left_alone(method):
    logits, target = batch(6, 5)
    before = logits.clone(), target.clone(), torch.get_rng_state()
    first, second = values(method, logits, target), values(method, logits, target)
    assert torch.equal(first, second)
    assert torch.equal(logits, before[0])
    assert torch.equal(target, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


@every_loss
def test_finite_at_extreme_logits(method):
    """At every size to 1e4 in float32; 88 and 104 are where exp overflows and underflows."""
    rows, target = every_pattern(3)
    for hyperparameters in settings(method):
        for size in (0.0, 1.0, 17.0, 88.0, 104.0, 1e3, 1e4):
            found = values(method, size * rows, target, **hyperparameters)
            assert found.isfinite().all(), (size, hyperparameters)
            slope = gradient(lambda z, h=hyperparameters: values(method, z, target, **h), size * rows)
            assert slope.isfinite().all(), (size, hyperparameters)


# What a memory's update or a loss tagged so holds constant in the gradient is not constant in a difference.
@matching(lambda m: not m.memory and "stop-gradient" not in m.tags)
def test_gradient_against_finite_differences(method):
    logits, target = batch(4, 5)
    for hyperparameters in settings(method):
        function = functools.partial(values, method, target=target, **hyperparameters)
        assert torch.autograd.gradcheck(lambda z, f=function: f(logits=z), logits.requires_grad_())


@every_loss
def test_some_gradient(method):
    """A batch whose labels are predicted wrongly has one, and a step against it lowers the loss."""
    _, target = batch(8, 5)
    logits = 0.1 - 0.2 * target
    slope = gradient(lambda z: values(method, z, target), logits)
    assert slope.abs().max() > 1e-4
    step = 1e-3 / slope.abs().max()
    assert values(method, logits - step * slope, target).sum() < values(method, logits, target).sum()


@matching(lambda m: not m.batchwise)
def test_a_sample_does_not_depend_on_the_others(method):
    logits, target = batch(6, 5)
    others, marks = batch(6, 5, seed=1)
    others[3], marks[3] = logits[3], target[3]
    given = supplied(method, logits, target)
    alone, beside = values(method, logits, target, given)[3], values(method, others, marks, given)[3]
    torch.testing.assert_close(alone, beside, rtol=1e-12, atol=1e-12)
    slope = gradient(lambda z: values(method, z, target, given)[3], logits)
    assert (slope[torch.arange(6) != 3] == 0).all()


@every_loss
def test_the_order_of_a_batch_does_not_matter(method):
    logits, target = batch(6, 5)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    given = supplied(method, logits, target)
    moved = {key: value[order] if key in SAMPLES else value for key, value in given.items()}
    expected, found = values(method, logits, target, given), values(method, logits[order], target[order], moved)
    torch.testing.assert_close(found, expected if method.batchwise else expected[order], rtol=1e-12, atol=1e-12)


@every_loss
def test_the_order_of_the_labels_does_not_matter(method):
    logits, target = batch(6, 5)
    order = torch.tensor([3, 1, 0, 2, 4])
    given = supplied(method, logits, target)
    by_label = {*LABELS, "observed", *(["state"] if method.memory and method.memory.per_class else [])}
    moved = {key: value[..., order] if key in by_label else value for key, value in given.items()}
    expected, found = values(method, logits, target, given), values(method, logits[:, order], target[:, order], moved)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def three_runs(method, dtype=torch.float64):
    """Logits, target, supplies and hyperparameters of three runs, and all of them stacked."""
    runs = []
    for seed, u in enumerate((0.1, 0.5, 0.9)):
        logits, target = batch(6, 5, dtype=dtype, seed=seed)
        tuned = {key: torch.tensor(allowed.at(u), dtype=dtype) for key, allowed in method.search.items()}
        runs.append((logits, target, supplied(method, logits, target, seed), tuned))
    logits, target, *mappings = zip(*runs, strict=True)
    stacked = [{key: torch.stack([each[key] for each in both]) for key in both[0]} for both in mappings]
    return runs, (torch.stack(logits), torch.stack(target), *stacked)


@every_loss
def test_vmap_over_runs_equals_the_loop(method):
    """Three runs with hyperparameters of their own; sample-major logits and the label-major view of fleets."""
    runs, (logits, *rest) = three_runs(method)

    def one(logits, target, given, hyperparameters):
        return values(method, logits, target, given, **hyperparameters).mean()

    step = torch.vmap(torch.func.grad_and_value(one))
    expected = [torch.func.grad_and_value(one)(*run) for run in runs]
    for each in (logits, logits.mT.contiguous().mT):
        slopes, means = step(each, *rest)
        torch.testing.assert_close(means, torch.stack([mean for _, mean in expected]), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(slopes, torch.stack([slope for slope, _ in expected]), rtol=1e-10, atol=1e-12)


@matching(lambda m: m.memory)
def test_vmap_of_a_memory_equals_the_loop(method):
    runs, stacked = three_runs(method)

    def rows(logits, target, given, hyperparameters):
        return method.function(logits, target, **given, **hyperparameters)[1]

    expected = torch.stack([rows(*run) for run in runs])
    torch.testing.assert_close(torch.vmap(rows)(*stacked), expected, rtol=1e-10, atol=1e-12)
    assert (expected != method.memory.initial).any()


@every_loss
def test_compiles_to_one_graph(method):
    torch._dynamo.reset()
    logits, target = batch(6, 5, dtype=torch.float32)
    given = supplied(method, logits, target)
    hyperparameters = {k: torch.tensor(v) for k, v in method.defaults.items()}

    def function(z):
        return values(method, z, target, given, **hyperparameters)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), function(logits))
    torch.testing.assert_close(gradient(compiled, logits), gradient(function, logits))


@matching(lambda m: m.memory)
def test_memory_is_returned_without_gradient(method):
    logits, target = batch(6, 5)
    given = supplied(method, logits, target)
    before = given["state"].clone()
    found, rows = method.function(logits.requires_grad_(), target, **given)
    assert found.requires_grad
    assert (rows.shape, rows.dtype, rows.requires_grad) == (before.shape, before.dtype, False)
    assert torch.equal(given["state"], before)


@matching(lambda m: m.link)
def test_a_link_is_increasing_in_its_own_logit(method):
    """So that it changes probabilities, and no ranking of samples by a label."""
    logits, target = batch(50, 5)
    given = supplied(method, logits, target)
    found = method.link(logits, **supply(named(method.link), {**method.defaults, **given}))
    assert torch.equal(found.argsort(0), logits.argsort(0))


@matching(lambda m: "proper" in m.tags)
def test_proper_losses_are_stationary_at_their_own_probabilities(method):
    logits, _ = batch(20, 1)
    p = torch.sigmoid(logits)
    sides = [gradient(lambda z, y=y: values(method, z, torch.full_like(z, y)), logits) for y in (0.0, 1.0)]
    torch.testing.assert_close((1 - p) * sides[0] + p * sides[1], torch.zeros_like(p), rtol=0, atol=1e-12)
    assert sides[0].abs().max() > 1e-3


@every_loss
def test_documentation(method):
    cited = re.search(r"\(.+ (19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert cited, f"the module's docstring begins 'Name (Authors, Venue Year, ...).', found {method.citation!r}"
    shapes = "the docstring's first paragraph says the shapes: for logits (N, L) and target (N, L); returns (N,)"
    assert "for logits (N, L) and target (N, L); returns" in method.summary, shapes
    assert ("returns a scalar" in method.summary) == method.batchwise, shapes
    assert len(method.formula) > 3, "the docstring has a paragraph $$ LaTeX $$"
    assert convert(method.formula).startswith("<math")


@every_loss
def test_defaults_are_searched_or_explained(method):
    for name, default in method.defaults.items():
        if name in method.search:
            assert method.search[name].low <= default <= method.search[name].high, name
        else:
            assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say why '{name}' is not tuned"


def test_there_are_at_least_twenty_five():
    assert len(LOSSES) >= 25

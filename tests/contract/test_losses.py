"""The contract of a loss, over every registered one: a new file in ``reference/losses`` is covered without an edit.

So is one in ``reference/calibration``: losses that train calibrated models have the same contract.
"""

import functools
import itertools
import re
import shutil

import pytest
import torch
from latex2mathml.converter import convert

from reference.methods import catalogue, named, supply
from reference.softmax import log_softmax

# A correction of the loss is held to this contract around cross-entropy; one that acts elsewhere has the plain values.
EVERY = {**catalogue("loss"), **catalogue("calibration")}
LOSSES = {key: m for key, m in EVERY.items() if not m.correction or m.correction.at == "loss"}
SAMPLES = ("state", "draws")  # what is supplied for each sample
every_loss = pytest.mark.parametrize("method", LOSSES.values(), ids=list(LOSSES))


def matching(condition):
    """Parametrises over the losses for which the condition holds."""
    return pytest.mark.parametrize("method", [pytest.param(m, id=m.id) for m in LOSSES.values() if condition(m)])


def outputs(method, classes):
    return method.outputs(classes) if method.outputs else classes


def classes_of(method, logits):
    return next(c for c in itertools.count(2) if outputs(method, c) == logits.shape[-1])


def batch(method, n, classes, *, scale=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, outputs(method, classes), generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def supplied(method, logits, seed=1):
    """What the harness would pass beside the hyperparameters."""
    n, classes, memory = len(logits), classes_of(method, logits), method.memory
    generator = torch.Generator().manual_seed(seed)
    given = {
        "progress": torch.tensor(0.75),
        "draws": torch.rand(n, method.draws, generator=generator),
        "head": torch.randn(classes, 8, generator=generator),
        "transition": torch.eye(classes) + torch.rand(classes, classes, generator=generator),
    }
    given["transition"] /= given["transition"].sum(-1, keepdim=True)
    if memory:
        given["state"] = torch.full((n, classes) if memory.per_class else (n,), memory.initial)
    if method.learned:
        given["learned"] = method.learned(classes, generator)
    if method.adapted:
        given["adapted"] = torch.tensor(method.adapted.initial)
    return {key: given[key].to(logits) for key in method.supplied}


def values(method, logits, target, given=None, **hyperparameters):
    """The loss values, without the memory that some losses return beside them."""
    given = supplied(method, logits) if given is None else given
    found = method.function(logits, target, **given, **hyperparameters)
    return found[0] if method.memory else found


def log_probabilities(method, logits, given=None, **hyperparameters):
    """What the link makes of the logits, or the log-softmax."""
    given = supplied(method, logits) if given is None else given
    if method.link is None:
        return log_softmax(logits)
    return method.link(logits, **supply(named(method.link), {**method.defaults, **hyperparameters, **given}))


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


def settings(method):
    """The default hyperparameters, and each one at the ends of its search range."""
    yield dict(method.defaults)
    for name, allowed in method.search.items():
        yield {**method.defaults, name: allowed.low}
        yield {**method.defaults, name: allowed.high}


def extremes(method, classes, size):
    """Rows of logits: every pattern of +-size, all zero, and one output at +-size among zeros."""
    width = outputs(method, classes)
    signs = list(itertools.product((-1.0, 1.0), repeat=width))
    signs += [[0.0] * width, *torch.eye(width).tolist(), *(-torch.eye(width)).tolist()]
    return size * torch.tensor(signs)


def all_targets(method, rows):
    """Every row with every target: (M * C, outputs) and (M * C,)."""
    classes = classes_of(method, rows)
    return rows.repeat_interleave(classes, 0), torch.arange(classes).repeat(len(rows))


def over_labels(method, rows, **hyperparameters):
    """The sum over all labels of each row's loss: (M,)."""
    found = values(method, *all_targets(method, rows), **hyperparameters)
    return found.reshape(len(rows), -1).sum(-1)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 7])
def test_shape_and_dtype(method, dtype, classes):
    logits, target = batch(method, 6, classes, dtype=dtype)
    found = values(method, logits.requires_grad_(), target)
    assert found.shape == (() if method.batchwise else (6,))
    assert found.dtype == dtype
    assert torch.autograd.grad(found.sum(), logits)[0].dtype == dtype


@every_loss
def test_inputs_and_random_state_are_left_alone(method):
    logits, target = batch(method, 6, 5)
    before = logits.clone(), target.clone(), torch.get_rng_state()
    first, second = values(method, logits, target), values(method, logits, target)
    assert torch.equal(first, second)
    assert torch.equal(logits, before[0])
    assert torch.equal(target, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def far_and_wide(method):
    """Rows of float32 logits of every size up to 1e4."""
    sizes = (0.0, 1.0, 17.0, 88.0, 104.0, 1e3, 1e4)  # 88 and 104: where float32 exp overflows and underflows
    spread, _ = batch(method, 20, 5, scale=1e4, dtype=torch.float32)
    return torch.cat([*(extremes(method, 5, size) for size in sizes), spread.clamp(-1e4, 1e4)])


@every_loss
def test_finite_at_extreme_logits(method):
    logits, target = all_targets(method, far_and_wide(method))
    for hyperparameters in settings(method):
        assert values(method, logits, target, **hyperparameters).isfinite().all(), hyperparameters
        slope = gradient(lambda z, h=hyperparameters: values(method, z, target, **h), logits)
        assert slope.isfinite().all(), hyperparameters


# What a memory's update or a loss tagged so holds constant in the gradient is not constant in a difference.
@matching(lambda m: not m.memory and "stop-gradient" not in m.tags)
def test_gradient_against_finite_differences(method):
    logits, target = batch(method, 4, 5)
    for hyperparameters in settings(method):
        function = functools.partial(values, method, target=target, **hyperparameters)
        assert torch.autograd.gradcheck(lambda z, f=function: f(logits=z), logits.requires_grad_())


@matching(lambda m: not m.batchwise)
def test_a_sample_does_not_depend_on_the_others(method):
    logits, target = batch(method, 6, 5)
    others, labels = batch(method, 6, 5, seed=1)
    others[2], labels[2] = logits[2], target[2]
    alone, beside = values(method, logits, target)[2], values(method, others, labels)[2]
    torch.testing.assert_close(alone, beside, rtol=1e-12, atol=1e-12)
    slope = gradient(lambda z: values(method, z, target)[2], logits)
    assert (slope[torch.arange(6) != 2] == 0).all()


@every_loss
def test_the_order_of_a_batch_does_not_matter(method):
    logits, target = batch(method, 6, 5)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    given = supplied(method, logits)
    moved = {key: value[order] if key in SAMPLES else value for key, value in given.items()}
    expected, found = values(method, logits, target, given), values(method, logits[order], target[order], moved)
    torch.testing.assert_close(found, expected if method.batchwise else expected[order], rtol=1e-12, atol=1e-12)


def three_runs(method, dtype=torch.float64):
    """Logits, target, supplies and hyperparameters of three runs, and all of them stacked."""
    runs = []
    for seed, u in enumerate((0.1, 0.5, 0.9)):
        logits, target = batch(method, 6, 5, dtype=dtype, seed=seed)
        tuned = {key: torch.tensor(allowed.at(u), dtype=dtype) for key, allowed in method.search.items()}
        runs.append((logits, target, supplied(method, logits, seed), tuned))
    logits, target, *mappings = zip(*runs, strict=True)
    stacked = [{key: torch.stack([each[key] for each in both]) for key in both[0]} for both in mappings]
    return runs, (torch.stack(logits), torch.stack(target), *stacked)


def class_major(logits):
    return logits.mT.contiguous().mT


@every_loss
def test_vmap_over_runs_equals_the_loop(method):
    """Three runs with hyperparameters of their own; sample-major logits and the class-major view of fleets."""
    runs, (logits, *rest) = three_runs(method)

    def one(logits, target, given, hyperparameters):
        return values(method, logits, target, given, **hyperparameters).mean()

    step = torch.vmap(torch.func.grad_and_value(one))
    expected = [torch.func.grad_and_value(one)(*run) for run in runs]
    for each in (logits, class_major(logits)):
        slopes, means = step(each, *rest)
        torch.testing.assert_close(means, torch.stack([mean for _, mean in expected]), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(slopes, torch.stack([slope for slope, _ in expected]), rtol=1e-10, atol=1e-12)


@every_loss
def test_compiles_to_one_graph(method):
    torch._dynamo.reset()
    logits, target = batch(method, 6, 5, dtype=torch.float32)
    given = supplied(method, logits)
    hyperparameters = {k: torch.tensor(v) for k, v in method.defaults.items()}

    def function(z):
        return values(method, z, target, given, **hyperparameters)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), function(logits))
    torch.testing.assert_close(gradient(compiled, logits), gradient(function, logits))


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
@matching(lambda m: m.id in ("ce", "gce", "aldr", "nce_rce", "bitemp", "dmi", "ens", "lt"))
def test_generated_code_of_a_fleet_step(method):
    torch._dynamo.reset()
    _, (logits, *rest) = three_runs(method, torch.float32)
    step = torch.vmap(torch.func.grad_and_value(lambda z, y, given, h: values(method, z, y, given, **h).mean()))
    compiled, logits = torch.compile(step, fullgraph=True), class_major(logits)
    for found, expected in zip(compiled(logits, *rest), step(logits, *rest), strict=True):
        torch.testing.assert_close(found, expected)


@matching(lambda m: m.link)
def test_a_link_returns_log_probabilities(method):
    """At most 0 and nowhere NaN for any logits, and their exponentials sum to 1."""
    for logits in (batch(method, 50, 5)[0], batch(method, 50, 100)[0], far_and_wide(method)):
        for hyperparameters in settings(method):
            found = log_probabilities(method, logits, **hyperparameters)
            assert found.shape == (len(logits), classes_of(method, logits))
            assert found.dtype == logits.dtype
            assert (found <= 0).all(), hyperparameters  # nor NaN
            torch.testing.assert_close(found.exp().sum(-1), torch.ones_like(found[:, 0]), rtol=0, atol=1e-5)


@matching(lambda m: m.link)
def test_a_link_compiles_over_runs(method):
    torch._dynamo.reset()
    runs, (logits, _, given, tuned) = three_runs(method)
    expected = torch.stack([log_probabilities(method, z, given, **tuned) for z, _, given, tuned in runs])
    passed = supply(named(method.link), given | tuned)
    link = torch.vmap(lambda z, passed: method.link(z, **passed))
    compiled = torch.compile(link, backend="aot_eager", fullgraph=True)
    for function in (link, compiled):
        torch.testing.assert_close(function(class_major(logits), passed), expected, rtol=1e-10, atol=1e-12)


@matching(lambda m: "proper" in m.tags and not m.correction)
def test_proper_losses_are_stationary_at_their_own_probabilities(method):
    """Were the labels drawn from the predicted probabilities, no logit would have a mean gradient."""
    logits, _ = batch(method, 20, 5)
    for hyperparameters in settings(method):
        p = log_probabilities(method, logits, **hyperparameters).exp()
        rows, target = all_targets(method, logits)
        each = gradient(lambda z, y=target, h=hyperparameters: values(method, z, y, **h), rows)
        mean = (p.reshape(-1, 1) * each).reshape(20, 5, -1).sum(1)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-10)
        assert each.abs().max() > 1e-3


@matching(lambda m: m.symmetric)
def test_symmetric_losses_sum_to_a_constant(method):
    rows = torch.cat([batch(method, 10, 5, scale=scale)[0] for scale in (0.1, 1.0, 5.0)])
    for hyperparameters in settings(method):
        sums = over_labels(method, rows, **hyperparameters)
        torch.testing.assert_close(sums, sums[0].expand_as(sums), rtol=1e-10, atol=1e-10)


@matching(lambda m: not m.symmetric and not m.batchwise)
def test_other_losses_do_not_sum_to_a_constant(method):
    rows = torch.cat([batch(method, 10, 5, scale=scale)[0] for scale in (0.1, 1.0, 5.0)])
    sums = over_labels(method, rows)
    assert sums.max() - sums.min() > 1e-3 * sums.abs().max()


@matching(lambda m: not m.batchwise)
def test_bounded_exactly_when_declared(method):
    """Each time the logits grow tenfold, from 1e4 to 1e6, the largest value grows less where the loss is bounded."""
    every = settings(method) if method.bounded else [dict(method.defaults)]
    for hyperparameters in every:
        near, far, farthest = (
            values(method, *all_targets(method, extremes(method, 5, size).double()), **hyperparameters).abs().max()
            for size in (1e4, 1e5, 1e6)
        )
        assert (farthest - far < 0.9 * (far - near) + 1e-6 * far) == method.bounded, hyperparameters


@matching(lambda m: m.memory)
def test_memory_is_returned_without_gradient(method):
    logits, target = batch(method, 6, 5)
    given = supplied(method, logits)
    before = given["state"].clone()
    found, rows = method.function(logits.requires_grad_(), target, **given)
    assert found.requires_grad
    assert rows.shape == before.shape
    assert rows.dtype == before.dtype
    assert not rows.requires_grad
    assert torch.equal(given["state"], before)


@matching(lambda m: m.adapted)
def test_adapted_values_keep_their_form_and_depend_on_what_is_seen(method):
    """From three kinds of validation predictions: finite, of one shape and dtype, the same for the same, and moving."""
    first = torch.tensor(method.adapted.initial, dtype=torch.float64)
    for scale in (0.0, 1.0, 1e4):
        logits, target = batch(method, 50, 5, scale=scale)
        log_p, values = log_softmax(logits), first
        for _ in range(100):
            values = method.adapted.update(values, log_p, target)
            assert (values.shape, values.dtype) == (first.shape, first.dtype)
            assert values.isfinite().all()
        assert torch.equal(method.adapted.update(first, log_p, target), method.adapted.update(first, log_p, target))
        assert not torch.equal(values, first), scale
        hard, labels = all_targets(method, far_and_wide(method))
        assert method.function(hard, labels, adapted=values.float()).isfinite().all()


@every_loss
def test_documentation(method):
    cited = re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert cited, (
        f"the module's docstring begins 'Name (Authors, Venue Year, arXiv:0000.00000).', found {method.citation!r}"
    )
    shapes = "the docstring's first paragraph says the shapes: for logits (N, C) and target (N,); returns (N,)"
    assert re.search(r"\(N, C( - 1)?\)", method.summary), shapes
    assert "returns" in method.summary, shapes
    assert method.formula, "the docstring has a paragraph $$ LaTeX $$"
    assert convert(method.formula).startswith("<math")
    assert len(method.formula) > 3


@every_loss
def test_defaults_are_searched_or_explained(method):
    for name, default in method.defaults.items():
        if name in method.search:
            assert method.search[name].low <= default <= method.search[name].high, name
        else:
            assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say why '{name}' is not tuned"

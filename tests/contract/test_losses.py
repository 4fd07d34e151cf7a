"""The contract of a loss, over every registered one: a new file in ``reference/losses`` is covered without an edit."""

import functools
import itertools
import re
import shutil

import pytest
import torch
from latex2mathml.converter import convert

from reference.methods import catalogue

LOSSES = catalogue("loss")
every_loss = pytest.mark.parametrize("method", LOSSES.values(), ids=list(LOSSES))


def matching(condition):
    """Parametrises over the losses for which the condition holds."""
    return pytest.mark.parametrize("method", [pytest.param(m, id=m.id) for m in LOSSES.values() if condition(m)])


def batch(n, classes, *, scale=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def supplied(method, logits, progress=0.75):
    """What the harness would pass beside the hyperparameters."""
    n, classes = logits.shape
    like = {"dtype": logits.dtype, "device": logits.device}
    memory, given = method.memory, {}
    if memory:
        given["state"] = torch.full((n, classes) if memory.per_class else (n,), memory.initial, **like)
    if "progress" in method.supplied:
        given["progress"] = torch.tensor(progress, **like)
    if method.draws:
        given["draws"] = torch.rand(n, method.draws, generator=torch.Generator().manual_seed(1), dtype=logits.dtype)
    return given


def values(method, logits, target, **hyperparameters):
    """The loss values, without the memory that some losses return beside them."""
    found = method.function(logits, target, **{**supplied(method, logits), **hyperparameters})
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


def extremes(classes, size):
    """Rows (M, C): every pattern of +-size, all zero, and one class at +-size among zeros."""
    signs = list(itertools.product((-1.0, 1.0), repeat=classes))
    signs += [[0.0] * classes, *torch.eye(classes).tolist(), *(-torch.eye(classes)).tolist()]
    return size * torch.tensor(signs)


def all_targets(rows):
    """Every row with every target: (M * C, C) and (M * C,)."""
    classes = rows.shape[-1]
    return rows.repeat_interleave(classes, 0), torch.arange(classes).repeat(len(rows))


def over_labels(method, rows, **hyperparameters):
    """The sum over all labels of each row's loss: (M,)."""
    found = values(method, *all_targets(rows), **hyperparameters)
    return found.reshape(rows.shape).sum(-1)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 7])
def test_shape_and_dtype(method, dtype, classes):
    logits, target = batch(6, classes, dtype=dtype)
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
    sizes = (0.0, 1.0, 17.0, 88.0, 104.0, 1e3, 1e4)  # 88 and 104: where float32 exp overflows and underflows
    spread = 1e4 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    logits, target = all_targets(torch.cat([*(extremes(5, size) for size in sizes), spread.clamp(-1e4, 1e4)]))
    for hyperparameters in settings(method):
        assert values(method, logits, target, **hyperparameters).isfinite().all(), hyperparameters
        slope = gradient(lambda z, h=hyperparameters: values(method, z, target, **h), logits)
        assert slope.isfinite().all(), hyperparameters


@matching(lambda m: not m.memory)  # a memory's update is held constant in the gradient, but not in a difference
def test_gradient_against_finite_differences(method):
    logits, target = batch(4, 5)
    for hyperparameters in settings(method):
        function = functools.partial(values, method, target=target, **hyperparameters)
        assert torch.autograd.gradcheck(lambda z, f=function: f(logits=z), logits.requires_grad_())


@matching(lambda m: not m.batchwise)
def test_a_sample_does_not_depend_on_the_others(method):
    logits, target = batch(6, 5)
    others, labels = batch(6, 5, seed=1)
    others[2], labels[2] = logits[2], target[2]
    alone, beside = values(method, logits, target)[2], values(method, others, labels)[2]
    torch.testing.assert_close(alone, beside, rtol=1e-12, atol=1e-12)
    slope = gradient(lambda z: values(method, z, target)[2], logits)
    assert (slope[torch.arange(6) != 2] == 0).all()


@every_loss
def test_the_order_of_a_batch_does_not_matter(method):
    logits, target = batch(6, 5)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected, found = values(method, logits, target), values(method, logits[order], target[order])
    torch.testing.assert_close(found, expected if method.batchwise else expected[order], rtol=1e-12, atol=1e-12)


@every_loss
def test_vmap_over_runs_equals_the_loop(method):
    """Three runs with hyperparameters of their own; sample-major logits and the class-major view of fleets."""
    runs = [{k: r.at(u) for k, r in method.search.items()} for u in (0.1, 0.5, 0.9)]
    batches = [batch(6, 5, seed=seed) for seed in range(3)]
    target = torch.stack([y for _, y in batches])
    stacked = {k: torch.tensor([run[k] for run in runs], dtype=torch.float64) for k in method.search}

    def one(logits, target, hyperparameters):
        return values(method, logits, target, **hyperparameters).mean()

    step = torch.vmap(torch.func.grad_and_value(one))
    expected = [torch.func.grad_and_value(one)(z, y, run) for (z, y), run in zip(batches, runs, strict=True)]
    for layout in ("sample-major", "class-major"):
        logits = torch.stack([z for z, _ in batches])
        if layout == "class-major":
            logits = logits.mT.contiguous().mT
        slopes, means = step(logits, target, stacked)
        torch.testing.assert_close(means, torch.stack([mean for _, mean in expected]), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(slopes, torch.stack([slope for slope, _ in expected]), rtol=1e-10, atol=1e-12)


@every_loss
def test_compiles_to_one_graph(method):
    torch._dynamo.reset()
    logits, target = batch(6, 5, dtype=torch.float32)
    hyperparameters = {k: torch.tensor(v) for k, v in method.defaults.items()}

    def function(z):
        return values(method, z, target, **hyperparameters)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), function(logits))
    torch.testing.assert_close(gradient(compiled, logits), gradient(function, logits))


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
@matching(lambda m: m.id in ("ce", "gce", "aldr", "nce_rce"))
def test_generated_code_of_a_fleet_step(method):
    torch._dynamo.reset()
    drawn = [batch(6, 5, dtype=torch.float32, seed=seed) for seed in range(3)]
    logits = torch.stack([z for z, _ in drawn]).mT.contiguous().mT
    target = torch.stack([y for _, y in drawn])
    hyperparameters = {k: torch.full((3,), v) for k, v in method.defaults.items()}
    step = torch.vmap(torch.func.grad_and_value(lambda z, y, h: values(method, z, y, **h).mean()))
    compiled = torch.compile(step, fullgraph=True)
    for found, expected in zip(
        compiled(logits, target, hyperparameters), step(logits, target, hyperparameters), strict=True
    ):
        torch.testing.assert_close(found, expected)


@matching(lambda m: m.symmetric)
def test_symmetric_losses_sum_to_a_constant(method):
    rows = torch.cat([batch(10, 5, scale=scale)[0] for scale in (0.1, 1.0, 5.0)])
    for hyperparameters in settings(method):
        sums = over_labels(method, rows, **hyperparameters)
        torch.testing.assert_close(sums, sums[0].expand_as(sums), rtol=1e-10, atol=1e-10)


@matching(lambda m: not m.symmetric and not m.batchwise)
def test_other_losses_do_not_sum_to_a_constant(method):
    rows = torch.cat([batch(10, 5, scale=scale)[0] for scale in (0.1, 1.0, 5.0)])
    sums = over_labels(method, rows)
    assert sums.max() - sums.min() > 1e-3 * sums.abs().max()


@matching(lambda m: not m.batchwise)
def test_bounded_exactly_when_declared(method):
    """From logits of +-1e3 to +-1e4 the largest value stays where the loss is bounded, and grows where it is not."""
    every = settings(method) if method.bounded else [dict(method.defaults)]
    for hyperparameters in every:
        near, far = (
            values(method, *all_targets(extremes(5, size).double()), **hyperparameters).abs().max()
            for size in (1e3, 1e4)
        )
        assert (far < 1.01 * near + 1e-6) == method.bounded, hyperparameters


@matching(lambda m: m.memory)
def test_memory_is_returned_without_gradient(method):
    logits, target = batch(6, 5)
    given = supplied(method, logits)
    before = given["state"].clone()
    found, rows = method.function(logits.requires_grad_(), target, **given)
    assert found.requires_grad
    assert rows.shape == before.shape
    assert rows.dtype == before.dtype
    assert not rows.requires_grad
    assert torch.equal(given["state"], before)


@every_loss
def test_documentation(method):
    cited = re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert cited, (
        f"the module's docstring begins 'Name (Authors, Venue Year, arXiv:0000.00000).', found {method.citation!r}"
    )
    shapes = "the docstring's first paragraph says the shapes: for logits (N, C) and target (N,); returns (N,)"
    assert "(N, C)" in method.summary, shapes
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

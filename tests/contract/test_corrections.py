"""The contract of a correction, over every registered one: a file in ``reference/corrections`` needs no edit here.

A correction of the loss is, around cross-entropy, held to the contract of losses too (``test_losses.py``).
"""

import re

import pytest
import torch
from latex2mathml.converter import convert

from reference.methods import PLACES, MethodError, catalogue, corrected

LOSSES = catalogue("loss")
CORRECTIONS = {m.id: m.correction for m in LOSSES.values() if m.correction}
BASES = ("gce", "nce_rce", "ww")  # bounded, symmetric, and of logits: with a kink and without a bound
every_correction = pytest.mark.parametrize("method", CORRECTIONS.values(), ids=list(CORRECTIONS))


def matching(condition):
    """Parametrises over the corrections for which the condition holds."""
    return pytest.mark.parametrize("method", [pytest.param(m, id=m.id) for m in CORRECTIONS.values() if condition(m)])


of_the_loss = matching(lambda m: m.at == "loss")
elsewhere = matching(lambda m: m.at != "loss")
on_bases = pytest.mark.parametrize("base", BASES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=6, classes=5, *, seed=0, dtype=torch.float64):
    g = generator(seed)
    return 2 * torch.randn(n, classes, generator=g, dtype=dtype), torch.randint(classes, (n,), generator=g)


def transition(classes, seed=0, dtype=torch.float64):
    """Uniform and class-dependent noise together, (C, C)."""
    noise = torch.rand(classes, classes, generator=generator(seed), dtype=dtype)
    return 0.6 * torch.eye(classes, dtype=dtype) + 0.4 * noise / noise.sum(-1, keepdim=True)


def supplied(method, n, classes, seed=0, dtype=torch.float64):
    """What the harness passes, with a memory as a visit leaves it."""
    given = {}
    if method.memory:
        wrapped = corrected(method, LOSSES["ce"])
        logits, target = batch(n, classes, seed=seed + 10, dtype=dtype)
        shape = (n, classes) if method.memory.per_class else (n,)
        first = {"state": torch.full(shape, method.memory.initial, dtype=dtype)}
        if "progress" in method.supplied:
            first["progress"] = torch.tensor(0.0, dtype=dtype)
        given["state"] = wrapped.function(logits, target, **first)[1]
    if "progress" in method.supplied:
        given["progress"] = torch.tensor(0.75, dtype=dtype)
    if "transition" in method.supplied:
        given["transition"] = transition(classes, seed, dtype)
    if method.draws:
        given["draws"] = torch.rand(n, method.draws, generator=generator(seed), dtype=dtype)
    return given


def tensors(mapping, dtype=torch.float64):
    return {key: torch.tensor(value, dtype=dtype) for key, value in mapping.items()}


def arguments(method, seed=0, dtype=torch.float64, scale=1.0):
    """The first arguments of a correction that acts elsewhere than on the loss."""
    g = generator(seed)
    if method.at == "inputs":
        return torch.randn(6, 3, generator=g, dtype=dtype), torch.randint(5, (6,), generator=g)
    shapes = ((4, 3), (4,), (5, 4), (5,))
    return tuple([scale * torch.randn(shape, generator=g, dtype=dtype) for shape in shapes] for _ in range(2))


def leaves(found):
    return list(found) if isinstance(found, tuple | list) else [found]


# -- every place ------------------------------------------------------------------------------------------------------


@every_correction
def test_documentation(method):
    assert re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation), method.citation
    takes = {"loss": "logits (N, C) and target (N,)", "inputs": "inputs (N, ...) and target (N,)"}
    assert takes.get(method.at, "weights and gradients") in method.summary
    assert "returns" in method.summary
    assert len(method.formula) > 3
    assert convert(method.formula).startswith("<math")


@every_correction
def test_defaults_are_searched_or_explained(method):
    for name, default in method.defaults.items():
        if name in method.search:
            assert method.search[name].low <= default <= method.search[name].high, name
        else:
            assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say why '{name}' is not tuned"


@every_correction
def test_no_loss_has_a_hyperparameter_of_the_same_name(method):
    for base in LOSSES.values():
        wrapped = base.correction is None and not (base.batchwise and method.at == "loss")
        if wrapped:
            assert not set(method.defaults) & set(base.defaults), base.id


@every_correction
@on_bases
def test_wraps_other_losses(method, base):
    found = corrected(method, LOSSES[base])
    assert found.id == f"{method.id}-{base}"
    assert {**found.defaults} == {**LOSSES[base].defaults, **method.defaults}
    assert sum(found.hook(place) is not None for place in PLACES) == 1


@every_correction
def test_wraps_a_loss_with_memory_only_where_it_sees_neither_values_nor_samples(method):
    if method.at in ("weights", "gradients"):
        assert corrected(method, LOSSES["aldr"]).memory == LOSSES["aldr"].memory
    else:
        with pytest.raises(MethodError, match=rf"'{method.id}' cannot wrap 'aldr': .*memory"):
            corrected(method, LOSSES["aldr"])


# -- on the loss ------------------------------------------------------------------------------------------------------


def on_loss(method, base, logits, target, seed=0, **hyperparameters):
    """What the corrected loss returns: values, and for some new memory rows."""
    given = supplied(method, *logits.shape, seed=seed, dtype=logits.dtype) | hyperparameters
    return corrected(method, LOSSES[base]).function(logits, target, **given)


def values(method, *inputs, **hyperparameters):
    found = on_loss(method, *inputs, **hyperparameters)
    return found[0] if method.memory else found


@of_the_loss
@on_bases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_of_each_sample(method, base, dtype):
    logits, target = batch(dtype=dtype)
    found = values(method, base, logits.requires_grad_(), target)
    assert (found.shape, found.dtype) == ((6,), dtype)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert slope.dtype == dtype
    assert (slope != 0).any()


@of_the_loss
@on_bases
def test_finite_at_extreme_logits(method, base):
    for size in (0.0, 88.0, 1e3, 1e4):
        for seed in range(3):
            spread = torch.randn(40, 5, generator=generator(seed)).sign()
            if seed == 2:
                spread = torch.eye(5).repeat(8, 1)
            logits, target = (size * spread).requires_grad_(), torch.arange(40) % 5
            for hyperparameters in ({}, *({k: r.low} for k, r in method.search.items())):
                found = values(method, base, logits, target, **hyperparameters)
                assert found.isfinite().all()
                assert torch.autograd.grad(found.sum(), logits)[0].isfinite().all()


@matching(lambda m: m.memory)
def test_memory_of_a_visit(method):
    """Constant in the gradient, of the rows' shape, and not changed in place."""
    logits, target = batch()
    given = supplied(method, 6, 5)
    before = given["state"].clone()
    found, rows = corrected(method, LOSSES["gce"]).function(logits.requires_grad_(), target, **given)
    assert found.requires_grad
    assert not rows.requires_grad
    assert (rows.shape, rows.dtype) == (before.shape, before.dtype)
    assert torch.equal(given["state"], before)
    assert not torch.equal(rows, before)


@of_the_loss
@on_bases
def test_vmap_over_runs_equals_the_loop(method, base):
    """With hyperparameters, transition and memory of each run's own; sample-major and class-major logits."""
    wrapped = corrected(method, LOSSES[base])
    batches = [batch(seed=seed) for seed in range(3)]
    given = [
        supplied(method, 6, 5, seed) | tensors({k: r.at(u) for k, r in wrapped.search.items()})
        for seed, u in enumerate((0.1, 0.5, 0.9))
    ]

    def one(logits, target, given):
        found = wrapped.function(logits, target, **given)
        return (found[0] if method.memory else found).mean()

    step = torch.func.grad_and_value(one)
    expected = [step(z, y, own) for (z, y), own in zip(batches, given, strict=True)]
    stacked = {key: torch.stack([own[key] for own in given]) for key in given[0]}
    target = torch.stack([y for _, y in batches])
    for layout in ("sample-major", "class-major"):
        logits = torch.stack([z for z, _ in batches])
        if layout == "class-major":
            logits = logits.mT.contiguous().mT
        slopes, means = torch.vmap(step)(logits, target, stacked)
        torch.testing.assert_close(means, torch.stack([mean for _, mean in expected]), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(slopes, torch.stack([slope for slope, _ in expected]), rtol=1e-10, atol=1e-12)


@of_the_loss
@pytest.mark.parametrize("base", ["gce", "ww"])
def test_a_fleet_step_compiles_to_one_graph(method, base):
    torch._dynamo.reset()
    wrapped = corrected(method, LOSSES[base])
    batches = [batch(seed=seed, dtype=torch.float32) for seed in range(3)]
    logits, target = (torch.stack([pair[i] for pair in batches]) for i in range(2))
    given = [
        supplied(method, 6, 5, seed, torch.float32) | tensors(wrapped.defaults, torch.float32) for seed in range(3)
    ]
    stacked = {key: torch.stack([own[key] for own in given]) for key in given[0]}

    def one(z, y, own):
        found = wrapped.function(z, y, **own)
        return found[0].mean() if method.memory else found.mean()

    def step(z, y, given):
        return torch.func.grad(lambda z: torch.vmap(one)(z, y, given).sum())(z)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target, stacked), step(logits, target, stacked))


@matching(lambda m: m.estimate)
def test_an_estimate_is_a_transition(method):
    for rows in (16, 500):
        found = method.estimate(batch(rows, 5)[0].log_softmax(-1))
        assert found.shape == (5, 5)
        torch.testing.assert_close(found.sum(-1), torch.ones(5, dtype=torch.float64))


# -- elsewhere --------------------------------------------------------------------------------------------------------


@elsewhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_what_is_left_alone(method, dtype):
    first, given = arguments(method, dtype=dtype), supplied(method, 6, 5, dtype=dtype)
    before, state = [t.clone() for part in first for t in leaves(part)], torch.get_rng_state()
    found, again = (leaves(method.function(*first, **given, **method.defaults)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((t for part in first for t in leaves(part)), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    like = [*first, torch.ones((), dtype=dtype)] if method.at == "inputs" else first[0]
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in like]


@elsewhere
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e15])
def test_finite(method, scale):
    given = supplied(method, 6, 5, dtype=torch.float32)
    if method.draws:
        given["draws"] = given["draws"] * (scale > 0)  # a draw of exactly 0
    for name, allowed in (("", None), *method.search.items()):
        for value in (allowed.low, allowed.high) if allowed else (0.0,):
            hyperparameters = {**method.defaults, **({name: value} if name else {})}
            first = arguments(method, dtype=torch.float32, scale=scale)
            for found in leaves(method.function(*first, **given, **hyperparameters)):
                assert found.isfinite().all()


@elsewhere
def test_vmap_over_lists_equals_the_loop_and_compiles(method):
    torch._dynamo.reset()
    runs = [
        (
            arguments(method, seed),
            supplied(method, 6, 5, seed) | tensors({k: r.at(u) for k, r in method.search.items()}),
        )
        for seed, u in enumerate((0.1, 0.5, 0.9))
    ]
    expected = [leaves(method.function(*first, **given)) for first, given in runs]
    stacked = torch.utils._pytree.tree_map(lambda *parts: torch.stack(parts), *runs)

    def step(first, given):
        return torch.vmap(lambda first, given: method.function(*first, **given))(first, given)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for found in (step(*stacked), compiled(*stacked)):
        for got, parts in zip(leaves(found), zip(*expected, strict=True), strict=True):
            torch.testing.assert_close(got, torch.stack(parts), rtol=1e-10, atol=1e-12)

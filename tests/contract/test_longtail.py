"""The contract of a loss for classes of very different size, over every registered one."""

import itertools
import re

import pytest
import torch
from latex2mathml.converter import convert

from reference.methods import catalogue

LOSSES = catalogue("longtail")
every_loss = pytest.mark.parametrize("method", LOSSES.values(), ids=list(LOSSES))


def batch(n, classes, *, scale=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def supplied(method, logits):
    counts = torch.arange(logits.shape[-1]) ** 3  # one class has no training sample
    return {
        k: v.to(logits) for k, v in {"counts": counts, "progress": torch.tensor(0.9)}.items() if k in method.supplied
    }


def values(method, logits, target, **hyperparameters):
    return method.function(logits, target, **supplied(method, logits), **hyperparameters)


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


def settings(method):
    """The default hyperparameters, and each one at the ends of its search range."""
    yield dict(method.defaults)
    for name, allowed in method.search.items():
        yield {**method.defaults, name: allowed.low}
        yield {**method.defaults, name: allowed.high}


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 7])
def test_shape_and_dtype(method, dtype, classes):
    logits, target = batch(6, classes, dtype=dtype)
    found = values(method, logits.requires_grad_(), target)
    assert (found.shape, found.dtype) == ((6,), dtype)
    assert torch.autograd.grad(found.sum(), logits)[0].dtype == dtype


@every_loss
def test_finite_at_extreme_logits(method):
    rows = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4))).repeat_interleave(4, 0)
    target = torch.arange(4).repeat(81)
    for hyperparameters in settings(method):
        for size in (0.0, 1.0, 88.0, 104.0, 1e4):
            assert values(method, size * rows, target, **hyperparameters).isfinite().all()
            slope = gradient(lambda z, h=hyperparameters: values(method, z, target, **h), size * rows)
            assert slope.isfinite().all(), (size, hyperparameters)


@every_loss
def test_gradient_against_finite_differences(method):
    logits, target = batch(4, 5)
    for hyperparameters in settings(method):
        function = lambda z, h=hyperparameters: values(method, z, target, **h)  # noqa: E731
        assert torch.autograd.gradcheck(function, logits.requires_grad_())


@every_loss
def test_a_sample_does_not_depend_on_the_others(method):
    logits, target = batch(6, 5)
    others, labels = batch(6, 5, seed=1)
    others[2], labels[2] = logits[2], target[2]
    torch.testing.assert_close(values(method, logits, target)[2], values(method, others, labels)[2])


@every_loss
def test_the_order_of_the_classes_does_not_matter(method):
    logits, target = batch(6, 5)
    order = torch.tensor([3, 1, 0, 2, 4])
    given = supplied(method, logits)
    moved = {key: value[order] if key == "counts" else value for key, value in given.items()}
    found = method.function(logits[:, order], order.argsort()[target], **moved)
    torch.testing.assert_close(found, method.function(logits, target, **given))


@every_loss
def test_vmap_over_runs_equals_the_loop_and_compiles(method):
    torch._dynamo.reset()
    runs = []
    for seed, u in enumerate((0.1, 0.5, 0.9)):
        logits, target = batch(6, 5, seed=seed)
        tuned = {key: torch.tensor(allowed.at(u), dtype=logits.dtype) for key, allowed in method.search.items()}
        runs.append((logits, target, supplied(method, logits), tuned))
    logits, target, *mappings = zip(*runs, strict=True)
    stacked = [{key: torch.stack([each[key] for each in both]) for key in both[0]} for both in mappings]

    def one(logits, target, given, hyperparameters):
        return method.function(logits, target, **given, **hyperparameters).mean()

    step = torch.vmap(torch.func.grad_and_value(one))
    expected = [torch.func.grad_and_value(one)(*run) for run in runs]
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        slopes, means = function(torch.stack(logits), torch.stack(target), *stacked)
        torch.testing.assert_close(means, torch.stack([mean for _, mean in expected]))
        torch.testing.assert_close(slopes, torch.stack([slope for slope, _ in expected]))


@every_loss
def test_documentation(method):
    assert re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert re.search(r"for logits \(N, C\) and (integer )?target \(N,\); returns \(N,\)", method.summary)
    assert convert(method.formula).startswith("<math")
    for name, default in method.defaults.items():
        if name in method.search:
            assert method.search[name].low <= default <= method.search[name].high, name
        else:
            assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say why '{name}' is not tuned"


def test_kinds_do_not_mix():
    """What is no long-tailed loss of its own stands in both catalogues; the others do not join the boards of losses."""
    plain = catalogue("loss")
    assert {"ce", "focal"} <= set(LOSSES) & set(plain)
    assert not {"cb", "ldam", "logit_adjusted", "bce"} & set(plain)
    assert all(plain[key].kind == "loss" for key in ("ce", "focal"))

"""Log-sum-exp, and cross-entropy of logits: every implementation against the definition in float64."""

import functools
import math

import pytest
import torch

import kernels
from kernels.registry import Unsupported, on
from lossboard.measure import gate
from reference.ops.cross_entropy import cross_entropy
from reference.ops.logsumexp import logsumexp

INF, NAN = math.inf, math.nan
SUMS = [id for id in on("logsumexp", "cpu") if id != "compiled"]
LOSSES = [id for id in on("cross_entropy", "cpu") if id not in ("compiled", "in_place")]


def drawn(*shape, scale=3.0, seed=0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(n, classes):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("impl", SUMS)
def test_log_sum_exp(impl):
    cases = {f"{n} logits": {"x": drawn(3, n)} for n in (1, 15, 127, 128, 129, 5000)}
    cases |= {"large": {"x": drawn(3, 50, scale=1e4)}, "strided": {"x": drawn(7, 5).T}, "row": {"x": drawn(40)}}
    assert gate(lambda x: kernels.logsumexp(x, impl=impl), logsumexp, cases).faults == ()


@pytest.mark.parametrize("impl", SUMS)
@pytest.mark.parametrize(
    "values",
    [[INF, 0.0], [0.0, INF], [-INF, -INF], [-INF, 1.0], [NAN, 0.0], [NAN, INF], [INF, -INF], [1e38, -1e38], [INF, INF]],
)
@pytest.mark.parametrize("repeats", [1, 70])
def test_odd_logits_are_as_torch(impl, values, repeats):
    x = torch.tensor(values).repeat(3, repeats)
    torch.testing.assert_close(kernels.logsumexp(x, impl=impl), torch.logsumexp(x, -1), equal_nan=True)
    torch.testing.assert_close(logsumexp(x), torch.logsumexp(x, -1), equal_nan=True)


@pytest.mark.parametrize("impl", LOSSES)
@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"z_loss": 0.1}, {"label_smoothing": 0.2}]
)
def test_cross_entropy(impl, options):
    cases = {f"{n} x {v}": {"logits": drawn(n, v), "target": labels(n, v)} for n, v in ((1, 1), (33, 129), (5, 3000))}
    cases["large"] = {"logits": drawn(9, 50, scale=1e4), "target": labels(9, 50)}
    cases["ignoring"] = {"logits": drawn(9, 50), "target": labels(9, 50).index_fill(0, torch.tensor([0, 4]), -100)}
    verdict = gate(
        lambda **inputs: kernels.cross_entropy(**inputs, impl=impl, **options),
        lambda **inputs: cross_entropy(**inputs, **options),
        cases,
    )
    assert verdict.faults == ()


def test_the_compiled_forms_pass_the_gate():
    """Of one shape: they compile for each."""
    x, target = drawn(5, 130), labels(5, 130)
    assert gate(lambda x: kernels.logsumexp(x, impl="compiled"), logsumexp, {"x": {"x": x}}).faults == ()
    inputs = {"logits": x, "target": target}
    ours = functools.partial(kernels.cross_entropy, impl="compiled", z_loss=0.1, label_smoothing=0.2)
    theirs = functools.partial(cross_entropy, z_loss=0.1, label_smoothing=0.2)
    assert gate(ours, theirs, {"x": inputs}).faults == ()


def test_in_place_writes_the_gradient_over_the_logits():
    logits, target = drawn(6, 200).requires_grad_(), labels(6, 200)
    expected = torch.autograd.grad(cross_entropy(logits.double(), target), logits)[0]
    loss = kernels.cross_entropy(logits, target, impl="in_place")
    assert loss.item() == pytest.approx(cross_entropy(logits.double(), target).item(), rel=1e-6)
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    assert found.data_ptr() == logits.data_ptr()
    with pytest.raises(Unsupported, match="use 'recompute'"):
        torch.autograd.grad(loss, logits)


def test_targets_out_of_range_are_refused():
    with pytest.raises(IndexError, match="outside"):
        kernels.cross_entropy(drawn(2, 5), torch.tensor([1, 5]))


def test_no_rows_that_count():
    logits = drawn(3, 5).requires_grad_()
    kernels.cross_entropy(logits, torch.full((3,), -100), reduction="sum").backward()
    assert (logits.grad == 0).all()

"""Log-sum-exp, and cross-entropy of logits: every implementation against the definition in float64."""

import functools
import math

import pytest
import torch

import kernels
from kernels.registry import Unsupported, on
from lossboard.measure import gate
from reference.ops import cases
from reference.ops.cases import drawn, labels
from reference.ops.cross_entropy import cross_entropy
from reference.ops.logsumexp import logsumexp

INF, NAN = math.inf, math.nan
SUMS = [id for id in on("logsumexp", "cpu") if id != "compiled"]
LOSSES = [id for id in on("cross_entropy", "cpu") if id != "compiled"]


@pytest.mark.parametrize("impl", SUMS)
def test_log_sum_exp(impl):
    assert gate(functools.partial(kernels.logsumexp, impl=impl), logsumexp, cases.logsumexp()).faults == ()


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


OPTIONS = [{}, {"reduction": "sum"}, {"reduction": "none"}, {"z_loss": 0.1}, {"label_smoothing": 0.2}]


def held(impl, inputs, **options):
    """What the gate says of an implementation of cross-entropy."""
    return gate(
        functools.partial(kernels.cross_entropy, impl=impl, **options),
        functools.partial(cross_entropy, **options),
        inputs,
        overwrites=["logits"] if impl == "in_place" else [],
    ).faults


@pytest.mark.parametrize("impl", LOSSES)
@pytest.mark.parametrize("options", OPTIONS)
def test_cross_entropy(impl, options):
    inputs = cases.cross_entropy()
    if impl == "eager" and "z_loss" in options:
        del inputs["large"]  # the gradient of torch's own log-sum-exp is off by 2e-4 there
    if impl == "eager" and "label_smoothing" in options:
        del inputs["late"]  # torch's own gradient by a logit of 100 among small ones is off by 6e-6
    assert held(impl, inputs, **options) == ()


def test_the_compiled_forms_pass_the_gate():
    """Of one shape: they compile for each."""
    compiled = functools.partial(kernels.logsumexp, impl="compiled")
    assert gate(compiled, logsumexp, cases.logsumexp(one_shape=True)).faults == ()
    assert held("compiled", cases.cross_entropy(one_shape=True)) == ()
    plain = {"plain": cases.cross_entropy()["plain"]}
    assert held("compiled", plain, z_loss=0.1, label_smoothing=0.2) == ()


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

"""Decoupled softmax after a linear layer: every implementation against the definition, and that against the loss."""

import functools
import sys

import pytest
import torch

import kernels
from kernels.linear_decoupled_softmax.present import Present
from kernels.registry import Unsupported, catalogue, on
from lossboard.measure import gate
from reference.multilabel.dsm import dsm
from reference.ops import cases
from reference.ops.linear_decoupled_softmax import linear_decoupled_softmax

KERNELS = catalogue("linear_decoupled_softmax")
ALL = [id for id in on("linear_decoupled_softmax", "cpu") if id != "compiled"]  # which compiles for every shape
FINE = {"eps": 1e-9}  # so small that an approximation is none
every = pytest.mark.parametrize("impl", ALL)


def against(impl, inputs, **options):
    own = FINE if KERNELS[impl].approximate else {}
    return gate(
        functools.partial(kernels.linear_decoupled_softmax, impl=impl, **options, **own),
        functools.partial(linear_decoupled_softmax, **options),
        inputs,
        allowed=1e-6 if KERNELS[impl].approximate else 0.0,  # one that shows NaN in fewer places
    )


def as_matrix(positives, classes):
    found = torch.zeros(len(positives), classes + 1)
    found[torch.arange(len(positives))[:, None], positives] = 1  # -1 is the last column, which is none's
    return found[:, :classes]


def test_the_definition_is_the_loss_of_the_logits():
    for inputs in cases.linear_decoupled_softmax().values():
        hidden, weight, positives = (inputs[name] for name in ("hidden", "weight", "positives"))
        loss = dsm(hidden @ weight.T, as_matrix(positives, len(weight)))
        found = linear_decoupled_softmax(hidden, weight, positives, reduction="none")
        torch.testing.assert_close(found, loss, equal_nan=True, rtol=2e-5, atol=1e-5)


@every
def test_passes_the_gate(impl):
    assert against(impl, cases.linear_decoupled_softmax()).faults == ()


@every
def test_a_sum(impl):
    assert against(impl, {"plain": cases.present(300, 8, 1000, 6, seed=2)}, reduction="sum").faults == ()


def test_the_compiled_form_passes_the_gate():
    """Of one shape: it compiles for each."""
    assert against("compiled", cases.linear_decoupled_softmax(one_shape=True)).faults == ()


@pytest.mark.parametrize("impl", ["chunked", "auto"])
def test_gradients_from_the_forward_pass_are_the_callers_own(impl):
    """Of a graph that is kept; and where only hidden states want gradients the weight gets no place for its own."""
    inputs = cases.present(300, 8, 2000, 5)
    hidden, weight = inputs["hidden"].requires_grad_(), inputs["weight"].requires_grad_()
    loss = kernels.linear_decoupled_softmax(hidden, weight, inputs["positives"], impl=impl)
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(second, kept)
    loss = kernels.linear_decoupled_softmax(hidden, weight.detach(), inputs["positives"], impl=impl)
    node = loss.grad_fn
    while not hasattr(node, "saved_tensors"):
        node = node.next_functions[0][0]
    assert node.saved_tensors[1] is None
    with torch.no_grad():
        assert not kernels.linear_decoupled_softmax(hidden, weight, inputs["positives"], impl=impl).requires_grad


@pytest.mark.parametrize("impl", [id for id in ALL if not KERNELS[id].gradient_in_forward])
def test_a_value_for_each_row(impl):
    weights = torch.linspace(-1, 2, 37)
    own = FINE if KERNELS[impl].approximate else {}

    def weighed(function, **how):
        return lambda **inputs: function(**inputs, reduction="none", **how) * weights.to(inputs["hidden"].dtype)

    ours = weighed(kernels.linear_decoupled_softmax, impl=impl, **own)
    assert gate(ours, weighed(linear_decoupled_softmax), {"rows": cases.present()}).faults == ()


@pytest.mark.parametrize("impl", [id for id in ALL if KERNELS[id].approximate])
def test_what_is_left_out_is_bounded_by_eps(impl):
    inputs = cases.present(64, 16, 2000, 5)
    positives, gradients = inputs.pop("positives"), {}
    for eps in (2.0**-12, 2.0**-6, None):
        leaves = [x.clone().requires_grad_() for x in inputs.values()]
        if eps is None:
            linear_decoupled_softmax(*(x.double() for x in leaves), positives, reduction="sum").backward()
        else:
            kernels.linear_decoupled_softmax(*leaves, positives, impl=impl, eps=eps, reduction="sum").backward()
        gradients[eps] = [x.grad for x in leaves]
    for eps in (2.0**-12, 2.0**-6):
        off_hidden, off_weight = (abs(a - b) for a, b in zip(gradients[eps], gradients[None], strict=True))
        assert 0 < off_hidden.max() <= eps * inputs["weight"].abs().sum(0).max()
        assert 0 < off_weight.max() <= eps * inputs["hidden"].abs().sum(0).max()


@every
def test_chunks_are_put_together(impl, monkeypatch):
    """Of 7 rows, which does not divide the number of rows."""
    for module in ("chunked", "cut"):
        found = sys.modules[f"kernels.linear_decoupled_softmax.{module}"]
        monkeypatch.setattr(found, "rows_at_once", lambda classes: 7)
    assert against(impl, {"plain": cases.present(40, 8, 9000, 3)}).faults == ()


def test_what_cannot_be_done_is_said():
    inputs = cases.present()
    with pytest.raises(IndexError, match="outside"):
        kernels.linear_decoupled_softmax(inputs["hidden"], inputs["weight"], torch.full((37, 2), 123))
    with pytest.raises(Unsupported, match="not 'none'"):
        kernels.linear_decoupled_softmax(**inputs, impl="chunked", reduction="none")
    with pytest.raises(Unsupported, match="has no option eps"):
        kernels.linear_decoupled_softmax(**inputs, impl="chunked", eps=0.1)
    with pytest.raises(Unsupported, match="needs eps > 0"):
        kernels.linear_decoupled_softmax(**inputs, impl="cut", eps=0.0)
    values = KERNELS["chunked"].function(
        inputs["hidden"].requires_grad_(),
        inputs["weight"],
        Present.of(inputs["positives"]),
        each=1.0,
    )
    with pytest.raises(Unsupported, match="equal weights"):
        (values * torch.arange(37)).sum().backward()

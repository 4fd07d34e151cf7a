"""Linear cross-entropy: every implementation against the definition in float64, over every option."""

import functools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import kernels
from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import Unsupported, catalogue, on
from lossboard.measure import gate
from reference.ops import cases
from reference.ops.cases import linear
from reference.ops.linear_cross_entropy import linear_cross_entropy

KERNELS = catalogue("linear_cross_entropy")
ALL = [id for id in on("linear_cross_entropy", "cpu") if id != "compiled"]  # which compiles for every shape
OWN = [id for id in ALL if id not in ("auto", "eager")]
FINE = {"eps": 1e-9}  # so small that an approximation is none
every = pytest.mark.parametrize("impl", ALL)


def settings(impl):
    return FINE if KERNELS[impl].approximate else {}


def against(impl, inputs, **options):
    return gate(
        functools.partial(kernels.linear_cross_entropy, impl=impl, **options, **settings(impl)),
        functools.partial(linear_cross_entropy, **options),
        inputs,
        allowed=1e-6 if KERNELS[impl].approximate else 0.0,  # one that shows NaN in fewer places
    )


@every
def test_passes_the_gate(impl):
    assert against(impl, cases.linear_cross_entropy()).faults == ()


@pytest.mark.parametrize("impl", [id for id in ALL if KERNELS[id].approximate])
def test_what_is_approximate_passes_within_its_error(impl):
    """With the settings of its own: what it leaves out of these small cases is at most 1 % of the largest gradient."""
    ours = functools.partial(kernels.linear_cross_entropy, impl=impl)
    assert gate(ours, linear_cross_entropy, cases.linear_cross_entropy(), allowed=0.01).faults == ()


OPTIONS = {
    "sum": {"reduction": "sum"},
    "softcap": {"softcap": 5.0},
    "z-loss": {"z_loss": 0.1},
    "label smoothing": {"label_smoothing": 0.2},
    "all but the cap": {"z_loss": 0.1, "label_smoothing": 0.2, "reduction": "sum"},
    "cap and z-loss": {"z_loss": 0.1, "softcap": 5.0},
    "ignore_index": {"ignore_index": 3},
    "shift": {"shift": True},
}


@every
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(impl, options):
    assert against(impl, {"bias": linear(bias=True), "plain": linear(300, 8, 1000, seed=2)}, **options).faults == ()


def test_the_compiled_form_passes_the_gate():
    """Of one shape: it compiles for each."""
    assert against("compiled", cases.linear_cross_entropy(one_shape=True)).faults == ()
    assert against("compiled", {"bias": linear(bias=True)}, softcap=5.0, z_loss=0.1, label_smoothing=0.2).faults == ()


@pytest.mark.parametrize("impl", [id for id in ALL if not KERNELS[id].approximate])
def test_cap_with_smoothing(impl):
    assert against(impl, {"plain": linear()}, softcap=3.0, label_smoothing=0.3).faults == ()


@pytest.mark.parametrize("impl", [id for id in ALL if not KERNELS[id].gradient_in_forward])
@pytest.mark.parametrize("options", [{}, {"z_loss": 0.1}, {"softcap": 4.0}, {"shift": True}])
def test_a_value_for_each_row_and_the_log_sum_exp(impl, options):
    def weighed(function, **extra):
        def operation(hidden, weight, target):
            values, lse = function(
                hidden, weight, target, reduction="none", return_lse=True, ignore_index=5, **options, **extra
            )
            assert values.shape == lse.shape == (target[..., 1:].shape if options.get("shift") else target.shape)
            return values + 0.3 * lse

        return operation

    inputs = linear(24, 7, 40)
    inputs["hidden"], inputs["target"] = inputs["hidden"].view(2, 12, 7), inputs["target"].view(2, 12)
    inputs["target"][0, :4] = 5
    ours = weighed(kernels.linear_cross_entropy, impl=impl, **settings(impl))
    assert gate(ours, weighed(linear_cross_entropy), {"rows": inputs}).faults == ()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("impl", ["chunked", "auto"])
def test_gradients_from_the_forward_pass_are_not_copied_unless_the_loss_is_scaled(impl, reduction):
    inputs = linear(700, 8, 1000)
    hidden, weight = inputs["hidden"].requires_grad_(), inputs["weight"].requires_grad_()
    for scale in (1.0, 3.0):
        loss = kernels.linear_cross_entropy(hidden, weight, inputs["target"], impl=impl, reduction=reduction)
        node = loss.grad_fn
        while not hasattr(node, "saved_tensors"):
            node = node.next_functions[0][0]
        kept = node.saved_tensors[1].data_ptr()
        _, found = torch.autograd.grad(scale * loss, (hidden, weight))
        exact = linear_cross_entropy(hidden.double(), weight.double(), inputs["target"], reduction=reduction)
        _, wanted = torch.autograd.grad(scale * exact, (hidden, weight))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert (found.data_ptr() == kept) == (scale == 1.0)


@every
def test_gradients_of_a_graph_that_is_kept_are_the_callers_own(impl):
    inputs = linear(700, 8, 1000)
    weight = inputs.pop("weight").requires_grad_()
    loss = kernels.linear_cross_entropy(weight=weight, **inputs, impl=impl, **settings(impl))
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    kept = first.clone()
    first.mul_(2)
    (second,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(second, kept)
    second.zero_()
    torch.testing.assert_close(first, 2 * kept)


def test_without_gradients_the_forward_pass_computes_none():
    inputs = linear(700, 8, 1000)
    weight = inputs.pop("weight").requires_grad_()
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
        kernels.linear_cross_entropy(weight=weight, **inputs, impl="chunked")
    assert not any(event.key == "aten::zeros_like" for event in seen.key_averages()), "no place for the weight's"
    frozen = kernels.linear_cross_entropy(inputs["hidden"].requires_grad_(), weight.detach(), inputs["target"])
    node = frozen.grad_fn
    while not hasattr(node, "saved_tensors"):
        node = node.next_functions[0][0]
    assert node.saved_tensors[1] is None


@pytest.mark.parametrize("impl", ["chunked", "auto"])
def test_a_loss_times_nan_has_gradients_of_nan_and_none_of_second_order(impl):
    inputs = linear(700, 8, 1000)
    hidden = inputs.pop("hidden").requires_grad_()
    loss = kernels.linear_cross_entropy(hidden, **inputs, impl=impl)
    (found,) = torch.autograd.grad(loss * float("nan"), hidden, retain_graph=True)
    assert found.isnan().all()
    with pytest.raises(Unsupported, match="eager"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@every
def test_no_rows_that_count(impl):
    inputs = linear()
    inputs["target"][:] = -100
    hidden = inputs.pop("hidden").requires_grad_()
    assert kernels.linear_cross_entropy(hidden, **inputs, impl=impl).isnan()
    total = kernels.linear_cross_entropy(hidden, **inputs, impl=impl, reduction="sum")
    total.backward()
    assert total.item() == 0
    assert (hidden.grad == 0).all()


@every
def test_nan_is_seen(impl):
    inputs = linear(bias=True)
    inputs["hidden"][3] = torch.nan
    hidden = inputs.pop("hidden").requires_grad_()
    loss = kernels.linear_cross_entropy(hidden, **inputs, impl=impl)
    loss.backward()
    assert loss.isnan()
    assert hidden.grad[3].isnan().any()


@every
@pytest.mark.parametrize("bad", [-1, 123])
def test_targets_out_of_range_are_refused(impl, bad):
    inputs = linear()
    inputs["target"][7] = bad
    with pytest.raises(IndexError, match="outside"):
        kernels.linear_cross_entropy(**inputs, impl=impl)


def peaked(n=256, d=32, v=4096):
    """Hidden states near their targets' embeddings, as a trained model's."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(v, d, generator=draw)
    target = torch.randint(v, (n,), generator=draw)
    return weight[target] + 0.6 * torch.randn(n, d, generator=draw), weight, target


@pytest.mark.parametrize("impl", [id for id in ALL if KERNELS[id].approximate])
def test_what_is_left_out_is_bounded_by_eps(impl):
    hidden, weight, target = peaked()
    gradients = {}
    for eps in (2.0**-12, 2.0**-6, None):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if eps is None:
            linear_cross_entropy(h.double(), w.double(), target, reduction="sum").backward()
        else:
            kernels.linear_cross_entropy(h, w, target, impl=impl, eps=eps, reduction="sum").backward()
        gradients[eps] = h.grad, w.grad
    for eps in (2.0**-12, 2.0**-6):
        off_hidden, off_weight = (abs(a - b) for a, b in zip(gradients[eps], gradients[None], strict=True))
        assert 0 < off_hidden.max() <= eps * weight.abs().sum(0).max()
        assert 0 < off_weight.max() <= eps * hidden.abs().sum(0).max()


@pytest.mark.parametrize("impl", OWN)
def test_autocast(impl):
    inputs = linear(64, 32, 300)
    weight = inputs.pop("weight").requires_grad_()
    found = []
    for function in (linear_cross_entropy, lambda *a, **k: kernels.linear_cross_entropy(*a, impl=impl, **k)):
        weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            loss = function(inputs["hidden"], weight, inputs["target"])
        loss.backward()
        assert loss.dtype == weight.grad.dtype == torch.float32
        found.append((loss.item(), weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=2e-3)
    assert (found[0][1] - found[1][1]).abs().max() < 0.02 * found[0][1].abs().max()


@pytest.mark.parametrize("impl", OWN)
def test_threads_agree_with_one(impl):
    inputs = linear(400, 16, 3000)
    weight = inputs.pop("weight").requires_grad_()
    gradients, before = [], torch.get_num_threads()
    for count in (1, 3):
        weight.grad = None
        torch.set_num_threads(count)
        try:
            kernels.linear_cross_entropy(weight=weight, **inputs, impl=impl, **settings(impl)).backward()
        finally:
            torch.set_num_threads(before)
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_what_an_implementation_cannot_do_it_says():
    inputs = linear()
    with pytest.raises(Unsupported, match="not 'none'"):
        kernels.linear_cross_entropy(**inputs, impl="chunked", reduction="none")
    with pytest.raises(Unsupported, match="label smoothing with a softcap"):
        kernels.linear_cross_entropy(**inputs, impl="cut", softcap=3.0, label_smoothing=0.1)
    with pytest.raises(Unsupported, match="has no option eps"):
        kernels.linear_cross_entropy(**inputs, impl="chunked", eps=0.1)
    with pytest.raises(ValueError, match="'mean', 'sum' and 'none'"):
        kernels.linear_cross_entropy(**inputs, reduction="max")
    hidden = inputs["hidden"].requires_grad_()
    values, _ = KERNELS["chunked"].function(
        hidden, inputs["weight"], inputs["target"], None, Terms(None, 0.0, 0.0), each=1.0
    )
    with pytest.raises(Unsupported, match="equal weights"):
        (values * torch.arange(37)).sum().backward()

"""Linear cross-entropy in Triton against the definition in float64."""

import functools

import pytest
import torch
from triton_place import DEVICE, INTERPRETED, drawn, labels, on_a_gpu

import kernels
from kernels.linear_cross_entropy.triton_plan import MOSTLY
from kernels.linear_cross_entropy.triton_tiles import SMALL
from kernels.registry import Unsupported, on
from lossboard.measure import gate
from reference.ops.linear_cross_entropy import linear_cross_entropy, logits_of

IDS = {"triton_exact": {}, "triton_cut": {"eps": 1e-9}}  # so small that the approximation is none
DTYPES = (
    [torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16]
)  # whose products the interpreter gets wrong
every = pytest.mark.parametrize("impl", IDS)


def case(n=37, d=19, v=123, *, seed=0, bias=False, scale=1.0, dtype=torch.float32):
    found = {
        "hidden": drawn(n, d, scale=scale, seed=seed, dtype=dtype),
        "weight": drawn(v, d, scale=1.0, seed=seed + 1, dtype=dtype),
        "target": labels(n, v),
    }
    return found | ({"bias": drawn(v, scale=1.0, seed=seed + 2, dtype=dtype)} if bias else {})


def against(impl, cases, **options):
    ours = functools.partial(kernels.linear_cross_entropy, impl=impl, **options, **IDS[impl])
    return gate(ours, functools.partial(linear_cross_entropy, **options), cases)


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_passes_the_gate(impl, dtype):
    ignoring = case(dtype=dtype)
    ignoring["target"][::3] = -100
    shapes = ((1, 1, 1), (1, 5, 300), (252, 16, 507), (129, 33, 128))
    cases = {f"{n} x {d} x {v}": case(n, d, v, dtype=dtype) for n, d, v in shapes}
    cases |= {
        "bias": case(bias=True, dtype=dtype),
        "large": case(scale=1e3, dtype=dtype),
        "ignoring": ignoring,
    }
    assert against(impl, cases).faults == ()


OPTIONS = {
    "sum": {"reduction": "sum"},
    "softcap": {"softcap": 5.0},
    "all but the cap": {"z_loss": 0.1, "label_smoothing": 0.2, "reduction": "sum"},
    "cap and z-loss": {"z_loss": 0.1, "softcap": 5.0},
    "shift": {"shift": True},
}


@every
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(impl, options):
    assert against(impl, {"bias": case(70, 19, 150, bias=True)}, **options).faults == ()


def test_cap_with_smoothing():
    assert against("triton_exact", {"plain": case()}, softcap=3.0, label_smoothing=0.3).faults == ()
    with pytest.raises(Unsupported, match="label smoothing with a softcap"):
        kernels.linear_cross_entropy(**case(), impl="triton_cut", softcap=3.0, label_smoothing=0.3)


@every
@pytest.mark.parametrize("options", [{"z_loss": 0.1}, {"softcap": 4.0}])
def test_a_value_for_each_row_and_the_log_sum_exp(impl, options):
    def weighed(function, **extra):
        def operation(hidden, weight, target):
            values, lse = function(hidden, weight, target, reduction="none", return_lse=True, **options, **extra)
            return values + 0.3 * lse

        return operation

    ours = weighed(kernels.linear_cross_entropy, impl=impl, **IDS[impl])
    assert gate(ours, weighed(linear_cross_entropy), {"rows": case()}).faults == ()


def peaked(n=200, d=32, v=1500):
    """Hidden states near their targets' embeddings, as a trained model's."""
    weight, target = drawn(v, d, scale=1.0), labels(n, v)
    return weight[target] + drawn(n, d, scale=0.6, seed=5), weight, target


@pytest.mark.parametrize("sort", [True, False])
def test_what_is_left_out_is_bounded_by_eps(sort):
    hidden, weight, target = peaked()
    h, w = hidden.double().requires_grad_(), weight.double().requires_grad_()
    exact = torch.autograd.grad(linear_cross_entropy(h, w, target, reduction="sum"), (h, w))
    for eps in (2.0**-12, 2.0**-6):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = kernels.linear_cross_entropy(h, w, target, impl="triton_cut", eps=eps, sort=sort, reduction="sum")
        off = [abs(a - b) for a, b in zip(torch.autograd.grad(loss, (h, w)), exact, strict=True)]
        assert 0 < off[0].max() <= eps * weight.abs().sum(0).max()
        assert 0 < off[1].max() <= eps * hidden.abs().sum(0).max()


@pytest.mark.parametrize("options", [{}, {"softcap": 80.0}, {"label_smoothing": 0.1, "z_loss": 0.01}])
def test_lists_of_rows_and_classes(options):
    """So few of both that the backward pass gathers them, and so small an eps that nothing else counts."""
    hidden, weight, target = peaked()
    inputs = {"hidden": 3 * hidden, "weight": weight, "target": target, "bias": drawn(len(weight), scale=0.1)}
    logits = logits_of(inputs["hidden"], weight, inputs["bias"], options.get("softcap"))
    likely = torch.nn.functional.pad(logits.softmax(1) >= 1e-5, (0, -len(weight) % SMALL.classes))
    assert likely.view(len(hidden), -1, SMALL.classes).any(2).float().mean() < MOSTLY  # else all are handled
    ours = functools.partial(kernels.linear_cross_entropy, impl="triton_cut", eps=1e-5, **options)
    verdict = gate(ours, functools.partial(linear_cross_entropy, **options), {"peaked": inputs}, allowed=1e-3)
    assert verdict.faults == ()


@every
@pytest.mark.parametrize("wanted", ["hidden", "weight", "bias"])
def test_one_gradient_alone(impl, wanted):
    inputs = case(bias=True)
    inputs[wanted].requires_grad_()
    expected = torch.autograd.grad(linear_cross_entropy(**inputs), inputs[wanted])[0]
    loss = kernels.linear_cross_entropy(**inputs, impl=impl, **IDS[impl])
    torch.testing.assert_close(torch.autograd.grad(loss, inputs[wanted])[0], expected, rtol=1e-4, atol=1e-6)


@every
def test_extreme_and_masked_logits(impl):
    inputs = case(bias=True)
    inputs["bias"][::2] = -torch.inf
    inputs["bias"][1] = 1e4
    inputs["bias"][3] = -1e4
    inputs["target"] = inputs["target"] // 2 * 2 + 1
    inputs["target"].clamp_(max=121)
    assert against(impl, {"masked": inputs}).faults == ()


@every
def test_log_sum_exps_far_from_0_lose_nothing(impl):
    """The logits are integers, exact in float32; their log-sum-exp is none, and its rounding would be that of all p."""
    inputs = case(bias=True)
    for name in ("hidden", "weight"):
        inputs[name] = inputs[name].round().clamp(-1, 1)
    inputs["bias"] = torch.full_like(inputs["bias"], 8192.0)
    assert against(impl, {"far": inputs}).faults == ()


@every
def test_nan_is_seen(impl):
    inputs = case(bias=True)
    inputs["hidden"][3] = torch.nan
    inputs["hidden"].requires_grad_()
    loss = kernels.linear_cross_entropy(**inputs, impl=impl)
    loss.backward()
    assert loss.isnan()
    assert inputs["hidden"].grad[3].isnan().all()
    assert not inputs["hidden"].grad[:3].isnan().any()


def test_parts_of_larger_tensors():
    hidden, weight = drawn(20, 40)[:, ::2], drawn(90, 50)[:, 7:27]
    inputs = {"hidden": hidden, "weight": weight, "target": labels(20, 90)}
    assert against("triton_exact", {"strided": inputs}).faults == ()


def test_one_dtype():
    inputs = case()
    inputs["weight"] = inputs["weight"].bfloat16()
    with pytest.raises(Unsupported, match="one dtype"):
        kernels.linear_cross_entropy(**inputs, impl="triton_cut")


@on_a_gpu
@pytest.mark.parametrize("impl", sorted({"apple_cut", "liger"} & set(on("linear_cross_entropy", "cuda"))))
def test_kernels_of_others(impl):
    inputs = case(256, 128, 1000, dtype=torch.bfloat16)
    found, expected = [], []
    for function, results in (
        (functools.partial(kernels.linear_cross_entropy, impl=impl), found),
        (linear_cross_entropy, expected),
    ):
        leaves = [inputs[name].clone().requires_grad_() for name in ("hidden", "weight")]
        loss = function(*leaves, inputs["target"], reduction="sum")
        results += [loss.detach(), *torch.autograd.grad(loss, leaves)]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.float() - theirs.float()).abs().max() < 0.02 * theirs.float().abs().max()


@on_a_gpu
def test_memory_beyond_the_gradients():
    """At the size of the paper's table 1: less than one percent of them."""
    n, v, d = 8192, 256000, 2304
    weight = (torch.randn(v, d, device=DEVICE, dtype=torch.bfloat16) / d**0.5).requires_grad_()
    target = torch.randint(v, (n,), device=DEVICE)
    hidden = (16 * weight.detach()[target]).requires_grad_()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = kernels.linear_cross_entropy(hidden, weight, target, impl="triton_cut")
    gradients = torch.autograd.grad(loss, (hidden, weight))
    size = sum(2 * g.numel() for g in gradients)
    assert torch.cuda.max_memory_allocated() - before < 1.01 * size

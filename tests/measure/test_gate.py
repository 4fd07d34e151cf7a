"""The gate: what is right passes, and each way of being wrong is caught and named."""

import math

import pytest
import torch

import kernels
from kernels.registry import catalogue
from lossboard.measure import gate
from reference.ops.softmax import softmax


def rows(*shape, scale=3.0):
    return {"x": scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))}


CASES = {
    **{f"{n} logits": rows(n) for n in (1, 127, 128, 129)},
    "matrix": rows(5, 1000),
    "strided": {"x": rows(40, 7)["x"].T},
    "large": rows(3, 50, scale=1e4),
    "masked": {"x": torch.tensor([[-math.inf, 1.0, 2.0], [0.0, -math.inf, -math.inf]])},
    "infinite": {"x": torch.tensor([[math.inf, 1.0, 2.0], [1.0, 2.0, 3.0]])},
    "nan": {"x": torch.tensor([[math.nan, 1.0, 2.0], [1.0, 2.0, 3.0]])},
    "nothing": {"x": torch.full((2, 3), -math.inf)},
}


@pytest.mark.parametrize("impl", [id for id in catalogue("softmax") if id != "compiled"])
def test_softmax_passes(impl):
    verdict = gate(lambda x: kernels.softmax(x, impl=impl), softmax, CASES)
    assert verdict.faults == ()
    assert {error.of for error in verdict.errors} == {"value", "x"}


def wrong_tail(x):
    whole = x.shape[-1] // 8 * 8
    return torch.cat([softmax(x)[..., :whole], torch.zeros_like(x[..., whole:])], -1)


def overwritten_input(x):
    y = softmax(x)
    x.data.sub_(1)
    return y


def no_shift(x):
    return x.exp() / x.exp().sum(-1, keepdim=True)


def half_precision(x):
    return softmax(x.bfloat16()).float()


def flat_nan(x):
    return softmax(x.nan_to_num(0.0))


def raises(x):
    raise RuntimeError("no such size")


class Upstream(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(y := softmax(x))
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * g.sub_((g * y).sum(-1, keepdim=True))


class Saved(Upstream):
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        found = y * (g - (g * y).sum(-1, keepdim=True))
        y.data.mul_(2)
        return found


class HalfGradient(Upstream):
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return 0.5 * y * (g - (g * y).sum(-1, keepdim=True))


BROKEN = {
    wrong_tail: "129 logits: value is off",
    overwritten_input: "the input x is overwritten",
    no_shift: "large: value is NaN",
    half_precision: "matrix: value is off",
    flat_nan: "nan: value is NaN in 0 places",
    raises: "raised RuntimeError: no such size",
    Upstream.apply: "the upstream gradient is overwritten",
    Saved.apply: "differs the second time|changes in the backward pass",
    HalfGradient.apply: "matrix: x is off",
}


@pytest.mark.parametrize(("broken", "fault"), BROKEN.items(), ids=[fault[:24] for fault in BROKEN.values()])
def test_what_is_broken_is_caught(broken, fault):
    verdict = gate(broken, softmax, CASES)
    assert not verdict.passed
    assert any(part in said for said in verdict.faults for part in fault.split("|")), verdict.faults


def test_an_approximation_states_the_error_of_its_gradient():
    class Rough(Upstream):
        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return y * (g - (g * y).sum(-1, keepdim=True)) * 1.001

    cases = {"matrix": CASES["matrix"]}
    assert not gate(Rough.apply, softmax, cases).passed
    assert gate(Rough.apply, softmax, cases, allowed=0.002).passed

"""The gate: what is right passes, and each way of being wrong is caught and named."""

import pytest
import torch

from lossboard.measure import gate
from reference.ops import cases
from reference.ops.cross_entropy import cross_entropy
from reference.ops.softmax import softmax

CASES = cases.softmax()


def test_the_definition_passes():
    verdict = gate(softmax, softmax, CASES)
    assert verdict.faults == ()
    assert {error.of for error in verdict.errors} == {"value", "x", "the second derivative by x"}


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


class Doubled(Upstream):
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        ctx.times = getattr(ctx, "times", 0) + 1
        return ctx.times * y * (g - (g * y).sum(-1, keepdim=True))


class Contiguous(Upstream):
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        g = g.as_strided(y.shape, torch.empty(y.shape).stride())  # as if its numbers were one after the other
        return y * (g - (g * y).sum(-1, keepdim=True))


class Frozen(Upstream):
    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * (g - (g * y).sum(-1, keepdim=True).detach())  # right once


def maximum_of_the_first_block(x):
    e = (x - x[..., :4096].amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


BROKEN = {
    wrong_tail: "129 logits: value is off",
    overwritten_input: "the input x is overwritten",
    no_shift: "large: value is NaN",
    half_precision: "plain: value is off",
    flat_nan: "odd: value is NaN in",
    raises: "raised RuntimeError: no such size",
    Upstream.apply: "the upstream gradient is overwritten",
    Saved.apply: "differs the second time|changes in the backward pass",
    HalfGradient.apply: "plain: x is off",
    Doubled.apply: "plain: the gradient of x differs the second time",
    Contiguous.apply: "plain: x is off",
    Frozen.apply: "plain: the second derivative by x is off",
    maximum_of_the_first_block: "late: value is NaN",
}


@pytest.mark.parametrize(("broken", "fault"), BROKEN.items(), ids=[fault[:24] for fault in BROKEN.values()])
def test_what_is_broken_is_caught(broken, fault):
    verdict = gate(broken, softmax, CASES)
    assert not verdict.passed
    assert any(part in said for said in verdict.faults for part in fault.split("|")), verdict.faults


def test_what_refuses_second_derivatives_passes():
    class Once(Upstream):
        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return y * (g - (g * y).sum(-1, keepdim=True))

    assert gate(Once.apply, softmax, {"plain": CASES["plain"]}).passed


def test_the_definition_is_computed_once_for_several_implementations():
    called, truths = [], {}

    def definition(x):
        called.append(x)
        return softmax(x)

    for _ in range(2):
        assert gate(softmax, definition, {"plain": CASES["plain"]}, truths=truths).passed
    assert list(truths) == ["plain"]
    assert len(called) == 4  # in float32 and in float64, each once more for second derivatives


def test_an_approximation_states_the_error_of_its_gradient():
    class Rough(Upstream):
        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return y * (g - (g * y).sum(-1, keepdim=True)) * 1.001

    plain = {"plain": CASES["plain"]}
    assert not gate(Rough.apply, softmax, plain).passed
    assert gate(Rough.apply, softmax, plain, allowed=0.002).passed


@pytest.mark.parametrize(("where", "passed"), [([0], True), ([], False), ([0, 1], False)])
def test_an_approximation_may_show_fewer_nans(where, passed):
    class Sparse(Upstream):
        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            found = y * (g - (g * y).sum(-1, keepdim=True))
            found = found.nan_to_num(0.0)
            found[where, 2] = torch.nan
            return found

    x = torch.zeros(2, 4)
    x[0, 1] = torch.nan
    assert gate(Sparse.apply, softmax, {"nan": {"x": x}}, allowed=1e-3).passed == passed
    assert not gate(Sparse.apply, softmax, {"nan": {"x": x}}).passed


def test_a_gradient_of_a_scalar_that_ignores_the_one_from_above_is_caught():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, target):
            with torch.enable_grad():
                x = logits.detach().requires_grad_()
                value = cross_entropy(x, target)
            ctx.save_for_backward(torch.autograd.grad(value, x)[0])
            return value.detach()

        @staticmethod
        def backward(ctx, g):
            return ctx.saved_tensors[0].clone(), None

    faults = gate(lambda logits, target: Own.apply(logits, target), cross_entropy, cases.cross_entropy()).faults
    assert any("plain: logits is off" in fault for fault in faults)


def test_what_says_so_may_overwrite_an_input_in_its_backward_pass():
    class InPlace(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, target):
            ctx.logits, ctx.target = logits, target
            return cross_entropy(logits, target)

        @staticmethod
        def backward(ctx, g):
            found = ctx.logits.detach()
            found.copy_(softmax(found))
            found[torch.arange(len(found)), ctx.target] -= 1
            return found.mul_(g / len(found)), None

    def operation(logits, target):
        return InPlace.apply(logits, target)

    plain = {"plain": cases.cross_entropy()["plain"]}
    before = plain["plain"]["logits"].clone()
    assert gate(operation, cross_entropy, plain, overwrites=["logits"]).passed
    assert torch.equal(plain["plain"]["logits"], before)
    faults = gate(operation, cross_entropy, plain).faults
    assert any("the input logits is overwritten" in fault for fault in faults)

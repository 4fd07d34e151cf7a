"""What the public calls promise whatever the implementation: shapes, dtypes, and how autograd meets them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.functional import hessian

import kernels
from kernels.registry import Unsupported, catalogue, on
from reference.ops.cross_entropy import cross_entropy
from reference.ops.linear_cross_entropy import linear_cross_entropy
from reference.ops.linear_decoupled_softmax import linear_decoupled_softmax
from reference.ops.logsumexp import logsumexp
from reference.ops.softmax import softmax

ROWS, WIDTH, CLASSES = 70, 3, 5000  # so many that `auto` does not keep the logits


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets(rows: int = ROWS, classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(1))


def implementations(op: str) -> list[str]:
    return [id for id in on(op, "cpu") if id != "compiled"]


# -- second derivatives -----------------------------------------------------------------------------------------------


def penalised(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the square of a loss's gradients: approximations have exact ones."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    return torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves)


def same_or_refused(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> bool:
    """Whether the implementation has second derivatives; fails where they are wrong."""
    try:
        found = penalised(ours, *inputs)
    except Unsupported:
        return False
    for a, b in zip(found, penalised(theirs, *(x.double() for x in inputs)), strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    return True


@pytest.mark.parametrize("impl", implementations("cross_entropy"))
def test_a_penalty_on_gradients_of_cross_entropy(impl: str) -> None:
    def ours(x: Tensor) -> Tensor:
        return kernels.cross_entropy(x * 1, targets(), impl=impl, label_smoothing=0.1, z_loss=0.1, reduction="sum")

    def theirs(x: Tensor) -> Tensor:
        return cross_entropy(x, targets(), label_smoothing=0.1, z_loss=0.1, reduction="sum")

    assert same_or_refused(ours, theirs, drawn(ROWS, CLASSES)) == (impl != "in_place")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("impl", implementations("linear_cross_entropy"))
def test_a_penalty_on_gradients_of_linear_cross_entropy(impl: str, reduction: str) -> None:
    keeps = catalogue("linear_cross_entropy")[impl].gradient_in_forward
    if keeps and reduction == "none":
        pytest.skip("no such reduction")
    inputs = drawn(ROWS, WIDTH), drawn(CLASSES, WIDTH, seed=1), drawn(CLASSES, seed=2)

    def of(call: Callable[..., Tensor], **chosen: str) -> Callable[..., Tensor]:
        return lambda h, w, b: call(h, w, targets(), bias=b, softcap=9.0, reduction=reduction, **chosen).sum()

    ours, theirs = of(kernels.linear_cross_entropy, impl=impl), of(linear_cross_entropy)
    has = same_or_refused(ours, theirs, *inputs)
    assert has == (not keeps and (impl, reduction) != ("auto", "mean"))


@pytest.mark.parametrize("impl", implementations("linear_decoupled_softmax"))
def test_a_penalty_on_gradients_of_linear_decoupled_softmax(impl: str) -> None:
    positives = torch.stack([targets(), (targets() + 1) % CLASSES], 1)
    inputs = drawn(ROWS, WIDTH), drawn(CLASSES, WIDTH, seed=1)
    has = same_or_refused(
        lambda h, w: kernels.linear_decoupled_softmax(h, w, positives, impl=impl),
        lambda h, w: linear_decoupled_softmax(h, w, positives),
        *inputs,
    )
    assert has == (impl in ("eager", "cut"))


@pytest.mark.parametrize("impl", implementations("logsumexp"))
def test_the_hessian_of_log_sum_exp(impl: str) -> None:
    x = drawn(40) + 1e3
    found = hessian(lambda x: kernels.logsumexp(x, impl=impl), x)
    assert (found - hessian(logsumexp, x.double())).abs().max() < 1e-6


@pytest.mark.parametrize("impl", implementations("softmax"))
def test_second_derivatives_of_softmax(impl: str) -> None:
    x = drawn(40)
    found = hessian(lambda x: kernels.softmax(x, impl=impl).square().sum(), x)
    assert (found - hessian(lambda x: softmax(x).square().sum(), x.double())).abs().max() < 1e-6


# -- forward mode, and tensors that are overwritten -------------------------------------------------------------------


@pytest.mark.parametrize("call", [kernels.softmax, kernels.logsumexp])
def test_forward_mode_is_refused_and_not_lost(call: Callable[[Tensor], Tensor]) -> None:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(drawn(4, 5), drawn(4, 5, seed=1))
        with pytest.raises((RuntimeError, NotImplementedError), match="forward"):
            call(dual)
        assert call(drawn(4, 5)).isfinite().all()  # what has no tangent is computed


def test_autograd_knows_that_an_output_is_overwritten() -> None:
    x, w = drawn(4, 5), torch.ones(4, 5, requires_grad=True)
    loss = (x * w).sum()
    kernels.softmax(x, out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_softmax_takes_as_its_output() -> None:
    x = drawn(4, 5).requires_grad_()
    with pytest.raises(Unsupported, match="no gradient"):
        kernels.softmax(x, out=torch.empty(4, 5))
    with torch.no_grad():
        assert torch.equal(kernels.softmax(x, out=torch.empty(4, 5)), kernels.softmax(x))
    with pytest.raises(TypeError, match="last dimension"):
        kernels.softmax(x, -1)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["softmax", "logsumexp"])
def test_what_runs_on_a_gpu_alone_says_so(op: str) -> None:
    for impl in set(on(op, "cuda")) - set(on(op, "cpu")):
        with pytest.raises(Unsupported, match="runs on cuda, not on cpu"):
            getattr(kernels, op)(drawn(4, 5), impl=impl)


# -- shapes and dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", implementations("linear_cross_entropy"))
def test_a_target_for_each_row(impl: str) -> None:
    h, w = drawn(2, 3, 4), drawn(9, 4)
    for wrong in (targets(5, 9), targets(6, 9), targets(6, 9).view(3, 2)):
        with pytest.raises(ValueError, match=r"target is \(.*row for each of \(2, 3\)"):
            kernels.linear_cross_entropy(h, w, wrong, impl=impl)
    with pytest.raises(ValueError, match=r"row for each of \(2, 2\)"):
        kernels.linear_cross_entropy(h, w, targets(4, 9).view(2, 2), impl=impl, shift=True)
    with pytest.raises(ValueError, match="bias is"):
        kernels.linear_cross_entropy(h, w, targets(6, 9).view(2, 3), impl=impl, bias=drawn(1))
    with pytest.raises(ValueError, match="hidden is"):
        kernels.linear_cross_entropy(h, drawn(9, 5), targets(6, 9).view(2, 3), impl=impl)
    with pytest.raises(Unsupported, match="whole number"):
        kernels.linear_cross_entropy(h, w, torch.zeros(2, 3), impl=impl)


@pytest.mark.parametrize("impl", implementations("cross_entropy"))
def test_a_target_for_each_row_of_logits(impl: str) -> None:
    for wrong in (targets(1, 9), targets(6, 9), targets(6, 9).view(3, 2)):
        with pytest.raises(ValueError, match="target is"):
            kernels.cross_entropy(drawn(2, 3, 9), wrong, impl=impl)


def test_labels_for_each_row() -> None:
    for h, positives in ((drawn(4, 3), torch.zeros(3, 1, dtype=torch.int64)), (drawn(4, 3), targets(4, 9))):
        with pytest.raises(ValueError, match="positives"):
            kernels.linear_decoupled_softmax(h, drawn(9, 3), positives)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
@pytest.mark.parametrize("classes", [9, CLASSES])
@pytest.mark.parametrize("impl", implementations("linear_cross_entropy"))
def test_targets_of_any_integer_dtype(impl: str, classes: int, dtype: torch.dtype) -> None:
    h, w, t = drawn(ROWS, WIDTH), drawn(classes, WIDTH), targets(ROWS, 9)
    found = kernels.linear_cross_entropy(h, w, t.to(dtype), impl=impl)
    assert torch.equal(found, kernels.linear_cross_entropy(h, w, t, impl=impl))


def test_the_loss_of_bfloat16_is_float32_where_no_row_counts_too() -> None:
    h, w, t = drawn(2, 4).bfloat16(), drawn(9, 4).bfloat16(), torch.tensor([-100, -100])
    for impl in implementations("linear_cross_entropy"):
        assert kernels.linear_cross_entropy(h, w, t, impl=impl, reduction="sum").dtype is torch.float32
        assert kernels.linear_cross_entropy(h.double(), w.double(), t, reduction="sum").dtype is torch.float64


def test_autocast_leaves_float64_as_it_is() -> None:
    h, w, t = drawn(ROWS, WIDTH).double(), drawn(CLASSES, WIDTH).double(), targets()
    with torch.autocast("cpu", torch.bfloat16):
        found = kernels.linear_cross_entropy(h, w, t)
    assert torch.equal(found, kernels.linear_cross_entropy(h, w, t))


def test_log_sum_exps_without_gradient_are_not_given_in_silence() -> None:
    h, w, t = drawn(ROWS, WIDTH), drawn(CLASSES, WIDTH).requires_grad_(), targets()
    with pytest.raises(Unsupported, match="log-sum-exps"):
        kernels.linear_cross_entropy(h, w, t, impl="chunked", return_lse=True)
    with torch.no_grad():
        _, lse = kernels.linear_cross_entropy(h, w, t, impl="chunked", return_lse=True)
    assert kernels.linear_cross_entropy(h, w, t, return_lse=True)[1].requires_grad
    torch.testing.assert_close(lse, logsumexp(h @ w.T), rtol=1e-5, atol=1e-5)


def test_an_infinite_logit_is_an_infinite_loss() -> None:
    h, w, t = drawn(ROWS, WIDTH), drawn(CLASSES, WIDTH), targets()
    bias = torch.zeros(CLASSES)
    bias[4000] = torch.inf
    for impl in implementations("linear_cross_entropy"):
        if impl not in ("auto", "eager"):  # torch's cross-entropy gives NaN
            values = kernels.linear_cross_entropy(h, w, t, impl=impl, bias=bias, reduction="sum")
            assert values == torch.inf, impl


def test_rows_of_nothing() -> None:
    assert torch.equal(kernels.logsumexp(torch.empty(3, 0)), torch.full((3,), -torch.inf))
    assert kernels.logsumexp(torch.empty(0, 3)).shape == (0,)
    assert kernels.softmax(torch.empty(3, 0)).shape == (3, 0)


def test_views_that_only_say_they_are_negative() -> None:
    x = torch._neg_view(torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.equal(kernels.logsumexp(x), kernels.logsumexp(x.resolve_neg()))
    target = torch.tensor([0])
    assert torch.equal(kernels.cross_entropy(x, target), kernels.cross_entropy(x.resolve_neg(), target))


# -- sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-12.664694786071777, -16.659, -3.3, -0.7])
def test_sums_of_equal_numbers(value: float) -> None:
    """Rounding goes one way with each of them: a lane must not add many."""
    x = torch.full((1, 9000), value)
    x[0, 0] = 0
    exact = x.double().softmax(-1)
    for impl in implementations("softmax"):
        if impl != "eager":
            assert ((kernels.softmax(x, impl=impl) - exact) / exact).abs().max() < 1e-6, impl
    sums = (logsumexp(x.double()).exp(), kernels.logsumexp(x).double().exp())
    assert abs(sums[1] / sums[0] - 1) < 1.5e-6

"""Log-sum-exp and cross-entropy of logits in Triton against the definitions in float64."""

import functools
import math

import pytest
import torch
from triton_place import DEVICE, drawn, labels

import kernels
from kernels.registry import Unsupported
from lossboard.measure import gate
from reference.ops.cross_entropy import cross_entropy
from reference.ops.logsumexp import logsumexp

INF, NAN = math.inf, math.nan
both = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@both
def test_log_sum_exp(dtype):
    cases = {f"{n} logits": {"x": drawn(3, n, dtype=dtype)} for n in (1, 15, 127, 128, 129, 5000, 20001)}
    cases |= {"large": {"x": drawn(3, 50, scale=1e4, dtype=dtype)}, "strided": {"x": drawn(7, 5, dtype=dtype).T}}
    assert gate(lambda x: kernels.logsumexp(x, impl="triton_online"), logsumexp, cases).faults == ()


@pytest.mark.parametrize(
    "values",
    [[INF, 0.0], [0.0, INF], [-INF, -INF], [-INF, 1.0], [NAN, 0.0], [NAN, INF], [INF, -INF], [1e38, -1e38], [INF, INF]],
)
@pytest.mark.parametrize("repeats", [1, 70, 5000])
def test_odd_logits_are_as_torch(values, repeats):
    x = torch.tensor(values, device=DEVICE).repeat(3, repeats)
    found = kernels.logsumexp(x, impl="triton_online")
    torch.testing.assert_close(found, torch.logsumexp(x, -1), equal_nan=True)


@both
@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"z_loss": 0.1}, {"label_smoothing": 0.2}]
)
def test_cross_entropy(dtype, options):
    cases = {
        f"{n} x {v}": {"logits": drawn(n, v, dtype=dtype), "target": labels(n, v)}
        for n, v in ((1, 1), (20, 129), (9, 123), (3, 9000))
    }
    cases["large"] = {"logits": drawn(9, 50, scale=1e4, dtype=dtype), "target": labels(9, 50)}
    cases["ignoring"] = {"logits": drawn(9, 50, dtype=dtype), "target": labels(9, 50).index_fill(0, labels(2, 9), -100)}
    ours = functools.partial(kernels.cross_entropy, impl="triton_recompute", **options)
    assert gate(ours, functools.partial(cross_entropy, **options), cases).faults == ()


def test_masked_classes_have_no_gradient():
    logits, target = drawn(4, 60), torch.zeros(4, dtype=torch.long, device=DEVICE)
    logits[:, 30:] = -INF
    found, expected = (
        torch.autograd.grad(function(logits.requires_grad_(), target), logits)[0]
        for function in (functools.partial(kernels.cross_entropy, impl="triton_recompute"), cross_entropy)
    )
    assert (found[:, 30:] == 0).all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_nan_is_seen():
    logits = drawn(4, 60)
    logits[2, 7] = NAN
    logits.requires_grad_()
    loss = kernels.cross_entropy(logits, labels(4, 60), impl="triton_recompute")
    loss.backward()
    assert loss.isnan()
    assert logits.grad[2].isnan().all()
    assert not logits.grad[:2].isnan().any()


def test_in_place_writes_the_gradient_over_the_logits():
    logits, target = drawn(6, 200).requires_grad_(), labels(6, 200)
    expected = torch.autograd.grad(cross_entropy(logits.double(), target), logits)[0]
    loss = kernels.cross_entropy(logits, target, impl="triton_in_place")
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    assert found.data_ptr() == logits.data_ptr()
    with pytest.raises(Unsupported, match="overwrote the logits"):
        torch.autograd.grad(loss, logits)

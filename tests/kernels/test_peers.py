"""Kernels of other packages: how they are called, with stand-ins for the packages, and that their absence is told."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("triton", reason="Triton is not installed")

from kernels import registry
from kernels.linear_cross_entropy.terms import Terms
from kernels.registry import Unsupported, required

PLAIN = Terms(None, 0.0, 0.0)


class Strict(torch.autograd.Function):
    """Refuses an upstream gradient that is expanded from one number, as some kernels do."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        assert upstream.stride() == (1,)
        return upstream


@pytest.fixture
def loaded(monkeypatch):
    """Imports a peer's file with a stand-in for its package, which has one function; afterwards all is as before."""
    before = {}

    def load(name, package, function):
        monkeypatch.setattr(registry, "_registered", {})
        parts = package.split(".")
        for i in range(len(parts)):
            module = ModuleType(".".join(parts[: i + 1]))
            module.__spec__, module.__path__ = ModuleSpec(module.__name__, None), []
            monkeypatch.setitem(sys.modules, module.__name__, module)
        setattr(module, function.__name__, function)
        before[name] = sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield load
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module:
            sys.modules[name] = module


def inputs():
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 4, generator=draw).requires_grad_() for n in (6, 9))
    return hidden, weight, torch.arange(6)


def test_cut_cross_entropy(loaded):
    calls = []

    def linear_cross_entropy(e, c, targets, *, softcap, reduction, filter_eps):
        calls.append((softcap, reduction, filter_eps))
        return Strict.apply(cross_entropy(e @ c.T, targets, reduction=reduction))

    peer = loaded("kernels.linear_cross_entropy.apple_cut", "cut_cross_entropy", linear_cross_entropy)
    hidden, weight, target = inputs()
    values, lse = peer.apple_cut(hidden, weight, target, None, PLAIN, return_lse=False, eps=0.0)
    values.sum().backward()
    assert lse is None
    torch.testing.assert_close(values, cross_entropy(hidden @ weight.T, target, reduction="none"))
    peer.apple_cut(hidden, weight, target, None, Terms(3.0, 0.0, 0.0), return_lse=False)
    assert calls == [(None, "none", None), (3.0, "none", 2.0**-12)]
    for terms, bias, wants_lse in (
        (Terms(None, 0.1, 0.0), None, False),
        (PLAIN, weight[:, 0], False),
        (PLAIN, None, True),
    ):
        with pytest.raises(Unsupported, match="use 'triton_cut'"):
            peer.apple_cut(hidden, weight, target, bias, terms, return_lse=wants_lse)


def test_liger_linear_cross_entropy(loaded):
    def liger_fused_linear_cross_entropy(x, weight, target, bias, *, lse_square_scale, label_smoothing, softcap):
        assert (lse_square_scale, label_smoothing, softcap) == (0.2, 0.1, 5.0)
        return cross_entropy(x @ weight.T, target)

    package = "liger_kernel.transformers.functional"
    peer = loaded("kernels.linear_cross_entropy.liger", package, liger_fused_linear_cross_entropy)
    hidden, weight, target = inputs()
    values, _ = peer.liger(hidden, weight, target, None, Terms(5.0, 0.1, 0.2), return_lse=False)
    assert values.shape == (6,)
    expected = cross_entropy(hidden @ weight.T, target, reduction="sum")
    torch.testing.assert_close(values.sum(), expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, hidden)[0] for loss in (values.sum(), expected)))
    with pytest.raises(Unsupported, match="log-sum-exps"):
        peer.liger(hidden, weight, target, None, PLAIN, return_lse=True)


def test_liger_cross_entropy(loaded):
    def liger_cross_entropy(logits, target, *, label_smoothing, lse_square_scale, reduction):
        assert lse_square_scale == 0.2
        return cross_entropy(logits, target, label_smoothing=label_smoothing, reduction=reduction)

    package = "liger_kernel.transformers.functional"
    peer = loaded("kernels.cross_entropy.liger", package, liger_cross_entropy)
    logits, _, target = inputs()
    found = peer.liger(logits[:3], target[:3], label_smoothing=0.1, z_loss=0.2)
    torch.testing.assert_close(found, cross_entropy(logits[:3], target[:3], label_smoothing=0.1, reduction="none"))


def test_an_absent_package_is_told_by_its_name():
    with pytest.raises(ModuleNotFoundError, match="no_such_peer") as error:
        required("no_such_peer")
    assert error.value.name == "no_such_peer"

"""Kernels: each implementation on small, middling and large rows, forwards or forwards and backwards."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .base import Measured, Timed, may_be_absent
from .inputs import labels, normal, peaked, sizes
from .memory import beyond

SMALL = 1 << 18  # elements: rows of fewer are computed as often as makes so many, or the clock would be measured


def known(op: str, impl: str) -> None:
    """Raises NotImplementedError where the commit lacks this implementation."""
    with may_be_absent():
        from kernels.registry import implementation
        from reference.methods import UnknownMethod
    try:
        implementation(op, impl)
    except UnknownMethod as error:
        raise NotImplementedError(str(error)) from error


class Softmax(Timed):
    """Softmax of rows into memory that exists; 262,144 elements where the shape has fewer."""

    version = "1"
    params = (["auto", "eager", "online", "two_pass"], ["1x1024", "64x8192", "2x1048576"])
    param_names = ("impl", "shape")

    def setup(self, impl: str, shape: str) -> None:
        known("softmax", impl)
        from kernels import softmax

        x = normal(*sizes(shape))
        self.calls = range(max(1, SMALL // x.numel()))
        self.softmax = functools.partial(softmax, x, torch.empty_like(x), impl=impl)
        self.softmax()

    def time_softmax(self, impl: str, shape: str) -> None:
        for _ in self.calls:
            self.softmax()


class LogSumExp(Timed):
    """Log-sum-exp of rows."""

    version = "1"
    params = (["auto", "eager", "online"], ["64x8192", "2x1048576"])
    param_names = ("impl", "shape")

    def setup(self, impl: str, shape: str) -> None:
        known("logsumexp", impl)
        from kernels import logsumexp

        self.logsumexp = functools.partial(logsumexp, normal(*sizes(shape)), impl=impl)
        self.logsumexp()

    def time_logsumexp(self, impl: str, shape: str) -> None:
        self.logsumexp()


class _CrossEntropy:
    """Cross-entropy of logits that exist, and its gradient."""

    version = "1"
    params = (["auto", "eager", "recompute"], ["64x32768"])
    param_names = ("impl", "shape")

    def setup(self, impl: str, shape: str) -> None:
        known("cross_entropy", impl)
        rows, classes = sizes(shape)
        self.logits, self.target = normal(rows, classes).clone().requires_grad_(), labels(rows, classes)
        self.step(impl)

    def step(self, impl: str) -> tuple[Tensor, ...]:
        from kernels import cross_entropy

        return torch.autograd.grad(cross_entropy(self.logits, self.target, impl=impl), (self.logits,))


class CrossEntropy(Timed, _CrossEntropy):
    def time_gradient(self, impl: str, shape: str) -> None:
        self.step(impl)


class CrossEntropyMemory(Measured, _CrossEntropy):
    def track_gradient_peak(self, impl: str, shape: str) -> int:
        return beyond(functools.partial(self.step, impl))


class _LinearCrossEntropy:
    """Cross-entropy after a linear layer, and the gradients of hidden states and weights; shapes are N x D x V."""

    version = "1"
    params = (["auto", "eager", "chunked", "blocked", "cut"], ["512x128x16384"])
    param_names = ("impl", "shape")

    def setup(self, impl: str, shape: str) -> None:
        known("linear_cross_entropy", impl)
        self.inputs = peaked(*sizes(shape))
        self.step(impl)

    def step(self, impl: str) -> tuple[Tensor, ...]:
        from kernels import linear_cross_entropy

        return torch.autograd.grad(linear_cross_entropy(*self.inputs, impl=impl), self.inputs[:2])


class LinearCrossEntropy(Timed, _LinearCrossEntropy):
    def time_gradients(self, impl: str, shape: str) -> None:
        self.step(impl)


class LinearCrossEntropyMemory(Measured, _LinearCrossEntropy):
    def track_gradients_peak(self, impl: str, shape: str) -> int:
        return beyond(functools.partial(self.step, impl))

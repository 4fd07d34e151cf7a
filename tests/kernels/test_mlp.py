"""Stacks of small networks against torch in float64, and every run against itself alone."""

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels import vectors
from kernels.mlp import Stack, picked

SHAPES = [  # runs, batch, features, hidden (multiples of 16), outputs
    (3, 64, 16, (16, 16), 26),
    (2, 16, 9, (16,), 7),
    (2, 32, 10, (16, 16), 11),
    (1, 48, 43, (16, 32, 16), 7),
    (2, 96, 180, (16, 16), 3),
    (2, 256, 64, (32, 48), 40),
    (2, 80, 5, (), 33),
    (1, 64, 40, (), 1),
    (2, 64, 256, (16, 16), 10),
]


def stacked(runs: int, features: int, hidden: tuple[int, ...], outputs: int) -> tuple[Stack, list[Tensor]]:
    """A stack and its parameters, and one more tensor that is trained beside them."""
    draw = torch.Generator().manual_seed(features)
    widths = (features, *hidden, outputs)
    parameters = []
    for a, b in itertools.pairwise(widths):
        parameters += [torch.randn(runs, b, a, generator=draw) / a**0.5, torch.randn(runs, b, generator=draw)]
    stack = Stack(widths)
    return stack, stack.laid_out([*parameters, torch.randn(runs, 5, generator=draw)])


def given(runs: int, batch: int, features: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, a batch of rows for every run, and gradients of the outputs."""
    draw = torch.Generator().manual_seed(batch)
    x = torch.randn(300, features, generator=draw)
    rows = torch.randint(300, (runs, batch), generator=draw)
    return x, rows, torch.randn(runs, outputs, batch, generator=draw) / batch


def plain(parameters: list[Tensor], x: Tensor) -> Tensor:
    """Outputs (R, out, N) for inputs (R, N, d), in torch."""
    layers = list(zip(parameters[::2], parameters[1::2], strict=False))
    for i, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias[:, None], x.tanh() if i else x, weight.mT)
    return x.mT


def test_laid_out_is_a_copy_in_one_matrix() -> None:
    stack, weights = stacked(3, 9, (16, 32), 7)
    again = stack.laid_out(weights)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert {w.untyped_storage().data_ptr() for w in again} == {again[0].untyped_storage().data_ptr()}
    assert all(w.data_ptr() % 64 == 0 and 4 * w.stride(0) % 64 == 0 for w in again)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients(shape: tuple[int, int, int, tuple[int, ...], int]) -> None:
    runs, batch, features, hidden, outputs = shape
    stack, weights = stacked(runs, features, hidden, outputs)
    x, rows, slope = given(runs, batch, features, outputs)
    gradients = stack.laid_out([torch.zeros_like(w) for w in weights])
    found = stack.forward(weights, x, rows)
    stack.backward(weights, slope, gradients)
    exact = [w.double().requires_grad_() for w in weights]
    wanted = plain(exact[:-1], x[rows].double())
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6)
    for mine, theirs in zip(gradients, torch.autograd.grad((wanted * slope).sum(), exact[:-1]), strict=False):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-6)
    assert gradients[-1].eq(0).all(), "what is not the networks' is left alone"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps(shape: tuple[int, int, int, tuple[int, ...], int]) -> None:
    """Gradient and step at once, one after the other, and in torch."""
    runs, batch, features, hidden, outputs = shape
    stack, weights = stacked(runs, features, hidden, outputs)
    x, rows, slope = given(runs, batch, features, outputs)
    velocity = stack.laid_out([torch.full_like(w, 0.25) for w in weights])
    lr = torch.tensor([0.1, 0.2, 0.3])[:runs]
    apart, gradients = ([stack.laid_out(t) for t in (weights, velocity)], stack.laid_out(weights))
    expected = [w.clone() for w in weights]
    stack.forward(weights, x, rows)
    stack.backward(weights, slope, gradients)
    gradients[-1].zero_()
    stack.descend(*apart, gradients, lr, 0.9, 1e-2)
    for w, g, mine in zip(expected, gradients, apart[0], strict=True):
        torch.testing.assert_close(mine, w - lr.view(-1, *[1] * (w.ndim - 1)) * (0.9 * 0.25 + 1e-2 * w + g))
    stack.forward(weights, x, rows)
    stack.backward_and_descend(weights[:-1], velocity[:-1], slope, lr, 0.9, 1e-2)
    for now, before in zip((*weights[:-1], *velocity[:-1]), (*apart[0][:-1], *apart[1][:-1]), strict=True):
        assert torch.equal(now, before)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_run_alone_has_the_same_bits(shape: tuple[int, int, int, tuple[int, ...], int]) -> None:
    runs, batch, features, hidden, outputs = shape
    stack, weights = stacked(runs, features, hidden, outputs)
    x, rows, slope = given(runs, batch, features, outputs)
    gradients = stack.laid_out([torch.zeros_like(w) for w in weights])
    together = stack.forward(weights, x, rows)
    stack.backward(weights, slope, gradients)
    for r in range(runs):
        alone = stack.laid_out([w[r : r + 1] for w in weights])
        own = stack.laid_out([torch.zeros_like(w) for w in alone])
        assert torch.equal(stack.forward(alone, x, rows[r : r + 1])[0], together[r])
        assert torch.equal(stack.forward([w[r : r + 1] for w in weights], x, rows[r : r + 1])[0], together[r])
        stack.backward(alone, slope[r : r + 1].contiguous(), own)
        assert all(torch.equal(mine[0], g[r]) for mine, g in zip(own, gradients, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_right(shape: tuple[int, int, int, tuple[int, ...], int]) -> None:
    runs, batch, features, hidden, outputs = shape
    stack, weights = stacked(runs, features, hidden, outputs)
    x, rows, _ = given(runs, batch, features, outputs)
    scores = stack.forward(weights, x, rows)
    labels = torch.where(torch.arange(batch) % 2 == 0, scores.argmax(1), 0)
    top = scores.topk(min(2, outputs), 1).values
    alone = top[:, 0] > top[:, 1] if outputs > 1 else torch.ones_like(labels, dtype=torch.bool)
    assert torch.equal(stack.right(weights, x, rows, labels), (scores.argmax(1) == labels) & alone)


def test_ties_and_nan_are_wrong() -> None:
    stack, weights = stacked(2, 9, (16,), 4)
    x, rows, _ = given(2, 32, 9, 4)
    for w in weights[2:4]:
        w.zero_()
    weights[3][0, 2] = 1
    labels = torch.full((2, 32), 2)
    assert stack.right(weights, x, rows, labels).sum(1).tolist() == [32, 0]
    x[rows[0, 5]] = float("nan")
    assert not stack.right(weights, x, rows, labels)[0, 5]
    weights[3][0, 1] = float("nan")  # another class's score alone is no number
    assert not stack.right(weights, x, rows, labels).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_odd_numbers_go_where_they_go_in_torch(value: float) -> None:
    """In a feature, a weight and a gradient of an output."""
    for place in range(3):
        stack, weights = stacked(2, 10, (16, 16), 5)
        x, rows, slope = given(2, 16, 10, 5)
        if place == 0:
            x[rows[0, 3], 2] = value
        elif place == 1:
            weights[2][0, 1, 4] = value
        else:
            slope[0, 1, 7] = value
        gradients = stack.laid_out([torch.zeros_like(w) for w in weights])
        found = stack.forward(weights, x, rows)
        stack.backward(weights, slope, gradients)
        known = [w.clone().requires_grad_() for w in weights[:-1]]
        wanted = plain(known, x[rows])
        theirs = torch.autograd.grad((wanted * slope).sum(), known)
        for a, b in zip((found, *gradients[:-1]), (wanted, *theirs), strict=True):
            assert torch.equal(a.isfinite(), b.isfinite())
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
        assert found[1].isfinite().all()


def test_tanh_over_its_range() -> None:
    stack = Stack((1, 16, 16))
    eye = torch.eye(16)[None]
    x = torch.linspace(-12, 12, 4800)[:, None]
    weights = stack.laid_out([torch.ones(1, 16, 1), torch.zeros(1, 16), eye, torch.zeros(1, 16)])
    found = stack.forward(weights, x, torch.arange(4800)[None])[0, 0]
    assert (found.double() - x[:, 0].double().tanh()).abs().max() < 2e-7


def test_widths_are_checked() -> None:
    with pytest.raises(ValueError, match=r"widths \(9, 7, 7\): hidden ones must be multiples of 16"):
        Stack((9, 7, 7))


def test_picked() -> None:
    table = torch.arange(60).view(3, 20) ** 2
    index = torch.stack([torch.randperm(20)[:18].view(2, 9) for _ in range(3)]).transpose(0, 1)
    wanted = torch.stack([torch.stack([table[r, index[s, r]] for r in range(3)]) for s in range(2)])
    assert torch.equal(picked(table, index), wanted)
    assert torch.equal(picked(table, index.contiguous()), wanted)


def everything() -> str:
    """A hash of the bits of outputs, gradients and steps."""
    found = hashlib.sha256()
    for runs, batch, features, hidden, outputs in SHAPES:
        stack, weights = stacked(runs, features, hidden, outputs)
        x, rows, slope = given(runs, batch, features, outputs)
        velocity = stack.laid_out(weights)
        found.update(stack.forward(weights, x, rows).numpy().tobytes())
        stack.backward_and_descend(weights, velocity, slope, torch.full((runs,), 0.1), 0.9, 1e-3)
        for tensor in (*weights, *velocity):
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.skipif(
    not (vectors.X86 and sys.platform == "linux" and vectors.FMA), reason="features of other processors"
)
def test_bits_are_the_same_on_processors_with_narrower_vectors() -> None:
    root = Path(__file__).parents[2]
    features = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2,+avx,+avx2,+fma"}
    script = "from tests.kernels import test_mlp; from kernels import tiles; print(tiles.ROWS, test_mlp.everything())"
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=os.environ | features, capture_output=True, text=True
    )
    assert other.stdout.split() == ["4", everything()], other.stderr

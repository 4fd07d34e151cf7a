"""The fast convolutional network: its layers against torch in float64, and the whole against the plain one."""

import math

import pytest
import torch
import torch.nn.functional as F

from kernels.cnn import EarlierFastCNN, FastCNN
from kernels.pooled_convolution import pooled_convolution
from kernels.stem import stem
from reference.models.cnn import CNN


def drawn(n=3, side=28, channels=16, seed=0):
    """x (N, 1, side, side), weight, bias, and an upstream gradient; float32."""
    g = torch.Generator().manual_seed(seed)
    shapes = (n, 1, side, side), (channels, 1, 3, 3), (channels,), (n, channels, side // 2, side // 2)
    return [torch.randn(shape, generator=g) for shape in shapes]


def plain(x, weight, bias):
    return F.max_pool2d(F.conv2d(x, weight, bias, padding=1), 2).relu()


def derived(function, x, weight, bias, upstream, inputs=False):
    leaves = [tensor.clone().requires_grad_() for tensor in (weight, bias)]
    x = x.clone().requires_grad_(inputs)
    y = function(x, *leaves)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, x] if inputs else leaves, upstream)]


@pytest.mark.parametrize("inputs", [False, True], ids=["weights", "inputs too"])
@pytest.mark.parametrize("shape", [(3, 28, 16), (1, 2, 16), (5, 6, 32), (2, 14, 64), (4, 10, 8)])
def test_the_first_layer_is_torchs(shape, inputs):
    given = drawn(*shape)
    exact = derived(plain, *(tensor.double() for tensor in given), inputs=inputs)
    for found, truth in zip(derived(stem, *given, inputs=inputs), exact, strict=True):
        assert found.dtype is torch.float32
        assert (found - truth).abs().max() <= 2e-6 * max(1.0, truth.abs().max().item())


def test_equal_values_share_no_gradient():
    """On a constant image all four values of a pooled pixel are the same inside: the first gets the gradient."""
    x = torch.ones(1, 1, 8, 8)
    _, weight, bias, upstream = drawn(1, 8)
    ours, theirs = (derived(function, x, weight, bias, upstream) for function in (stem, plain))
    for found, truth in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


def spoilt(given, value):
    x = given[0].clone(memory_format=torch.preserve_format)
    x[1, -1, 5, 7] = value
    return [x, *given[1:]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_spreads_as_in_torch(value):
    given = spoilt(drawn(), value)
    expected, found = derived(plain, *given), derived(stem, *given)
    for theirs, ours in zip(expected, found, strict=True):
        assert torch.equal(theirs.isnan(), ours.isnan())
    assert found[1].isnan().any()


def test_a_row_does_not_depend_on_the_others():
    x, weight, bias, _ = drawn(6)
    assert torch.equal(stem(x, weight, bias)[2:4], stem(x[2:4], weight, bias))


def deeper(n=3, side=14, channels=32, seed=0):
    """x (N, 16, side, side) channels last, weight, bias, and an upstream gradient; float32."""
    g = torch.Generator().manual_seed(seed)
    shapes = (n, 16, side, side), (channels, 16, 3, 3), (channels,), (n, channels, side // 2, side // 2)
    x, weight, bias, upstream = (torch.randn(shape, generator=g) for shape in shapes)
    return x.to(memory_format=torch.channels_last), weight / 12, bias, upstream


@pytest.mark.parametrize("shape", [(3, 14, 32), (1, 2, 16), (5, 6, 48), (2, 36, 16), (4, 10, 8)])
def test_the_second_layer_is_torchs(shape):
    given = deeper(*shape)
    exact = derived(plain, *(tensor.double() for tensor in given), inputs=True)
    for found, truth in zip(derived(pooled_convolution, *given, inputs=True), exact, strict=True):
        assert found.dtype is torch.float32
        assert (found - truth).abs().max() <= 2e-6 * max(1.0, truth.abs().max().item())


@pytest.mark.parametrize(
    "changed",
    [
        lambda x, w, b, u: (x.contiguous(), w, b, u),
        lambda x, w, b, u: (x, w.to(memory_format=torch.channels_last), b, u.to(memory_format=torch.channels_last)),
        lambda x, w, b, u: (x, w, b, u.mT.contiguous().mT),
        lambda x, w, b, u: (x[:, :, :, :10], w, b, u[:, :, :, :5]),
        lambda x, w, b, u: (x[:0], w, b, u[:0]),
    ],
    ids=["channels first", "channels last", "columns first", "no square", "no image"],
)
def test_the_second_layer_takes_any_layout(changed):
    given = changed(*deeper())
    exact = derived(plain, *(tensor.double() for tensor in given), inputs=True)
    for found, truth in zip(derived(pooled_convolution, *given, inputs=True), exact, strict=True):
        torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-4)


def test_equal_values_of_the_second_layer_share_no_gradient():
    _, weight, bias, upstream = deeper(2, 8)
    x = torch.ones(2, 16, 8, 8).to(memory_format=torch.channels_last)
    given = x, (12 * weight).round(), bias.round(), upstream  # whole numbers: no sum is rounded
    ours, theirs = (derived(function, *given, inputs=True) for function in (pooled_convolution, plain))
    for found, truth in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_spreads_through_the_second_layer_unless_relu_stops_it(value):
    given = spoilt(deeper(), value)
    expected, found = (derived(function, *given, inputs=True) for function in (plain, pooled_convolution))
    assert torch.equal(expected[0].isnan(), found[0].isnan())
    for theirs, ours in zip(expected, found, strict=True):
        assert not (ours.isnan() & ~theirs.isnan()).any()
    assert found[1].isnan().any() == math.isnan(value)
    assert expected[1].isnan().sum() > found[1].isnan().sum()


def test_the_second_layer_wants_what_a_convolution_wants():
    x, weight, bias, _ = deeper()
    for wrong in (
        (x[:, :8], weight, bias),
        (x, weight[:, :8], bias),
        (x, weight, bias[:9]),
        (x, weight, bias.double()),
    ):
        with pytest.raises(RuntimeError):
            pooled_convolution(*wrong)


def test_the_second_layer_of_a_strided_bias_and_an_expanded_gradient():
    x, weight, bias, _ = deeper()
    apart = torch.stack([bias, bias], 1)[:, 0].requires_grad_()
    y = pooled_convolution(x, weight, apart)
    assert torch.equal(y, pooled_convolution(x, weight, bias))
    (found,) = torch.autograd.grad(y.sum(), [apart])
    truth = bias.double().requires_grad_()
    (expected,) = torch.autograd.grad(plain(x.double(), weight.double(), truth).sum(), [truth])
    torch.testing.assert_close(found.double(), expected)


def test_an_image_of_the_second_layer_does_not_depend_on_the_others():
    x, weight, bias, _ = deeper(6)
    part = x[2:4].clone(memory_format=torch.channels_last)
    assert torch.equal(pooled_convolution(x, weight, bias)[2:4], pooled_convolution(part, weight, bias))


@pytest.mark.parametrize("fast", [FastCNN, EarlierFastCNN])
def test_the_network_is_the_plain_one_to_rounding(fast):
    found = []
    for kind in (CNN, fast):
        model = kind(1, 28, 10, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
        x = torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        logits = model(x)
        gradients = torch.autograd.grad(logits.square().mean(), list(model.parameters()))
        with torch.no_grad():
            found.append([logits.detach(), *gradients, model(x)])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[1][0], found[1][-1]), "with and without gradients"


def of_images(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).square().sum(), x)[0]


@pytest.mark.parametrize(("side", "width"), [(28, 16), (12, 32), (36, 16)])
def test_gradients_of_images_are_torchs_with_and_without_those_of_parameters(side, width):
    """What attacks ask for: of images alone, or of images and parameters."""
    models = [kind(1, side, 10, torch.Generator().manual_seed(0), width) for kind in (CNN, FastCNN)]
    x = torch.rand(7, 1, side, side, generator=torch.Generator().manual_seed(1))
    exact = of_images(models[0].double(), x.double())
    fast = models[1].to(memory_format=torch.channels_last)
    together = of_images(fast, x)
    alone = of_images(fast.requires_grad_(False), x)
    assert torch.equal(alone, together)
    assert (alone - exact).abs().max() <= 2e-5 * exact.abs().max()


def test_gradients_of_an_image_do_not_depend_on_the_others():
    x, weight, bias, upstream = drawn(6)
    whole = derived(stem, x, weight, bias, upstream, inputs=True)[-1]
    assert torch.equal(whole[2:4], derived(stem, x[2:4], weight, bias, upstream[2:4], inputs=True)[-1])

"""Networks: shapes, sizes known from the papers, weights from their generator alone, and batch statistics."""

import pytest
import torch
from torch import nn

from reference.models.cnn import CNN, halved
from reference.models.cnn8 import CNN8
from reference.models.mlp import MLP
from reference.models.pixels import Scaled
from reference.models.preact_resnet import PreActResNet, preact_resnet18
from reference.models.resnet import ResNet, resnet18, resnet34


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def size(model):
    return sum(p.numel() for p in model.parameters())


MODELS = {  # small ones: name -> (from a generator, shape of its input without N)
    "mlp": (lambda g: MLP(5, [16, 16], 10, g), (5,)),
    "cnn": (lambda g: CNN(1, 28, 10, g), (1, 28, 28)),
    "cnn8": (lambda g: CNN8(3, 16, 10, g, widths=(8, 8, 16)), (3, 16, 16)),
    "resnet": (lambda g: ResNet(3, 10, g, (1, 2, 1, 1), width=8), (3, 16, 16)),
    "preact_resnet": (lambda g: PreActResNet(3, 10, g, (1, 2, 1, 1), width=8), (3, 16, 16)),
}
every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_inputs_become_logits(name):
    make, shape = MODELS[name]
    model = make(seeded())
    logits = model(torch.randn(6, *shape, generator=seeded(1)))
    assert logits.shape == (6, 10)
    assert logits.isfinite().all()
    assert 0.1 < logits.std() < 10


@every_model
def test_weights_come_from_the_generator_alone(name):
    make, _ = MODELS[name]
    torch.manual_seed(1)
    first = make(seeded()).state_dict()
    torch.manual_seed(2)
    second, other = make(seeded()).state_dict(), make(seeded(1)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_model
def test_every_parameter_learns(name):
    make, shape = MODELS[name]
    model = make(seeded())
    logits = model(torch.randn(6, *shape, generator=seeded(1)))
    nn.functional.cross_entropy(logits, torch.arange(6)).backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in model.parameters())


@every_model
def test_layout_in_memory_changes_no_more_than_rounding(name):
    make, shape = MODELS[name]
    if len(shape) == 1:
        pytest.skip("rows have one layout")
    model, x = make(seeded()).eval(), torch.randn(6, *shape, generator=seeded(1))
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@every_model
def test_biases_start_at_zero_and_weights_he_or_xavier(name):
    make, _ = MODELS[name]
    for layer in make(seeded()).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if layer.bias is not None:
                assert layer.bias.eq(0).all()
            fan = layer.weight[0].numel()
            wanted = 2 / (fan + len(layer.weight)) if name == "mlp" else 2 / fan
            ratio = layer.weight.var().item() / wanted
            assert ratio == pytest.approx(1, abs=6 * (2 / layer.weight.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (lambda: resnet18(3, 10, seeded()), 11_173_962),
        (lambda: resnet18(3, 100, seeded()), 11_220_132),
        (lambda: resnet34(3, 10, seeded()), 21_282_122),
        (lambda: resnet34(3, 100, seeded()), 21_328_292),
        (lambda: CNN8(3, 32, 10, seeded()), 1_638_762),
        (lambda: preact_resnet18(3, 10, seeded()), 11_172_170),
    ],
)
def test_sizes_known_from_the_papers(model, parameters):
    assert size(model()) == parameters


def test_deep_networks_have_as_many_layers_as_their_names_say():
    def layers(model):
        return sum(
            (isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)) or isinstance(m, nn.Linear) for m in model.modules()
        )

    assert [layers(f(3, 10, seeded())) for f in (resnet18, resnet34, preact_resnet18)] == [18, 34, 18]
    assert layers(CNN8(3, 32, 10, seeded())) == 8


@torch.no_grad()
def test_resnet_halves_the_image_three_times():
    model = resnet18(3, 10, seeded()).eval()
    x, seen = torch.randn(1, 3, 32, 32, generator=seeded(1)), []
    for block in model.blocks:
        block.register_forward_hook(lambda _, given, out: seen.append(tuple(out.shape[1:])))
    model(x)
    assert seen == [(64, 32, 32)] * 2 + [(128, 16, 16)] * 2 + [(256, 8, 8)] * 2 + [(512, 4, 4)] * 2


@pytest.mark.parametrize("name", ["cnn8", "resnet", "preact_resnet"])
def test_batch_statistics_move_in_training_only(name):
    make, shape = MODELS[name]
    model, x = make(seeded()), torch.randn(6, *shape, generator=seeded(1)) + 1

    def statistics():
        return {key: value.clone() for key, value in model.named_buffers()}

    before = statistics()
    model.eval()
    one, two = model(x), torch.cat([model(part) for part in x.split(2)])
    assert all(torch.equal(before[key], value) for key, value in statistics().items())
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)  # no row depends on another
    model.train()
    model(x)
    assert all(not torch.equal(before[key], value) for key, value in statistics().items())


def test_a_block_with_normalisation_first_adds_its_input_as_it_is():
    block = PreActResNet(3, 10, seeded(), (1,), width=8).blocks[0]
    nn.init.zeros_(block.second.weight)
    x = torch.randn(2, 8, 4, 4, generator=seeded(1))
    assert torch.equal(block(x), x)
    assert block.shortcut is None


@pytest.mark.parametrize("flat", [False, True])
def test_a_scaled_network_sees_standardised_channels(flat):
    inner = nn.Identity()
    model = Scaled(inner, [0.5, 0.2], [0.25, 0.1], flat=flat)
    x = torch.rand(4, 2, 3, 3, generator=seeded())
    expected = torch.stack([(x[:, 0] - 0.5) / 0.25, (x[:, 1] - 0.2) / 0.1], 1)
    torch.testing.assert_close(model(x), expected.flatten(1) if flat else expected)
    assert not list(model.parameters())


def test_a_block_that_keeps_the_shape_adds_its_input():
    model = ResNet(3, 10, seeded(), (1,), width=8)
    block = model.blocks[0]
    nn.init.zeros_(block.second_norm.weight)
    x = torch.rand(2, 8, 4, 4, generator=seeded(1))
    assert torch.equal(block(x), x)
    assert not list(block.shortcut.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pools_with_and_without_gradients_agree_to_the_bit(layout):
    x = torch.randn(3, 16, 8, 12, generator=seeded()).to(memory_format=layout)
    x[0, :, :4] = 0.5  # ties
    x[1, 2, 3, 4] = torch.nan
    with torch.no_grad():
        found = halved(x)
    assert torch.equal(found.nan_to_num(9), halved(x).nan_to_num(9))
    assert found.isnan().sum() == 1

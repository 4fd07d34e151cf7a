"""What networks are made into before compressors see them: without normalisation, with activations in few bits."""

import pytest
import torch
from torch import nn

from reference.compressors import activations
from reference.compressors.activations import ranges, rounding
from reference.compressors.folding import folded
from reference.compressors.grid import Grid, codes, scales
from reference.compressors.layers import inputs_of, layers, positions
from reference.compressors.training import Training, descend, parameters
from reference.losses.ce import ce
from reference.models.mlp import MLP
from reference.models.resnet import ResNet


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def resnet():
    """A residual network whose normalisations are of no special form."""
    model, g = ResNet(1, 10, seeded(), (1, 1, 1), width=4), seeded(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data):
                values.normal_(generator=g)
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 2, generator=g)
    return model


def mlp():
    return MLP(6, [8, 8], 3, seeded())


def test_a_folded_network_is_the_same_function():
    model, x = resnet().double(), torch.randn(5, 1, 12, 12, generator=seeded(2), dtype=torch.float64)
    small = folded(model)
    torch.testing.assert_close(small(x), model.eval()(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert not list(small.buffers())
    assert list(layers(small)) == list(layers(model))
    assert list(positions(small, x[:1])) != [], "it can be looked into layer by layer"


def test_what_has_nothing_to_fold_is_copied():
    model = mlp()
    copy = folded(model)
    assert copy is not model
    assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), model.parameters(), strict=True))


def test_normalisation_that_is_no_part_of_a_convolution_is_refused():
    with pytest.raises(ValueError, match="is left"):
        folded(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)))
    model = resnet().train()
    folded(model)
    assert model.training, "what it is given stays as it is"


def test_statistics_of_batches_are_gathered_while_it_trains():
    model, g = ResNet(1, 3, seeded(), (1, 1, 1), width=4), seeded(3)
    x = 5 + torch.randn(64, 1, 8, 8, generator=g)
    training = Training(x, torch.randint(3, (64,), generator=g), ce, 40, 16, 1e-3, g)
    descend(model.train(), training, parameters(model))
    with torch.no_grad():
        out = model.stem(x)
    torch.testing.assert_close(model.norm.running_mean, out.mean((0, 2, 3)), rtol=0.2, atol=0.2)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_activations_are_on_so_many_levels_and_near(bits):
    model, x = mlp(), torch.randn(200, 6, generator=seeded(4))
    found = ranges(model, x, bits)
    small = rounding(model, found, bits)
    for name, layer in layers(small).items():
        seen = []
        hook = layer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        small(x)
        hook.remove()
        step, zero = found[name]
        level = seen[0] / step + zero
        torch.testing.assert_close(level, level.round(), rtol=0, atol=1e-3)
        assert level.min() > -0.01
        assert level.max() < 2**bits - 0.99
        assert len(seen[0].unique()) <= 2**bits
    wide = inputs_of(model, "layers.0", x)
    near = inputs_of(small, "layers.0", x)
    inside = (wide >= near.min()) & (wide <= near.max())
    assert float((wide - near)[inside].abs().max()) <= float(found["layers.0"][0]) / 2 + 1e-6
    assert torch.equal(inputs_of(model, "layers.1", x), inputs_of(mlp(), "layers.1", x)), (
        "the network itself is as it was"
    )


def test_ranges_are_those_of_every_channel(monkeypatch):
    """Of more values than are looked at, no step through them falls on some channels alone."""
    monkeypatch.setattr(activations, "MOST", 500)
    model, x = nn.Sequential(nn.Linear(16, 2)), torch.zeros(1000, 16)  # a step of 32 would see channel 0 alone
    for channel in range(16):
        large = x.clone()
        large[:, channel] = 50.0
        step, _ = ranges(model, large, 8)["0"]
        assert float(step) * 255 == pytest.approx(50, rel=0.3), channel


@torch.no_grad()
def test_eight_bits_of_activations_change_outputs_by_little_and_two_by_much():
    model, x = mlp(), torch.randn(200, 6, generator=seeded(4))
    off = {bits: float((rounding(model, ranges(model, x, bits), bits)(x) - model(x)).norm()) for bits in (2, 4, 8)}
    assert off[8] < 0.02 * float(model(x).norm())
    assert off[8] < off[4] / 4 < off[2] / 8


def test_gradients_pass_the_rounding_where_a_value_is_in_range():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    small = rounding(model, {"0": torch.tensor([1.0, 2.0])}, 2)  # levels -2, -1, 0, 1
    x = torch.tensor([[-3.0], [-1.4], [0.2], [1.3]], requires_grad=True)
    out = small(x)
    assert out.flatten().tolist() == [-2, -1, 0, 1]
    out.sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("grid", [Grid(2, -1), Grid(3, 16), Grid(4), Grid(4, 32), Grid(8), Grid(8, 16)], ids=str)
def test_rounding_to_nearest_is_what_torchao_does(grid):
    """Scales and zero-points to the bit; codes but for weights halfway between two levels."""
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    w = torch.randn(8, 64, generator=seeded(5))
    block = tuple(w.shape) if grid.group < 0 else (1, grid.group or 64)
    step, zero = primitives.choose_qparams_affine(
        w,
        primitives.MappingType.ASYMMETRIC,
        block,
        torch.uint8,
        0,
        grid.levels - 1,
        eps=2**-14,
        scale_dtype=torch.float16,
        zero_point_dtype=torch.int32,
    )
    theirs = primitives.quantize_affine(w, block, step.float(), zero, torch.uint8, 0, grid.levels - 1)
    ours = scales(w, grid)
    assert torch.equal(ours.step.flatten(), step.float().flatten())
    assert torch.equal(ours.zero.flatten(), zero.float().flatten())
    spread = ours.over(w.shape, grid.group)
    found = codes(w, *spread, grid.levels)
    halfway = ((w / spread[0]) % 1 - 0.5).abs() < 1e-3
    assert torch.equal(found[~halfway], theirs[~halfway].float())
    assert (found - theirs.float()).abs().max() <= 1

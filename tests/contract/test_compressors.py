"""The contract of a compressor, over every registered one: a file in ``reference/compressors`` needs no edit here."""

import copy
import functools
import math
import re

import pytest
import torch
from latex2mathml.converter import convert
from torch import Tensor, nn

from reference.compressors import packing
from reference.compressors.grid import Grid
from reference.compressors.layers import layers
from reference.compressors.pattern import Pattern
from reference.compressors.training import Training
from reference.losses.ce import ce
from reference.methods import catalogue
from reference.models.cnn import CNN
from reference.models.mlp import MLP
from reference.models.transformer import Transformer

COMPRESSORS = catalogue("compressor")
every_compressor = pytest.mark.parametrize("method", COMPRESSORS.values(), ids=list(COMPRESSORS))
GRIDS = [Grid(2), Grid(3, 8), Grid(4, -1, True)]
PATTERNS = [Pattern(0.0), Pattern(0.5), Pattern(0.9)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def subjects():
    """Small networks with inputs and targets: name -> network, inputs (N, ...), target (N, ...)."""
    g = generator(1)
    found = {
        "mlp": (MLP(6, [9, 7], 3, g), torch.randn(40, 6, generator=g), 3),
        "cnn": (CNN(1, 8, 3, g, width=3), torch.randn(24, 1, 8, 8, generator=g), 3),
        "transformer": (Transformer(5, g, width=8, layers=1, heads=2), torch.randint(5, (12, 6), generator=g), 5),
    }
    for network, inputs, classes in found.values():
        shape = inputs.shape if inputs.dtype == torch.int64 else inputs.shape[:1]
        yield network.eval(), inputs, torch.randint(classes, shape, generator=g)


SUBJECTS = dict(zip(("mlp", "cnn", "transformer"), subjects(), strict=True))
every_subject = pytest.mark.parametrize("subject", SUBJECTS)


def settings(method):
    return GRIDS if "grid" in method.supplied else PATTERNS + [Pattern(0, 2, 4)] * ("n:m" in method.tags)


def compress(method, subject, setting, **hyperparameters):
    network, inputs, target = subject
    training = Training(inputs, target, ce, steps=6, batch=8, lr=1e-2, generator=generator(2))
    given = {"grid": setting, "pattern": setting, "training": training, "generator": generator(3)}
    return method.function(network, inputs, **{key: given[key] for key in method.supplied}, **hyperparameters)


@functools.cache
def made(id, subject, setting):
    """What a method returns for a subject: several tests look at it."""
    return compress(COMPRESSORS[id], SUBJECTS[subject], setting)


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@every_compressor
@every_subject
def test_what_it_returns(method, subject):
    """Every weight packed, in its shape, finite, small enough; the rest of the network's own parameters at most."""
    network = SUBJECTS[subject][0]
    own = dict(network.named_parameters())
    wanted = {f"{name}.weight" for name in layers(network)}
    for setting in settings(method):
        found = made(method.id, subject, setting)
        assert {name for name, value in found.items() if not isinstance(value, Tensor)} == wanted
        assert found.keys() <= own.keys()
        for name, value in packing.unpacked(found).items():
            assert value.shape == own[name].shape
            assert value.dtype == torch.float32
            assert value.isfinite().all()
        packed = [value for value in found.values() if not isinstance(value, Tensor)]
        if isinstance(setting, Grid):
            assert mean_bits(packed) <= setting.bits + 1e-9
            assert any(isinstance(value, packing.Columnwise) for value in packed) or mean_bits(packed) >= (
                0.98 * setting.bits
            ), "compared at an equal size; levels of columns are written, and paid for in levels"
        else:
            assert_cut(packed, setting)


def mean_bits(packed):
    """Of each weight, without scales: the logarithm of the number of its levels."""
    bits = 0.0
    for value in packed:
        if isinstance(value, packing.Quantized):
            bits += value.codes.numel() * value.grid.bits
        else:
            bits += len(value.codes) * sum(math.log2(n + 1) for n in value.levels.tolist())
    return bits / sum(value.codes.numel() for value in packed)


def assert_cut(packed, pattern):
    """So many zeros, but for rounding in each layer; of every group of columns where that is asked for."""
    masks = [value.mask for value in packed]
    if pattern.m:
        for mask in masks:
            full = mask[:, : mask.shape[1] // pattern.m * pattern.m].unflatten(1, (-1, pattern.m))
            assert (full.sum(2) == pattern.n).all()
        return
    zeros, count = (sum(int(each.sum()) for each in kind) for kind in ([~m for m in masks], [m | ~m for m in masks]))
    assert abs(zeros - pattern.cut(count)) <= len(masks), "compared at an equal share"


@every_compressor
@every_subject
def test_what_is_written_is_what_is_read(method, subject):
    for setting in settings(method):
        found = made(method.id, subject, setting)
        file = packing.encode(found)
        again = packing.decode(file)
        assert packing.encode(again) == file
        assert same(packing.unpacked(again), packing.unpacked(found))
        assert packing.entropy_bytes(found) <= len(file) + 1e-6


@every_compressor
def test_it_leaves_the_network_its_inputs_and_torch_alone(method):
    network, inputs, _ = subject = SUBJECTS["cnn"]
    before, seen, state = copy.deepcopy(network.state_dict()), inputs.clone(), torch.get_rng_state()
    slopes = [p.grad for p in network.parameters()]
    compress(method, subject, settings(method)[1])
    assert same(network.state_dict(), before)
    assert torch.equal(inputs, seen)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.grad for p in network.parameters()] == slopes
    assert not network.training
    assert not any(layer._forward_pre_hooks for layer in layers(network).values())


@every_compressor
def test_the_same_inputs_give_the_same_bits(method):
    setting = settings(method)[1]
    again = compress(method, SUBJECTS["mlp"], setting)
    assert packing.encode(again) == packing.encode(made(method.id, "mlp", setting))


@every_compressor
def test_weights_that_are_all_zero_and_inputs_that_are_always_zero(method):
    g = generator(4)
    network = MLP(6, [8], 3, g).eval()
    with torch.no_grad():
        network.layers[0].weight[:3] = 0
        network.layers[1].weight.zero_()
    inputs = torch.randn(30, 6, generator=g)
    inputs[:, 2:4] = 0
    subject = (network, inputs, torch.randint(3, (30,), generator=g))
    for setting in settings(method)[:2]:
        values = packing.unpacked(compress(method, subject, setting))
        assert all(value.isfinite().all() for value in values.values())


@every_compressor
def test_eight_bits_keep_the_function(method):
    """Those that train may move it; they are held to accuracy in the suite."""
    if "grid" not in method.supplied or "training" in method.supplied:
        pytest.skip("it prunes, or trains")
    for network, inputs, _ in SUBJECTS.values():
        small = copy.deepcopy(network)
        values = packing.unpacked(compress(method, (network, inputs, None), Grid(8)))
        small.load_state_dict({**network.state_dict(), **values})
        full = network(inputs)
        assert (small(inputs) - full).abs().max() < 0.03 * full.abs().max()


@every_compressor
def test_hyperparameters_at_the_ends_of_their_ranges(method):
    for name, allowed in method.search.items():
        for value in (allowed.low, allowed.high):
            found = compress(method, SUBJECTS["mlp"], settings(method)[1], **{name: value})
            assert all(each.isfinite().all() for each in packing.unpacked(found).values())


@every_compressor
def test_its_page_can_be_made(method):
    assert re.match(r"[^(]+ \(.+\d{4}", method.citation)
    assert "for a network and inputs (N, ...)" in method.summary
    assert "returns" in method.summary
    assert method.formula
    assert convert(method.formula).startswith("<math")


def test_layers_of_other_kinds_are_left_alone():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2), nn.LayerNorm(2))
    assert list(layers(network)) == ["2"]

"""Interval bounds: they hold, they are exact where they can be, and what they certify no attack undoes."""

import pytest
import torch
from attacked import digits, held_out, seeded, trained
from torch import nn

from reference.attacks.apgd import apgd_t
from reference.attacks.objectives import margin, right
from reference.attacks.pgd import pgd
from reference.bounds import ball, certified, interval, layers, tightness, worst
from reference.models.cnn import CNN
from reference.models.mlp import MLP
from reference.models.pixels import Scaled

MODELS = {
    "mlp": lambda: Scaled(MLP(64, [16, 16], 4, seeded()), [0.4], [0.5], flat=True),
    "cnn": lambda: CNN(1, 8, 4, seeded(), width=4),
    "scaled cnn": lambda: Scaled(CNN(1, 8, 4, seeded(), width=4), [0.3], [0.2]),
}
every_model = pytest.mark.parametrize("name", MODELS)


def batch(n=6):
    return torch.rand(n, 1, 8, 8, generator=seeded(), dtype=torch.float64), torch.arange(n) % 4


@every_model
def test_what_bounds_run_through_is_the_network(name):
    model, (x, _) = MODELS[name]().double(), batch()
    y = x
    for layer in layers(model):
        y = layer(y)
    torch.testing.assert_close(y, model(x))


@every_model
def test_bounds_hold_for_points_of_the_box_and_its_corners(name):
    model, (x, target) = MODELS[name]().double(), batch()
    lower, upper = interval(model, *ball(x, 0.1))
    apart = worst(model, x, target, 0.1)
    g = seeded(1)
    for i in range(200):
        change = 0.2 * torch.rand(x.shape, generator=g, dtype=torch.float64) - 0.1
        z = model((x + (change if i % 2 else 0.1 * change.sign())).clamp(0, 1))
        assert (z >= lower - 1e-9).all()
        assert (z <= upper + 1e-9).all()
        assert (z - z.gather(1, target[:, None]) <= apart + 1e-9).all()


@every_model
def test_a_box_of_radius_0_is_a_point(name):
    model, (x, target) = MODELS[name]().double(), batch()
    z = model(x)
    for bound in interval(model, x, x):
        torch.testing.assert_close(bound, z)
    torch.testing.assert_close(worst(model, x, target, 0.0), z - z.gather(1, target[:, None]))


@every_model
def test_differences_are_tighter_than_bounds_of_both_and_0_at_the_label(name):
    model, (x, target) = MODELS[name]().double(), batch()
    lower, upper = interval(model, *ball(x, 0.05))
    apart = worst(model, x, target, 0.05)
    assert (apart <= upper - lower.gather(1, target[:, None]) + 1e-9).sum() >= apart.numel() - len(x)
    torch.testing.assert_close(apart.gather(1, target[:, None]), torch.zeros(len(x), 1, dtype=torch.float64))


def test_of_one_linear_layer_the_bound_is_attained():
    model = MLP(5, [], 3, seeded()).double()
    x, target = 0.3 + 0.4 * torch.rand(4, 5, generator=seeded(), dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    weight = model.layers[0].weight
    for k in range(3):
        step = 0.1 * (weight[k] - weight[target]).sign()
        z = model(x + step)
        reached = z[:, k] - z.gather(1, target[:, None])[:, 0]
        torch.testing.assert_close(worst(model, x, target, 0.1)[:, k], reached)


def test_tightness_of_a_linear_stack_is_the_ratio_of_products():
    """|W2 W1| r over |W2| |W1| r; 1 for one layer, and where no sign differs."""
    one, two = MLP(5, [], 3, seeded()), MLP(5, [4], 3, seeded())
    x = 1e-6 * torch.rand(4, 5, generator=seeded())  # where tanh is the identity
    a, b = (layer.weight.double() for layer in two.layers)
    expected = ((b @ a).abs().sum(1) / (b.abs() @ a.abs()).sum(1)).mean()
    torch.testing.assert_close(tightness(two, x), expected.expand(4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tightness(one, x), torch.ones(4, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    for layer in two.layers:
        nn.init.uniform_(layer.weight, 0.1, 1)
    torch.testing.assert_close(tightness(two, x), torch.ones(4, dtype=torch.float64), rtol=1e-4, atol=1e-4)


@every_model
def test_tightness_is_a_share(name):
    found = tightness(MODELS[name](), batch()[0].float())
    assert (found > 0).all()
    assert (found <= 1 + 1e-6).all()


def certifiable():
    """A small network for digits trained on its own bounds."""
    g = seeded()
    model = MLP(64, [24], 10, g)
    images, labels = digits()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for i in range(400):
        rows = torch.randint(1200, (128,), generator=g)
        optimizer.zero_grad()
        bound = worst(model, images[rows].flatten(1), labels[rows], 0.05 * min(1.0, i / 200))
        nn.functional.cross_entropy(bound, labels[rows]).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1])
def test_certified_accuracy_never_exceeds_that_under_any_attack(eps):
    x, target = held_out()
    model = certifiable()
    for net, images in ((model, x.flatten(1)), (trained(True), x)):
        sure = certified(net, images, target, eps)
        assert (right(net(images), target) | ~sure).all()
        for method in (pgd, apgd_t):
            x_adv = method(net, images, target, eps=eps, norm="linf", generator=seeded())
            assert (right(net(x_adv), target) | ~sure).all()
            assert (margin(net(x_adv), target) <= worst(net, images, target, eps).topk(2, 1).values[:, 0] + 1e-4).all()
    assert certified(model, x.flatten(1), target, 0.05).double().mean() > 0.5, "training for it certifies"


def test_a_network_that_is_not_known_is_refused():
    with pytest.raises(TypeError, match="interval bounds of a Bilinear are not known"):
        layers(nn.Bilinear(2, 2, 2))


def test_a_saturated_network_has_exact_bounds():
    """Its logits do not move, and its bounds have no width."""
    model = MLP(3, [4], 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.layers[0].bias.fill_(1e4)
    torch.testing.assert_close(tightness(model, torch.rand(2, 3)), torch.ones(2, dtype=torch.float64))

"""What tests of attacks and defences share: digits in [0, 1], and small networks trained on them once."""

import functools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from reference.attacks.ascent import ascend
from reference.attacks.ball import anywhere
from reference.attacks.objectives import ce, right
from reference.models.mlp import MLP
from reference.models.pixels import Scaled

EPS = {"linf": 0.1, "l2": 0.6}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@functools.cache
def digits():
    """Images (1797, 1, 8, 8) and labels; the last 597 are for tests."""
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(found.target)


def held_out(rows=200):
    images, labels = digits()
    return images[1200 : 1200 + rows].clone(), labels[1200 : 1200 + rows].clone()


@functools.cache
def trained(robust=False, hidden=32):
    """A network of two hidden layers for digits, trained for 400 steps, on PGD's inputs where it is to be robust."""
    torch.set_num_threads(1)
    g = seeded()
    model = Scaled(MLP(64, [hidden, hidden], 10, g), [0.3], [0.4], flat=True)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    images, labels = digits()
    for _ in range(400):
        rows = torch.randint(1200, (128,), generator=g)
        x, y = images[rows], labels[rows]
        if robust:
            start = anywhere(x, 0.1, "linf", g)
            x = ascend(model, x, y, ce, start, eps=0.1, norm="linf", step=0.03, steps=7).x
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


class Lambda(nn.Module):
    """A function of the inputs' logits, as a network."""

    def __init__(self, function, model):
        super().__init__()
        self.function, self.model = function, model

    def forward(self, x):
        return self.function(self.model, x)


def accuracy(model, x, target):
    with torch.no_grad():
        return float(right(model(x), target).double().mean())


def distance(x, centre, norm):
    change = (x - centre).flatten(1)
    return change.abs().amax(1) if norm == "linf" else change.norm(dim=1)

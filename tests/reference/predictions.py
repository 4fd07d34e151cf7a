"""Predictions that metrics are tested on: random, tied, degenerate and large."""

import torch

CLASSES = 7


def random(rows=500, classes=CLASSES, *, seed=0, scale=2.0, dtype=torch.float64, sharper=2.0):
    """Too sure: targets are drawn from the softmax of half the logits, or another share."""
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=g, dtype=torch.float64)
    target = torch.multinomial((logits / sharper).softmax(1), 1, generator=g)[:, 0]
    return logits.log_softmax(1).to(dtype), target


def tied(rows=400):
    """Six distinct rows, none with a confidence on an edge of 15 bins; every second one appears most often."""
    log_p, target = random(rows, seed=1)
    return log_p[torch.arange(rows) % 11 % 6], target


def on_edges(rows=300):
    """Two classes, confidences k / 20: many on edges of 10 bins and ties everywhere."""
    g = torch.Generator().manual_seed(2)
    c = torch.randint(11, 20, (rows,), generator=g).double() / 20
    target = (torch.rand(rows, generator=g, dtype=torch.float64) > c).long()
    return torch.stack([c, 1 - c], 1).log(), target


def absent(rows=300):
    """No target is class 0 or the last one."""
    log_p, target = random(rows, seed=3)
    return log_p, target.clamp(1, CLASSES - 2)


def all_correct(rows=300):
    log_p, _ = random(rows, seed=4)
    return log_p, log_p.argmax(1)


def all_wrong(rows=300):
    log_p, _ = random(rows, seed=5)
    return log_p, log_p.argmin(1)


def certain(rows=300):
    """Probabilities 0 and 1 only, right three times in four."""
    g = torch.Generator().manual_seed(6)
    predicted = torch.randint(CLASSES, (rows,), generator=g)
    other = (predicted + 1) % CLASSES
    target = torch.where(torch.rand(rows, generator=g) < 0.75, predicted, other)
    return torch.nn.functional.one_hot(predicted, CLASSES).double().log(), target


def one_row():
    log_p, _ = random(1, seed=7)
    return log_p, torch.tensor([3])


def nearly_calibrated(rows=2000):
    return random(rows, seed=9, sharper=1.1)


def single(rows=300):
    """float32, as networks give it."""
    return random(rows, seed=8, dtype=torch.float32)


CASES = {
    case.__name__: case
    for case in (random, tied, on_edges, absent, all_correct, all_wrong, certain, one_row, nearly_calibrated, single)
}

"""Losses of long tails against closed forms and their limits, in float64."""

import numpy as np
import torch
from scipy.special import log_softmax

from reference.methods import catalogue

LOSSES = {key: method.function for key, method in catalogue("longtail").items()}
COUNTS = torch.tensor([5000.0, 300.0, 20.0, 2.0], dtype=torch.float64)


def batch(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator, dtype=torch.float64), torch.arange(n) % 4


def close(found, expected, tolerance=1e-9):
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_cb_weights_by_the_effective_number():
    logits, target = batch()
    weights = np.array([(1 - 0.99) / (1 - 0.99**n) for n in COUNTS.tolist()])
    weights *= 4 / weights.sum()
    expected = -weights[target] * log_softmax(logits.numpy(), -1)[np.arange(12), target]
    close(LOSSES["cb"](logits, target, beta=0.99, counts=COUNTS), expected)
    close(LOSSES["cb_focal"](logits, target, beta=0.99, gamma=0.0, counts=COUNTS), expected)


def test_cb_limits_in_beta():
    """Without memory of samples every class weighs the same; with perfect memory, by one over its size."""
    logits, target = batch()
    close(LOSSES["cb"](logits, target, beta=0.0, counts=COUNTS), LOSSES["ce"](logits, target))
    inverse = (1 / COUNTS) * 4 / (1 / COUNTS).sum()
    expected = inverse[target] * LOSSES["ce"](logits, target)
    close(LOSSES["cb"](logits, target, beta=1 - 1e-12, counts=COUNTS), expected, 1e-6)


def test_equal_classes_leave_cross_entropy():
    logits, target = batch()
    equal = torch.full((4,), 50.0, dtype=torch.float64)
    plain = LOSSES["ce"](logits, target)
    close(LOSSES["cb"](logits, target, beta=0.999, counts=equal), plain)
    close(LOSSES["logit_adjusted"](logits, target, tau=1.5, counts=equal), plain)
    close(LOSSES["ldam"](logits, target, margin=0.0, scale=1.0, counts=equal), plain)


def test_ldam_lowers_the_target_by_its_margin():
    logits, target = batch()
    own = 0.5 * COUNTS.numpy() ** -0.25 / (2.0**-0.25)
    assert own[3] == 0.5
    moved = logits.numpy().copy()
    moved[np.arange(12), target] -= own[target]
    close(LOSSES["ldam"](logits, target, counts=COUNTS), -log_softmax(30 * moved, -1)[np.arange(12), target])


def test_ldam_drw_weighs_late():
    logits, target = batch()
    plain = LOSSES["ldam"](logits, target, counts=COUNTS)
    early = LOSSES["ldam_drw"](logits, target, counts=COUNTS, progress=torch.tensor(0.79))
    late = LOSSES["ldam_drw"](logits, target, counts=COUNTS, progress=torch.tensor(0.8))
    close(early, plain)
    weights = np.array([1 / (1 - 0.9999**n) for n in COUNTS.tolist()])
    close(late, (weights * 4 / weights.sum())[target] * plain.numpy())


def test_logit_adjustment_finds_the_balanced_posterior():
    """Where the joint distribution is known: its minimiser over logits is log p(x | y), up to a constant."""
    prior = COUNTS / COUNTS.sum()
    likelihood = torch.tensor([0.1, 0.5, 0.3, 0.6], dtype=torch.float64)  # of one x, given each class
    posterior = prior * likelihood / (prior * likelihood).sum()
    logits = likelihood.log().expand(4, 4).clone().requires_grad_()
    values = LOSSES["logit_adjusted"](logits, torch.arange(4), counts=COUNTS)
    (slope,) = torch.autograd.grad((posterior * values).sum(), logits)
    close(slope.sum(0), np.zeros(4), 1e-12)
    plain = torch.autograd.grad((posterior * LOSSES["ce"](logits, torch.arange(4))).sum(), logits)[0]
    assert plain.sum(0).abs().max() > 0.1

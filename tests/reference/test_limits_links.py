"""Losses with a link, draws or parameters of their own, against independent forms, limits and identities."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import norm
from torch.nn.functional import cross_entropy, softplus

from reference.losses.bitemp import tempered_log_softmax
from reference.losses.lt import initial, link, potential_slope
from reference.methods import catalogue
from reference.softmax import log_softmax, pick

LOSSES = {key: method.function for key, method in catalogue("loss").items()}
CLASSES = 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=8, classes=CLASSES, seed=0):
    drawn = generator(seed)
    logits = 2 * torch.randn(n, classes, generator=drawn, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=drawn)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


def one_hot(target, classes=CLASSES):
    return torch.eye(classes, dtype=torch.float64)[target]


# -- bitemp -----------------------------------------------------------------------------------------------------------

TEMPERATURES = (1.0, 1.0 + 1e-9, 1.001, 1.2, 1.5, 2.0)


def tempered_exp(u, t):
    return np.exp(u) if t == 1 else np.maximum(0, 1 + (1 - t) * u) ** (1 / (1 - t))


def tempered_log(u, t):
    return np.log(u) if t == 1 else (u ** (1 - t) - 1) / (1 - t)


def tempered_softmax(z, t):
    """Normalised by bracketing the root."""
    top = z.max()
    widest = -tempered_log(1 / len(z), t)
    root = brentq(lambda shift: tempered_exp(z - top - shift, t).sum() - 1, 0, widest + 1, xtol=1e-15, rtol=1e-14)
    return tempered_exp(z - top - root, t)


@pytest.mark.parametrize("t2", TEMPERATURES)
def test_tempered_softmax_is_the_one_found_by_bracketing(t2):
    logits, _ = batch()
    for scale in (0.1, 1.0, 30.0):
        found = tempered_log_softmax(scale * logits, t2).exp()
        close(found, np.stack([tempered_softmax(z, 1.0 if t2 < 1.0001 else t2) for z in scale * logits.numpy()]), 1e-7)


@pytest.mark.parametrize("t2", TEMPERATURES)
def test_tempered_softmax_sums_to_one(t2):
    """Some classes level at the top and the rest any distance below are the hard cases."""
    gaps = torch.logspace(-3, 4, 100, dtype=torch.float64)
    for classes in (2, 10, 100, 1000):
        rows = [3 * batch(50, classes)[0], *(scale * torch.ones(1, classes).double() for scale in (-1e4, 1e4))]
        for level in {1, 2, classes // 2, classes - 1}:
            rows.append(-gaps[:, None] * (torch.arange(classes) >= level))
        for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 3e-6)):
            total = tempered_log_softmax(torch.cat(rows).to(dtype), t2).exp().sum(-1)
            torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=tolerance)


def test_bitemp_at_temperatures_of_one_is_cross_entropy():
    logits, target = batch()
    for t1, t2, tolerance in ((1.0, 1.0, 1e-12), (1 - 1e-7, 1 + 1e-7, 1e-5)):
        close(LOSSES["bitemp"](logits, target, t1=t1, t2=t2), LOSSES["ce"](logits, target), tolerance)
        slope = gradient(lambda z, t1=t1, t2=t2: LOSSES["bitemp"](z, target, t1=t1, t2=t2), logits)
        close(slope, gradient(lambda z: LOSSES["ce"](z, target), logits), tolerance)


@pytest.mark.parametrize(("t1", "t2"), [(0.8, 1.2), (0.2, 2.0), (0.5, 1.0), (0.0, 1.6)])
def test_bitemp_form_and_gradient(t1, t2):
    """The divergence as defined, with 0 log 0 = 0, and the gradient written out."""
    logits, target = batch()
    for i, (z, y) in enumerate(zip(logits.numpy(), target.tolist(), strict=True)):
        p, label = tempered_softmax(z, t2), np.eye(CLASSES)[y]
        divergence = -tempered_log(p[y], t1) - (label ** (2 - t1) - p ** (2 - t1)).sum() / (2 - t1)
        close(LOSSES["bitemp"](logits, target, t1=t1, t2=t2)[i], divergence)

        difference, escort = (p - label) * p ** (t2 - t1), p**t2 / (p**t2).sum()
        slope = gradient(lambda z: LOSSES["bitemp"](z, target, t1=t1, t2=t2), logits)[i]
        close(slope, difference - escort * difference.sum())


def test_bitemp_is_bounded_by_its_first_temperature():
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [-1e4, 1e4, 1e4]], dtype=torch.float64)
    for t1 in (0.0, 0.5, 0.8):
        found = LOSSES["bitemp"](logits, torch.tensor([1, 1, 0]), t1=t1, t2=1.2)
        assert (found <= 1 / (1 - t1)).all()
        assert (found >= 0).all()


# -- nlnl -------------------------------------------------------------------------------------------------------------


def test_nlnl_over_all_draws_is_the_mean_over_the_other_classes():
    logits, target = batch()
    draws = (torch.arange(CLASSES - 1, dtype=torch.float64) + 0.5) / (CLASSES - 1)
    each = torch.stack([LOSSES["nlnl"](logits, target, draws=u.expand(8, 1)) for u in draws])
    losses = -torch.log1p(-torch.softmax(logits, -1))
    close(each.mean(0), (losses.sum(-1) - pick(losses, target)) / (CLASSES - 1))


def test_nlnl_never_draws_the_label():
    for classes in (2, 3, 26, 1000):
        target = torch.arange(classes)
        logits = 100 * torch.eye(classes)
        for draw in (0.0, 0.5, 1 - 2**-24):
            found = LOSSES["nlnl"](logits, target, draws=torch.full((classes, 1), draw))
            assert (found < 1e-6).all()


def test_nlnl_is_clipped():
    logits = torch.tensor([[0.0, 50.0]], dtype=torch.float64)
    found = LOSSES["nlnl"](logits, torch.tensor([0]), draws=torch.zeros(1, 1))
    assert found.item() == pytest.approx(-math.log(1e-5))


# -- dmi --------------------------------------------------------------------------------------------------------------


def full_batch(n=60, seed=0):
    """Every class is there, and the logits know it."""
    logits, _ = batch(n, seed=seed)
    target = torch.arange(n) % CLASSES
    return logits + 3 * one_hot(target), target


def dmi(logits, target, progress=0.5):
    return LOSSES["dmi"](logits, target, progress=torch.tensor(progress))


def test_dmi_begins_as_cross_entropy():
    logits, target = full_batch()
    close(dmi(logits, target, progress=0.49), cross_entropy(logits, target))


def test_dmi_is_of_the_determinant():
    logits, target = full_batch()
    table = np.eye(CLASSES)[target].T @ softmax(logits.numpy(), -1)
    close(dmi(logits, target), -np.log(abs(np.linalg.det(table)) + 1e-3))
    assert abs(np.linalg.det(table)) > 1


def test_dmi_gradient_at_large_and_small_determinants():
    logits, target = full_batch(20)
    for scale in (1.0, 0.3, 0.1):  # determinants above and below 1e-3
        found = (scale * logits).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: dmi(z, target), found)
        assert gradient(lambda z: dmi(z, target), found).abs().max() > 1e-6


def test_dmi_is_constant_where_a_class_is_absent_or_predictions_are_alike():
    logits, target = full_batch()
    alike = logits[:1].expand_as(logits)
    for z, y in ((logits, target.clamp(min=1)), (alike, target), (logits[:4], target[:4])):
        for dtype in (torch.float32, torch.float64):
            close(dmi(z.to(dtype), y).double(), math.log(1000), 1e-6)
            assert (gradient(lambda z, y=y: dmi(z, y), z.to(dtype)) == 0).all()


def test_dmi_does_not_see_a_permutation_of_the_classes():
    logits, target = full_batch()
    order = torch.tensor([2, 0, 1, 4, 3])
    close(dmi(logits[:, order], target), dmi(logits, target))


def test_label_noise_shifts_dmi_without_its_constant():
    """The table of expected counts under a transition is the transition's transpose times the clean table."""
    logits, target = full_batch()
    transition = (0.7 * torch.eye(CLASSES) + 0.3 / CLASSES).double()
    copies = (100 * transition).round().long()  # of a sample of each class, with each label
    rows = torch.repeat_interleave(torch.arange(60), 100)
    noisy = torch.cat([torch.repeat_interleave(torch.arange(CLASSES), copies[y]) for y in target])
    shift = math.log(100**CLASSES * torch.linalg.det(copies.double() / 100).item())
    close(dmi(logits[rows], noisy), dmi(logits, target) - shift, 1e-5)


# -- ens --------------------------------------------------------------------------------------------------------------


def derivatives(margins, draws, power):
    """Of one two-class problem, by the steps of the paper's algorithm."""
    r = norm.ppf(draws)
    if power == 0:
        height = np.exp(r)
    else:
        with np.errstate(divide="ignore"):
            height = np.maximum(0, 1 + power * r) ** (1 / power)
    v = np.sort(np.maximum(-height, -1))[np.argsort(np.argsort(margins))]
    return np.where(margins > 1, v / margins, v) - 1e-6


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_ens_gradient_is_the_derivative_by_rank(power):
    logits, target = batch(50)
    draws = torch.rand(50, 1, generator=generator(1), dtype=torch.float64)
    slope = gradient(lambda z: LOSSES["ens"](z, target, power=power, draws=draws), logits)
    rows, z, y = np.arange(50), logits.numpy(), target.numpy()
    expected = np.zeros_like(z)
    for j in range(1, CLASSES):
        other = (y + j) % CLASSES
        v = derivatives(z[rows, y] - z[rows, other], draws[:, 0].numpy(), power) / (50 * (CLASSES - 1))
        expected[rows, y] += v
        expected[rows, other] -= v
    close(slope, expected)


def test_ens_of_two_classes_is_the_papers():
    logits, target = batch(40, classes=2)
    draws = torch.rand(40, 1, generator=generator(1), dtype=torch.float64)
    slope = gradient(lambda z: LOSSES["ens"](z, target, draws=draws), logits)
    sign = 2 * target.numpy() - 1
    score = (logits[:, 1] - logits[:, 0]).numpy()
    v = derivatives(sign * score, draws[:, 0].numpy(), 0.0)
    close(slope[:, 1], v * sign / 40)
    close(slope[:, 0], -v * sign / 40)


def test_ens_allows_the_smallest_draw():
    logits, target = batch()
    for power in (-1.0, 0.0, 1.0):
        found = LOSSES["ens"](logits.float(), target, power=power, draws=torch.zeros(8, 1))
        assert found.isfinite()


# -- ebv --------------------------------------------------------------------------------------------------------------


def test_ebv_is_smoothed_cross_entropy_of_cosines():
    logits, target = batch()
    cosines = logits / logits.norm(dim=-1, keepdim=True)
    close(LOSSES["ebv"](logits, target), cross_entropy(cosines / 0.07, target, reduction="none", label_smoothing=0.1))


def test_ebv_does_not_depend_on_the_norm():
    logits, target = batch()
    for scale in (0.01, 100.0):
        close(LOSSES["ebv"](scale * logits, target), LOSSES["ebv"](logits, target), 1e-6)
    slope = gradient(lambda z: LOSSES["ebv"](z, target), logits)
    close((slope * logits).sum(-1), [0.0] * 8)


# -- emo --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0.5, 3.0, 1e6])
def test_emo_is_of_the_cost_of_every_pair(cap):
    """Cost one minus cosine between all classes; the target's own share is in the gradient alone."""
    logits, target = batch()
    head = torch.randn(CLASSES, 7, generator=generator(1), dtype=torch.float64)
    rows = head / head.norm(dim=-1, keepdim=True)
    cost = (1 - rows @ rows.T)[target]
    fixed = torch.softmax(logits, -1)
    distances = (fixed * cost).sum(-1) + pick(fixed, target)
    ratio = (LOSSES["ce"](logits, target) / distances).clamp(max=cap)

    def expected(z):
        distance = (torch.softmax(z, -1) * cost).sum(-1) + pick(fixed, target)
        return 0.5 * (ratio * distance + LOSSES["ce"](z, target))

    def found(z):
        return LOSSES["emo"](z, target, cap=cap, head=head)

    close(found(logits), expected(logits))
    close(gradient(found, logits), gradient(expected, logits))
    if cap == 1e6:
        close(found(logits), LOSSES["ce"](logits, target), 1e-8)


def test_emo_does_not_depend_on_the_norms_of_the_head():
    logits, target = batch()
    head = torch.randn(CLASSES, 7, generator=generator(1), dtype=torch.float64)
    longer = head * torch.linspace(0.1, 10, CLASSES, dtype=torch.float64)[:, None]
    padded = torch.cat([longer, torch.zeros(CLASSES, 9)], -1)
    close(LOSSES["emo"](logits, target, head=padded), LOSSES["emo"](logits, target, head=head))
    assert LOSSES["emo"](logits, target, head=torch.zeros_like(head)).isfinite().all()


# -- lt ---------------------------------------------------------------------------------------------------------------


def learned(classes=CLASSES, seed=0, spread=1.0):
    """Parameters away from their first values."""
    first = initial(classes, generator(seed)).double()
    return first + spread * torch.randn(len(first), generator=generator(seed + 1), dtype=torch.float64)


def potential(s, parameters):
    """The potential at scores (d,), layer by layer, from the documented places of its parameters."""
    d, at = len(s), 0

    def take(*shape):
        nonlocal at
        at += math.prod(shape)
        return parameters[at - math.prod(shape) : at].reshape(shape)

    heard = s @ take(d, 16) + take(16)
    inner, last, mixture, _, skip = take(3, 2, 4), take(4), take(2), take(2), take(d)
    units = softplus(heard[:4])
    for layer in range(3):
        own = heard[4 * layer + 4 : 4 * layer + 8].clone()
        own[:2] += softplus(inner[layer]) @ units / 4
        units = softplus(own)
    convex = softplus(last) @ units / 4 + skip @ s
    return softplus(mixture[0]) * convex + softplus(mixture[1]) * (s * s).sum() / 2


def test_lt_slope_is_the_gradient_of_the_potential():
    for classes in (2, CLASSES, 12):
        parameters, (scores, _) = learned(classes), batch(classes=classes - 1)
        expected = torch.func.vmap(torch.func.grad(lambda s, p=parameters: potential(s, p)))(scores)
        close(potential_slope(scores, parameters), expected)


def test_lt_link_is_strongly_monotone():
    """Its Jacobian, by differences, is symmetric with eigenvalues of at least the weight of the square."""
    parameters, (scores, _) = learned(spread=2.0), batch(classes=CLASSES - 1)
    steps = 1e-5 * torch.eye(CLASSES - 1, dtype=torch.float64)
    least = softplus(parameters[16 * CLASSES + 29 : 16 * CLASSES + 30]).item()
    for s in scores:
        above, below = (potential_slope(s + sign * steps, parameters) for sign in (1, -1))
        jacobian = (above - below) / 2e-5
        close(jacobian, jacobian.T, 1e-8)
        assert torch.linalg.eigvalsh(jacobian)[0] > least - 1e-8
        assert torch.linalg.eigvalsh(jacobian)[-1] > least + 1e-4


def test_lt_of_the_square_alone_is_cross_entropy_with_a_last_logit_of_zero():
    scores, _ = batch(classes=CLASSES - 1)
    _, target = batch()
    parameters = learned()
    parameters[16 * CLASSES + 28], parameters[16 * CLASSES + 29] = -1e3, math.log(math.e - 1)

    def plain(z):
        return LOSSES["ce"](torch.cat([z, torch.zeros(8, 1)], -1), target)

    def found(z):
        return LOSSES["lt"](z, target, learned=parameters)

    close(found(scores), plain(scores))
    close(gradient(found, scores), gradient(plain, scores))
    close(link(scores, learned=parameters), log_softmax(torch.cat([scores, torch.zeros(8, 1)], -1)))


def test_lt_first_values():
    for classes in (2, CLASSES, 26):
        first = initial(classes, generator(3))
        assert len(first) % 16 == 0
        assert torch.equal(first, initial(classes, generator(3)))
        assert not torch.equal(first, initial(classes, generator(4)))
        square = softplus(first[16 * classes + 29])
        assert square.item() == pytest.approx(1)


def test_lt_learns_its_link():
    """Every parameter that is not padding has a gradient."""
    scores, _ = batch(classes=CLASSES - 1)
    _, target = batch()
    slope = gradient(lambda p: LOSSES["lt"](scores, target, learned=p), learned())
    used = 17 * (CLASSES - 1) + 64 - 16
    assert (slope[:used] != 0).sum() == used - 2
    assert (slope[used:] == 0).all()

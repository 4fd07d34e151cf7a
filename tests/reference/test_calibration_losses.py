"""Losses that train calibrated models, against plain forms of their papers, their limits and finite differences."""

import math

import pytest
import torch
from torch import Tensor

from reference.calibration import dece
from reference.calibration.adafocal import START, updated
from reference.calibration.dece import membership, soft_right
from reference.methods import catalogue
from reference.metrics.bins import equal_width

LOSSES = {id: method.function for id, method in catalogue("calibration").items()}
PLAIN = catalogue("loss")["ce"].function


def batch(n: int = 12, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


def own(logits: Tensor, target: Tensor) -> list[float]:
    """The target's probability of each row, as numbers."""
    return [float(row.softmax(0)[y]) for row, y in zip(logits, target, strict=True)]


def close(found: Tensor, expected: object, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def slope(function, logits: Tensor, target: Tensor, **given: object) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits, target, **given).sum(), logits)[0]


GIVEN = {
    "adafocal": {
        "adapted": torch.tensor([1.5, -0.7] * 7 + [3.0] + [k / 15 for k in range(1, 15)], dtype=torch.float64)
    },
    "flsc531": {"progress": torch.tensor(0.4, dtype=torch.float64)},
    "flsd53": {"gamma": 2.0},
}


@pytest.mark.parametrize("id", sorted(LOSSES))
def test_the_gradient_is_that_of_finite_differences(id: str) -> None:
    """Where choices (bins, the predicted class) stay as they are: steps are small."""
    logits, target = batch()
    given, step = GIVEN.get(id, {}), 1e-6
    found, expected = slope(LOSSES[id], logits, target, **given), torch.empty_like(logits)
    for i in range(logits.numel()):
        change = torch.zeros(logits.numel(), dtype=torch.float64)
        change[i] = step
        ahead, behind = (LOSSES[id](logits + sign * change.view_as(logits), target, **given).sum() for sign in (1, -1))
        expected.view(-1)[i] = (ahead - behind) / (2 * step)
    assert (found - expected).abs().max() <= 1e-6 * max(1.0, float(expected.abs().max()))


def test_focal_losses_have_the_gamma_that_they_say() -> None:
    logits, target = batch(40)
    p = own(logits, target)
    close(LOSSES["focal3"](logits, target), [-((1 - q) ** 3) * math.log(q) for q in p])
    assert {(q >= 0.2) + (q >= 0.5) for q in p} == {0, 1, 2}, "every case occurs"
    gammas = [5 if q < 0.2 else 3 if q < 0.5 else 1.5 for q in p]
    found = LOSSES["flsd53"](logits, target, gamma=1.5)
    close(found, [-((1 - q) ** g) * math.log(q) for q, g in zip(p, gammas, strict=True)])
    for progress, gamma in ((0.0, 5), (0.33, 5), (0.34, 3), (0.66, 3), (0.67, 1), (0.99, 1)):
        found = LOSSES["flsc531"](logits, target, progress=torch.tensor(progress, dtype=torch.float64))
        close(found, [-((1 - q) ** gamma) * math.log(q) for q in p])


def test_confidence_penalty_takes_off_entropy() -> None:
    logits, target = batch()
    entropy = [float(-(row.softmax(0) * row.log_softmax(0)).sum()) for row in logits]
    p = own(logits, target)
    found = LOSSES["confidence_penalty"](logits, target, strength=0.3)
    close(found, [-math.log(q) - 0.3 * h for q, h in zip(p, entropy, strict=True)])
    close(LOSSES["confidence_penalty"](logits, target, strength=0.0), PLAIN(logits, target))


def test_limited_confidence_is_minus_the_log_of_pass_at_n() -> None:
    logits, target = batch()
    p = own(logits, target)
    close(LOSSES["dco"](logits, target, samples=16), [-math.log(1 - (1 - q) ** 16) for q in p])
    close(LOSSES["dco"](logits, target, samples=1), PLAIN(logits, target))
    n, plain = 16, slope(PLAIN, logits, target)
    weight = [n * q * (1 - q) ** (n - 1) / (1 - (1 - q) ** n) for q in p]
    close(
        slope(LOSSES["dco"], logits, target, samples=n),
        plain * torch.tensor(weight, dtype=torch.float64)[:, None],
        1e-8,
    )


@pytest.mark.parametrize("log_p", [-0.69, -0.71, -29.9, -30.1, -200.0])
def test_limited_confidence_has_no_seam(log_p: float) -> None:
    """Where the form changes, and far out, against 200 digits of the formula."""
    from decimal import Decimal, getcontext

    getcontext().prec = 200
    rest = math.log(-math.expm1(log_p))
    logits = torch.tensor([[log_p, rest]], dtype=torch.float64)
    p = Decimal(float(logits.log_softmax(1)[0, 0])).exp()
    exact = float(-(1 - (1 - p) ** 16).ln())
    close(LOSSES["dco"](logits, torch.tensor([0]), samples=16), [exact], 1e-9)


def pairs(logits: Tensor, target: Tensor) -> list[tuple[float, float]]:
    """Confidence and whether it is right, of each row."""
    rows = [row.softmax(0) for row in logits]
    return [(float(p.max()), float(int(p.argmax()) == int(y))) for p, y in zip(rows, target, strict=True)]


def test_mmce_is_the_double_sum_of_its_paper() -> None:
    logits, target = batch(20)
    known = pairs(logits, target)
    assert {right for _, right in known} == {0.0, 1.0}

    def kernel(a: float, b: float) -> float:
        return math.exp(-abs(a - b) / 0.4)

    plain = float(PLAIN(logits, target).mean())
    total = sum((a - c) * (b - d) * kernel(c, d) for c, a in known for d, b in known) / len(known) ** 2
    close(LOSSES["mmce"](logits, target, weight=3.0), plain + 3 * math.sqrt(total), 1e-8)
    sure = [c for c, right in known if right]
    wrong = [c for c, right in known if not right]
    n, m = len(sure), len(wrong)
    total = (
        sum((1 - c) * (1 - d) * kernel(c, d) for c in sure for d in sure) / n**4
        + sum(c * d * kernel(c, d) for c in wrong for d in wrong) / m**4
        - 2 * sum((1 - c) * d * kernel(c, d) for c in sure for d in wrong) / (n * m) ** 2
    )
    close(LOSSES["mmce_w"](logits, target, weight=3.0), plain + 3 * math.sqrt(total), 1e-8)


def test_weighted_mmce_of_one_group_alone_has_the_gradient_of_cross_entropy() -> None:
    logits, _ = batch()
    for target in (logits.argmax(1), logits.argmin(1)):
        expected = slope(lambda z, y: PLAIN(z, y).mean(), logits, target)
        close(slope(LOSSES["mmce_w"], logits, target), expected)


def test_smoothed_labels_of_calibration() -> None:
    logits, target = batch()
    log_p = logits.log_softmax(1)
    mixed = 0.95 * torch.eye(logits.shape[1], dtype=torch.float64)[target] + 0.05 / logits.shape[1]
    close(LOSSES["ls05"](logits, target), -(mixed * log_p).sum(1))
    close(LOSSES["ls05"](logits, target, softening=0.0), PLAIN(logits, target))


def test_adafocal_uses_the_gamma_of_the_bin_of_the_targets_probability() -> None:
    logits, target = batch(40)
    gammas, edges = [0.5 + k for k in range(7)] + [-0.3 * (k + 1) for k in range(8)], [k / 15 for k in range(1, 15)]
    expected = []
    for q in own(logits, target):
        gamma = gammas[sum(q > edge for edge in edges)]
        factor = (1 - q) ** gamma if gamma > 0 else (1 + q) ** -gamma
        expected.append(-factor * math.log(q))
    close(LOSSES["adafocal"](logits, target, adapted=torch.tensor([*gammas, *edges], dtype=torch.float64)), expected)
    first = LOSSES["adafocal"](logits, target, adapted=torch.tensor(START, dtype=torch.float64))
    close(first, [-(1 - q) * math.log(q) for q in own(logits, target)])


def test_adafocal_follows_the_gap_of_each_bin() -> None:
    """30 samples, two to a bin of equal mass; in every other bin both are right, in the rest both are wrong."""
    confidence = torch.linspace(0.55, 0.98, 30, dtype=torch.float64)
    log_p = torch.stack([confidence, 1 - confidence], 1).log()
    bins = torch.arange(30) // 2
    target = bins % 2  # class 0 is predicted: right in even bins
    before = torch.tensor([1.0] * 5 + [0.21] * 5 + [-0.21] * 5 + [0.0] * 14, dtype=torch.float64)
    after = updated(before, log_p, target)
    for b in range(15):
        gap = float(confidence[bins == b].mean()) - float(b % 2 == 0)
        gamma = float(before[b])
        gamma *= math.exp(gap if gamma > 0 else -gap)
        if abs(gamma) < 0.2:
            gamma = -0.2 if gamma > 0 else 0.2
        assert float(after[b]) == pytest.approx(min(max(gamma, -2.0), 20.0)), b
    edges = after[15:]
    assert [(int((c > edges).sum())) for c in confidence.tolist()] == bins.tolist()
    signs = after[:15].sign() * before[:15].sign()
    assert {-1.0, 1.0} == set(signs.tolist()), "some change their sign, some do not"


def test_adafocal_keeps_gammas_in_their_range() -> None:
    log_p = torch.tensor([[0.99, 0.01]] * 30, dtype=torch.float64).log()
    values = torch.tensor([19.9] * 15 + [k / 15 for k in range(1, 15)], dtype=torch.float64)
    assert float(updated(values, log_p, torch.ones(30, dtype=torch.int64))[:15].max()) == 20.0


def test_soft_bins_and_soft_rights_become_hard_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the temperature falls the term becomes the expected calibration error in 15 bins of equal width."""
    confidence = (torch.arange(15, dtype=torch.float64) + 0.5) / 15
    close(membership(confidence).sum(1), [1.0] * 15)
    assert membership(confidence).argmax(1).tolist() == list(range(15))
    monkeypatch.setattr(dece, "SHARP", 1e-4)
    close(membership(confidence), torch.eye(15, dtype=torch.float64), 1e-9)
    logits, target = 5 * torch.eye(6, dtype=torch.float64)[[0, 1, 2, 3]], torch.tensor([0, 1, 5, 4])
    close(soft_right(logits.softmax(1), target), [1.0, 1.0, 0.0, 0.0], 1e-9)
    wide = torch.tensor([[0.5, 0.0], [0.5, 0.0], [1.6, 0.0], [1.6, 0.0], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 0, 0])
    known = pairs(wide, labels)
    right, sure = (torch.tensor([pair[i] for pair in known], dtype=torch.float64) for i in (1, 0))
    term = LOSSES["dece"](wide, labels, weight=1.0) - PLAIN(wide, labels).mean()
    assert float(term) == pytest.approx(equal_width(sure, right).ece, abs=1e-9)
    close(LOSSES["dece"](wide, labels, weight=0.0), PLAIN(wide, labels).mean())

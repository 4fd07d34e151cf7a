"""What theory asks of a loss, measured: symmetry, calibration, and the bounds of the comp-sum family.

Nothing here is a proof. The conditional risk of logits z at a distribution p of the label is the mean of the loss,
sum_k p_k l(z, k); :func:`measure` searches for its minimisers at a fixed sample of distributions and says what they
predict. All of it is of the author's defaults, in float64, and the same at every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference.methods import Method, named, supply
from reference.softmax import log_softmax

CLASSES = (5, 10)  # of the sums over labels; minimisers are of the last
DRAWS = 100  # distributions of the label
RATES = (0.0, 0.4, 0.6)  # of uniform noise: with this probability a label is drawn anew from all classes
BOX = 30.0  # logits are searched for within +-BOX
TIE = 1e-4  # a smaller lead in log-probability (in parts of their spread, if that is below 1) is none
STEPS = (40, 200)  # evaluations from every start, and from the best point
MARGINS = (0.05, 0.1, 0.2, 0.5, 1.0)  # excess errors of which the bound is tabulated
EXACT = 1e-9  # relative: what counts as equal for two formulas

Losses = Callable[[Tensor], Tensor]  # logits (N, C) -> the loss against every label (N, C)


@dataclass(frozen=True)
class Sums:
    """The sum over all labels of the loss, at random and extreme logits within +-BOX."""

    classes: int
    low: float
    high: float

    @property
    def constant(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True)
class Minima:
    """What the minimisers of the conditional risk under uniform label noise predict; shares are of distributions."""

    rate: float
    right: float  # share with the most probable clean class alone in front
    tied: float  # share with several classes in front
    ordered: float  # share with all classes in the order of their probabilities
    off: float  # largest difference of a predicted probability from the clean one
    moved: float  # largest difference of a predicted probability from the one without noise
    edge: float  # share with a logit at the edge of the box: a wider box has a lower risk, and may change the rest


@dataclass(frozen=True)
class Family:
    """A loss that is scale times the comp-sum loss of tau, and what its excess says of the excess error."""

    tau: float
    scale: float
    classes: int
    costs: tuple[tuple[float, float], ...]  # excess error -> the least excess of this loss
    factor: float  # k: the excess error is at most sqrt(k * excess loss), for tau = 2 at most k * excess loss


@dataclass(frozen=True)
class Facts:
    """What was measured of a loss. Numbers are rounded, so that they are the same on every machine."""

    draws: int
    box: float
    sums: tuple[Sums, ...]
    low: float  # least and largest value within the box
    high: float
    bounded: bool
    minima: tuple[Minima, ...]
    told: bool  # whether the loss is supplied with the noise transition, which then is the true one
    family: Family | None


def left_out(method: Method) -> str:
    """Why the loss has no conditional risk of its own that could be measured here; '' where it has."""
    acts = method.correction.at if method.correction else "loss"
    reasons = {
        f"it acts on the {acts}, and the loss that it trains with is the plain one": acts != "loss",
        "its values belong to batches, not to samples": method.batchwise,
        "its values depend on what it remembers of earlier visits": method.memory,
        "its values depend on random draws": method.draws,
        "its link is learned together with the network": method.learned or method.outputs,
        "the noise transition that it uses is estimated during the training": method.estimate,
        "its values depend on the weights of the network's last layer": "head" in method.supplied,
        "it changes in the course of the training": "progress" in method.supplied,
        "parts of it are held constant in its gradient, so that training does not minimise its values": (
            "stop-gradient" in method.tags
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def measure(method: Method) -> Facts | str:
    """Everything about one loss, or why it is left out."""
    reason = left_out(method)
    if reason:
        return reason
    losses = {classes: against_all(method, clean(classes)) for classes in CLASSES}
    values = [losses[classes](spread(classes)) for classes in CLASSES]
    last = CLASSES[-1]
    return Facts(
        draws=DRAWS,
        box=BOX,
        sums=tuple(_sums(each) for each in values),
        low=_short(min(float(each.min()) for each in values)),
        high=_short(max(float(each.max()) for each in values)),
        bounded=bounded(losses[CLASSES[0]], CLASSES[0]),
        minima=calibration(method, distributions(DRAWS, last)),
        told="transition" in method.supplied,
        family=None if method.supplied else family(losses[last], last),
    )


def against_all(method: Method, transition: Tensor) -> Losses:
    """The method as a function of logits (N, C) that returns the loss against every label (N, C)."""
    given = supply(method.supplied, {"transition": transition})

    def losses(logits: Tensor) -> Tensor:
        rows, classes = logits.shape
        labels = torch.arange(classes).repeat(rows)
        found: Tensor = method.function(logits.repeat_interleave(classes, 0), labels, **given)
        return found.reshape(rows, classes)

    return losses


def clean(classes: int) -> Tensor:
    """The transition of no noise: (C, C)."""
    return torch.eye(classes, dtype=torch.float64)


def uniform(classes: int, rate: float) -> Tensor:
    """The transition of uniform noise, (1 - rate) I + rate / C: (C, C)."""
    return (1 - rate) * clean(classes) + rate / classes


# -- symmetry ----------------------------------------------------------------------------------------------------------


def spread(classes: int) -> Tensor:
    """Rows of logits within +-BOX: zero, random of four sizes, and every corner of the box: (M, C)."""
    generator = torch.Generator().manual_seed(classes)
    sizes = (0.1, 1.0, 5.0, 20.0)
    random = [size * torch.randn(50, classes, generator=generator, dtype=torch.float64) for size in sizes]
    corners = BOX * (2.0 * _bits(classes) - 1)
    return torch.cat([torch.zeros(1, classes, dtype=torch.float64), *random, corners]).clamp(-BOX, BOX)


def _bits(classes: int) -> Tensor:
    """Every row of zeros and ones: (2^C, C)."""
    return (torch.arange(2**classes)[:, None] >> torch.arange(classes) & 1).double()


def _sums(losses: Tensor) -> Sums:
    """The range of the sums over labels of losses (M, C), one number where it is no wider than rounding makes it."""
    sums = losses.sum(-1)
    low, high = float(sums.min()), float(sums.max())
    if high - low <= EXACT * max(abs(low), abs(high)):
        low = high = float(sums[0])
    return Sums(losses.shape[-1], _short(low), _short(high))


def bounded(losses: Losses, classes: int) -> bool:
    """Each time the logits grow tenfold, from 1e4 to 1e6, the largest value grows by less."""
    corners = torch.cat([2.0 * _bits(classes) - 1, clean(classes), -clean(classes)])
    near, far, farthest = (float(losses(size * corners).abs().max()) for size in (1e4, 1e5, 1e6))
    return farthest - far < 0.9 * (far - near) + 1e-6 * far


def _short(value: float) -> float:
    """Six significant digits, and no more than nine decimals; zero without a sign."""
    return float(f"{round(value, 9):.6g}") + 0.0


# -- calibration -------------------------------------------------------------------------------------------------------


def distributions(count: int, classes: int) -> Tensor:
    """Random distributions of the label, flat to steep; of three, one has a near tie in front, one a clear leader.

    No two classes are nearer than 2 % of their probability, which no search could tell apart: (count, C).
    """
    generator = torch.Generator().manual_seed(0)
    steepness = torch.tensor([0.03, 0.1, 0.2], dtype=torch.float64).repeat(count)[:count, None]
    draws = torch.rand(count, classes - 1, generator=generator, dtype=torch.float64)
    gaps = 0.02 - steepness * torch.log1p(-0.9 * draws)  # between the log-probabilities, in their order
    kind = torch.arange(count) // 3 % 3
    gaps[kind == 1, 0] = 0.02
    gaps[kind == 2, 0] += 3
    falling = torch.cat([torch.zeros(count, 1, dtype=torch.float64), -gaps.cumsum(-1)], -1)
    order = torch.rand(count, classes, generator=generator).argsort(-1)
    return torch.softmax(falling, -1).gather(-1, order)


def calibration(method: Method, p: Tensor) -> tuple[Minima, ...]:
    """What the minimisers at the distributions p (N, C) predict, for every rate of :data:`RATES`.

    A loss that is supplied with the noise transition is given the true one.
    """
    found: list[Minima] = []
    near = quiet = None
    for rate in RATES:
        noise = uniform(p.shape[-1], rate)
        near = minimisers(against_all(method, noise), p @ noise, near)
        log_q = log_softmax(near) if method.link is None else _linked(method, near)
        quiet = log_q.exp() if quiet is None else quiet
        ranked = log_q.sort(-1, descending=True).values
        least = TIE * (ranked[:, 0] - ranked[:, -1]).clamp(max=1)
        alone = ranked[:, 0] - ranked[:, 1] > least
        lined = log_q.gather(-1, p.argsort(-1, descending=True))
        found.append(
            Minima(
                rate=rate,
                right=_share(alone & (log_q.argmax(-1) == p.argmax(-1))),
                tied=_share(~alone),
                # Neighbours in the order may be far nearer than the first two, in parts of the spread.
                ordered=_share((lined[:, :-1] - lined[:, 1:] > least[:, None] / 100).all(-1)),
                off=round(float((log_q.exp() - p).abs().max()), 4),
                moved=round(float((log_q.exp() - quiet).abs().max()), 4),
                edge=_share(near.abs().amax(-1) > BOX - 1e-3),
            )
        )
    return tuple(found)


def _linked(method: Method, logits: Tensor) -> Tensor:
    assert method.link is not None
    found: Tensor = method.link(logits, **supply(named(method.link), method.defaults))
    return found


def _share(holds: Tensor) -> float:
    return float(holds.double().mean())


def minimisers(losses: Losses, p: Tensor, near: Tensor | None = None) -> Tensor:
    """Logits (N, C) within +-BOX at which the conditional risk at each row of p (N, C) is least, as far as found.

    A search from the best of many points and from three fixed ones, then from the best point that it came to. A risk
    whose infimum is at infinity has its least value at the box's edge, which is tried too, and preferred where rounding
    leaves no difference.

    Args:
        near: points (N, C) to try as well.
    """
    rows = torch.arange(len(p))

    def values(points: Tensor) -> Tensor:
        """The risks of points (N, K, C): (N, K)."""
        with torch.no_grad():
            each = losses(points.flatten(0, 1)).reshape(points.shape)
        return (p[:, None] * each).sum(-1).nan_to_num(math.inf, math.inf, -math.inf)

    def best(points: Tensor) -> Tensor:
        """The last point whose risk is the least up to rounding: (N, C)."""
        risks = values(points)
        least = risks.amin(-1, keepdim=True)
        equal = risks <= least + 1e-13 * (1 + least.abs())
        return points[rows, (equal * torch.arange(1, equal.shape[-1] + 1)).argmax(-1)]

    def searched(starts: Tensor, steps: int) -> Tensor:
        """From starts (N, K, C), with their neighbours: (N, K', C)."""
        weights = p.repeat_interleave(starts.shape[1], 0)
        ends = descend(lambda z, which: (weights[which] * losses(z)).sum(-1), starts.flatten(0, 1), steps)
        return torch.cat([_neighbours(z, p) for z in ends.reshape(starts.shape).unbind(1)], 1)

    tried = _starts(p) if near is None else torch.cat([_starts(p), near[:, None]], 1)
    starts = torch.cat([tried[:, :3], best(tried)[:, None]], 1)
    found = best(torch.cat([searched(starts, STEPS[0]), tried], 1))
    for _ in range(2):
        found = best(torch.cat([searched(found[:, None], STEPS[1]), found[:, None]], 1))
    return found


def _starts(p: Tensor) -> Tensor:
    """Points to begin with (N, K, C); the first three are zero, log p and its most probable class.

    The others are multiples of log p and p itself, the likeliest classes at one end of the box and the others at the
    other end, and ladders of whole numbers, on which the margin losses have their kinks.
    """
    log_p = p.log()
    centred = log_p - log_p.mean(-1, keepdim=True)
    rank = p.argsort(-1, descending=True).argsort(-1)
    found = [torch.zeros_like(p), centred, (rank == 0).double(), 2 * centred, log_p, p]
    counts = range(1, p.shape[-1])
    top = BOX + log_p - log_p.amax(-1, keepdim=True)
    found += [torch.where(rank < k, top, -BOX) for k in counts]
    found += [(rank < j).double() + (rank < k) for j in counts for k in (0, *counts) if k < j or j == k == 1]
    return torch.stack(found, 1)


def _neighbours(z: Tensor, p: Tensor) -> Tensor:
    """Points (N, K, C) beside where a search ended (N, C), for what gradients do not show.

    The same logits in the order of p; improbable classes at the edge of the box, where their gradient has faded; and
    whole numbers.
    """
    ordered = z.sort(-1).values.gather(-1, p.argsort(-1).argsort(-1))
    found = []
    for each in (z, ordered):
        below = each - each.amax(-1, keepdim=True)
        found += [each, torch.where(below < -12, -BOX, each), torch.where(below < -5, -BOX, each), below.round()]
    return torch.stack(found, 1).clamp(-BOX, BOX)


def descend(risk: Callable[[Tensor, Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    """Minimise risk(z, rows) (N',) over each row z of (N, C) within +-BOX, by BFGS: (N, C).

    z = BOX sin(x / BOX) makes the edge of the box a regular minimum. The line search is the bisection for the weak
    Wolfe conditions with which BFGS also converges at kinks (Lewis & Overton, Math. Program. 2013). All rows advance
    together, each with its own line search, one evaluation a step; rows that have converged are left out.
    """

    def evaluate(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = risk(BOX * torch.sin(x / BOX), rows)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    def column(values: Tensor) -> Tensor:
        return values[:, None]

    count, classes = start.shape
    one = torch.eye(classes, dtype=start.dtype)
    ends = BOX * torch.asin((start / BOX).clamp(-0.98, 0.98))  # at the edge itself there is no gradient
    x, rows = ends, torch.arange(count)
    value, slope = evaluate(x, rows)
    inverse, direction = one.repeat(count, 1, 1), -slope
    size, low, high = torch.ones(count).double(), torch.zeros(count).double(), torch.full((count,), math.inf).double()
    first = torch.ones(count, dtype=torch.bool)
    live = slope.abs().amax(-1) > 1e-9
    for _ in range(steps):
        if not live.all():
            ends = ends.index_copy(0, rows[~live], x[~live])
            state = (x, rows, value, slope, inverse, direction, size, low, high, first)
            x, rows, value, slope, inverse, direction, size, low, high, first = (each[live] for each in state)
        if not len(rows):
            break
        there = x + column(size) * direction
        new_value, new_slope = evaluate(there, rows)
        descent = (slope * direction).sum(-1)
        far = ~(new_value <= value + 1e-4 * size * descent)  # also for nan
        short = ~far & ((new_slope * direction).sum(-1) < 0.9 * descent)
        taken = ~far & ~short
        high, low = torch.where(far, size, high), torch.where(short, size, low)
        stuck = ~taken & ((high - low) * direction.abs().amax(-1) < 1e-13 * (1 + x.abs().amax(-1))) | (size > 1e12)

        step, change = there - x, new_slope - slope
        curve = (step * change).sum(-1)
        scale = curve / (change * change).sum(-1).clamp(min=1e-300)
        before = torch.where(first[:, None, None], scale[:, None, None] * one, inverse)
        image = (before @ change[..., None])[..., 0]
        cross = step[:, :, None] * image[:, None, :]
        outer = ((1 + (change * image).sum(-1) / curve) / curve)[:, None, None] * step[:, :, None] * step[:, None, :]
        after = before + outer - (cross + cross.mT) / curve[:, None, None]
        update = taken & (curve > 1e-300) & after.flatten(1).isfinite().all(-1)
        inverse = torch.where(update[:, None, None], after, inverse)
        first = first & ~update

        x, slope = torch.where(column(taken), there, x), torch.where(column(taken), new_slope, slope)
        value = torch.where(taken, new_value, value)
        ahead = -(inverse @ slope[..., None])[..., 0]
        ahead = torch.where(column((ahead * slope).sum(-1) < 0), ahead, -slope)
        direction = torch.where(column(taken), ahead, direction)
        size = torch.where(taken, 1.0, torch.where(high.isfinite(), (low + high) / 2, 2 * size))
        low, high = torch.where(taken, 0.0, low), torch.where(taken, math.inf, high)
        live = (slope.abs().amax(-1) > 1e-9) & ~stuck
    return BOX * torch.sin(ends.index_copy(0, rows, x) / BOX)


# -- the comp-sum family -----------------------------------------------------------------------------------------------


def family(losses: Losses, classes: int) -> Family | None:
    """What the H-consistency bound says of this loss, if it is of the comp-sum family."""
    found = comp_sum(losses, classes)
    if found is None:
        return None
    tau, scale = found
    margins = torch.tensor(MARGINS, dtype=torch.float64)
    costs = (scale * transformation(margins, tau, classes)).tolist()
    factor = _short(simple_factor(tau, classes) / scale)
    return Family(tau, _short(scale), classes, tuple(zip(MARGINS, map(_short, costs), strict=True)), factor)


def phi(log_p: Tensor, tau: float) -> Tensor:
    """The comp-sum loss at the target's log-probability, elementwise (Mao, Mohri & Zhong, ICML 2023)."""
    return -log_p if tau == 1 else -torch.expm1((tau - 1) * log_p) / (tau - 1)


def comp_sum(losses: Losses, classes: int) -> tuple[float, float] | None:
    """(tau, scale) if the loss is scale times the comp-sum loss of a tau in [0, 2], at all logits tried; else None."""
    log_p = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    logits = torch.zeros(2, classes, dtype=torch.float64)
    logits[:, 0] = math.log(classes - 1) + log_p - torch.log(-torch.expm1(log_p))
    one, two = losses(logits)[:, 0].tolist()
    ratio = two / one if one else 0.0  # 1 + e^(1 - tau), for that family
    if not 1 < ratio < 4:
        return None
    tau = round(1 - math.log(ratio - 1), 9)
    scale = one / float(phi(log_p[0], tau))
    rows = spread(classes)
    rows = rows[rows.abs().amax(-1) <= 5]  # beyond, a steep loss may be continued by its tangent
    same = torch.allclose(losses(rows), scale * phi(log_softmax(rows), tau), rtol=EXACT, atol=EXACT)
    return (tau, scale) if same and 0 <= tau <= 2 else None


def transformation(margin: Tensor, tau: float, classes: int) -> Tensor:
    """T(margin) for margins in [0, 1]: a zero-one excess has at least this excess of the comp-sum loss, elementwise.

    The H-consistency transformation of Mao, Mohri & Zhong (ICML 2023, arXiv:2304.07288) for symmetric and complete sets
    of hypotheses, as we recalculated it; both excesses include their minimizability gaps. It is convex, and continuous
    in tau. Where two classes alone are probable and tie, equality holds for tau <= 1, and for every tau if there are no
    other classes; with C classes and tau > 1 the excess there is (C / 2)^(tau - 1) times as large.

    >>> transformation(torch.tensor([0.0, 1.0], dtype=torch.float64), 1.0, 10).tolist()  # the second is log 2
    [0.0, 0.6931471805599453]
    """
    if tau >= 2:
        return margin / ((tau - 1) * classes ** (tau - 1))
    if tau == 1:
        return (torch.special.xlogy(1 + margin, 1 + margin) + torch.special.xlogy(1 - margin, 1 - margin)) / 2
    power = 1 / (2 - tau)
    mean = torch.logaddexp(power * torch.log1p(margin), power * torch.log1p(-margin)) - math.log(2)  # its logarithm
    growth = torch.expm1(mean / power)
    return 2 ** (1 - tau) * -growth / (1 - tau) if tau < 1 else growth / ((tau - 1) * classes ** (tau - 1))


def excess_error(excess: Tensor, tau: float, classes: int) -> Tensor:
    """Gamma, the inverse of :func:`transformation`, by bisection; 1 where the excess is larger than any T."""
    low, high = torch.zeros_like(excess), torch.ones_like(excess)
    for _ in range(60):
        middle = (low + high) / 2
        under = transformation(middle, tau, classes) <= excess
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return high


def simple_factor(tau: float, classes: int) -> float:
    """k of the simpler bound: an excess error is at most sqrt(k * excess loss), for tau = 2 at most k * excess loss."""
    if tau >= 2:
        return (tau - 1) * classes ** (tau - 1)
    return 2**tau * (2 - tau) if tau < 1 else 2 * classes ** (tau - 1)


@dataclass(frozen=True)
class Risk:
    """The risks of a finite set of hypotheses (H,), the least of them, and the minimizability gap."""

    values: Tensor
    least: Tensor
    gap: Tensor  # the least risk minus the mean over x of the least conditional risks

    @property
    def excess(self) -> Tensor:
        """Of each hypothesis, with the gap: (H,)."""
        return self.values - self.least + self.gap


def risk_of(conditional: Tensor, weights: Tensor) -> Risk:
    """From conditional risks (H, X) of hypotheses at points with these weights (X,)."""
    values = conditional @ weights
    return Risk(values, values.min(), values.min() - conditional.min(0).values @ weights)


def zero_one(scores: Tensor, p: Tensor) -> Tensor:
    """Conditional errors (H, X) of scores (H, X, C) at label distributions p (X, C); the last class wins a tie."""
    classes = scores.shape[-1]
    predicted = classes - 1 - scores.flip(-1).argmax(-1)
    return 1 - p.expand_as(scores).gather(-1, predicted[..., None])[..., 0]


def bound(scores: Tensor, p: Tensor, weights: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Both sides of the H-consistency bound, for each of a finite set of hypotheses with scores (H, X, C): (H,), (H,).

    R_01(h) - R*_01 + M_01 <= Gamma(R(h) - R* + M), where R* are least risks in the set and M its minimizability gaps,
    for points with distributions p (X, C) and weights (X,). The theorem is for sets that are symmetric and complete; a
    finite one should hold the best scores at every point.
    """
    error = risk_of(zero_one(scores, p), weights)
    loss = risk_of((p * phi(log_softmax(scores), tau)).sum(-1), weights)
    return error.excess, excess_error(loss.excess, tau, scores.shape[-1])

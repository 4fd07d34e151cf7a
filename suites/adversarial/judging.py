"""From a trained network to a record: accuracy under attacks and common corruptions, and what can be certified."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossboard.problem import Problem, stream
from lossboard.protocol import Cell
from lossboard.records import Record
from lossboard.run import Context, recorded
from lossboard.threat import Threat
from lossboard.train import one_thread
from reference import masking
from reference.attacks.apgd import apgd_ce, apgd_t
from reference.attacks.ascent import ascend
from reference.attacks.autoattack import autoattack
from reference.attacks.ball import anywhere
from reference.attacks.fgsm import fgsm
from reference.attacks.objectives import margin, right
from reference.attacks.pgd import pgd, pgd_margin
from reference.attacks.square import square
from reference.bounds import certified, tightness
from reference.corruptions import corruptions
from reference.masking import Check
from suites.adversarial import Judging, networks
from suites.adversarial.networks import Model, Network
from suites.adversarial.pictures import GRID, LEVELS, SHOWN, SIDE, packed

SIZES = (0.125, 0.25, 0.5, 1.0, 1.5, 2.0)  # multiples of eps of the accuracy-epsilon curve
SMALL = SIZES[:4]  # those that the power law is fitted to
TOGETHER = {"mlp": 1024}  # rows attacked at once; of images fewer, whose activations are to stay in a cache
OF_IMAGES = 128
DRAWS = 10  # forward passes averaged at each step, against a network that randomises
COVERING = 20  # restarts in the ball from which everything can be reached: of few features one often ends at a corner
TIGHT = 100  # test rows whose bounds' tightness is measured
TRANSFER_STEPS, TRANSFER_STARTS = 40, 2
TRANSFERRED = "an attack on the networks that it combines beats the one on itself"
VALIDATED = {"steps": 10, "step": 0.25}  # the attack on validation rows, of PGD on the margin


def records(cells: Sequence[Cell], context: Context) -> Iterator[Record]:
    """What each cell gave; trials of a combination that differ in the learning rate alone are the same network."""
    one_thread()
    start = time.process_time()
    found = networks.networks(cells, context)
    begun = (time.process_time() - start) / len(cells)
    known: dict[tuple[object, ...], Record] = {}
    for cell, network in zip(cells, found, strict=True):
        combines = context.methods[cell.method].combines
        params = {name: value for name, value in cell.params.items() if not (combines and name == "lr")}
        key = (cell.method, cell.task.id, cell.seed, *sorted(params.items()))
        if key not in known:
            known[key] = _record(cell, network, network.seconds or begun, context)
        same = known[key]
        yield recorded(cell, same.status, same.metrics, seconds=same.seconds, bits=same.bits)


def _record(cell: Cell, network: Network, trained: float, context: Context) -> Record:
    """What a network that took so many seconds to be ``trained`` gives under attack."""
    if not network.ok:
        return recorded(cell, "diverged", {}, seconds=trained, bits=network.bits)
    start = time.process_time()
    metrics = judged(cell, network, networks.problem(cell.task, cell.seed, context.data))
    return recorded(cell, "ok", metrics, seconds=trained + time.process_time() - start, bits=network.bits)


@dataclass(frozen=True)
class Target:
    """A network under attack: what attacks are told, and rows to attack."""

    model: Model
    x: Tensor
    y: Tensor
    threat: Threat
    stream: Callable[[str], torch.Generator]
    together: int  # rows at once
    draws: int = 1

    def only(self, rows: Tensor | slice) -> Target:
        return dataclasses.replace(self, x=self.x[rows], y=self.y[rows])

    def right(self) -> Tensor:
        """Whether each row is classified correctly as it is: (N,), bool."""
        return self._right(lambda x, y: x)

    def under(self, attack: Callable[..., Tensor], name: str, eps: float | None = None, **sizes: float) -> Tensor:
        """Whether each row still is under an attack, whose random stream has this name: (N,), bool."""
        generator, size = self.stream(name), self.threat.eps if eps is None else eps
        how: dict[str, Any] = {"eps": size, "norm": self.threat.norm, "generator": generator, **sizes}
        return self._right(lambda x, y: attack(self.model, x, y, **how))

    @torch.no_grad()
    def _right(self, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        parts = zip(self.x.split(self.together), self.y.split(self.together), strict=True)
        return torch.cat([right(self.model(change(x, y)), y) for x, y in parts])


def judged(cell: Cell, network: Network, rows: Problem) -> dict[str, float]:
    """All metrics of a network, on the test rows but for the two on which its trial is chosen."""
    threat: Threat = cell.task.parts["threat"]
    how: Judging = cell.task.parts["judging"]
    draw = functools.partial(stream, cell.task.dataset, cell.seed)
    rows = rows.to(torch.device(networks.device(cell.task)))
    together = TOGETHER.get(cell.task.model.kind, OF_IMAGES)
    test, val = (
        Target(network.model, rows.features[part], rows.labels[part], threat, draw, together)
        for part in (rows.test, rows.val)
    )
    repeats = masking.repeatable(network.model, test.x[: how.checked])
    if repeats.suspect:
        test = dataclasses.replace(test, draws=DRAWS)
    correct = attacked(test, how, network.surrogates)
    robust = torch.stack(list(correct.values())).all(0)
    checks = [*checked(test.only(slice(how.checked)), how, correct["square"][: how.checked]), repeats]
    if network.surrogates:
        checks.append(masking.gained("transfer", correct["transfer"], correct["apgd"], TRANSFERRED))
    curve, still = {}, correct["clean"]
    for size in SIZES:
        curve[size] = test.under(pgd_margin, "curve", size * threat.eps, **_sizes(how))
        if network.surrogates:  # what fooled it in a smaller ball does in this one
            curve[size] = still = through(test, network.surrogates, size * threat.eps, curve[size] & still)
    found = {name: _share(each) for name, each in correct.items()}
    found |= {"robust": _share(robust), "worst_class": worst_class(robust, test.y)}
    found |= {f"robust_at_{size:g}": _share(each) for size, each in curve.items()}
    if fitted := power_law({size: _share(correct["clean"] & ~curve[size]) for size in SMALL}):
        found["power_fit"], found["power"] = fitted
    found |= {f"corrupted_{name}": value for name, value in corrupted(test).items()}
    found["corrupted"] = _mean(value for name, value in found.items() if name.startswith("corrupted_"))
    found |= _certified(test, robust)
    found |= {f"masked_{_slug(check)}": float(check.suspect) for check in checks}
    found |= {f"check_{_slug(check)}": check.value for check in checks}
    found["reliable"] = float(not any(check.suspect for check in checks))
    found["passes"] = network.passes
    found |= {"val": network.val, "robust_val": network.robust_val}
    if math.isnan(network.val):
        left = through(val, network.surrogates, threat.eps, val.under(pgd_margin, "validation", **VALIDATED))
        found |= {"val": _share(val.right()), "robust_val": _share(left)}
    if cell.seed == 0:
        found |= regions(test) if test.x.shape[1:] == (2, 1, 1) else examples(test)
        if how.autoattack:
            some = test.only(slice(how.autoattack))
            found["autoattack"] = _share(some.right() & some.under(autoattack, "autoattack"))
    return found


def _sizes(how: Judging) -> dict[str, float]:
    return {"steps": how.steps, "step": 2.5 / how.steps}


def transfer(
    model: Model, x: Tensor, y: Tensor, *, surrogate: Model, eps: float, norm: str, generator: torch.Generator
) -> Tensor:
    """PGD on the margin of another network, which goes on where that one is fooled: of its points one that fools
    ``model``, where there is one."""
    found = x.clone()
    for _ in range(TRANSFER_STARTS):
        point, step = anywhere(x, eps, norm, generator), 2.5 * eps / TRANSFER_STEPS
        for _ in range(TRANSFER_STEPS):
            point = ascend(surrogate, x, y, margin, point, eps=eps, norm=norm, step=step, steps=1).x
            fooled = ~right(model(point), y)
            found[fooled] = point[fooled]
    return found


def through(test: Target, surrogates: Sequence[Model], eps: float, among: Tensor) -> Tensor:
    """Which of the rows ``among`` all, (N,), are still right under attacks on every one of these other networks within
    eps: (N,), bool. What one attack has fooled is not attacked again."""
    still = among.clone()
    for one in surrogates:
        rows = still.nonzero()[:, 0]
        if len(rows):
            still[rows] = test.only(rows).under(functools.partial(transfer, surrogate=one), "transfer", eps)
    return still


def attacked(test: Target, how: Judging, surrogates: Sequence[Model]) -> dict[str, Tensor]:
    """Attack -> which rows are still right under it (N,); "clean": without any."""
    averaged = {"draws": test.draws}
    auto = {"steps": how.auto_steps, **averaged}
    first = test.under(apgd_ce, "apgd_ce", **auto)
    left = first.nonzero()[:, 0]
    both = first.clone()
    if len(left):
        both[left] = test.only(left).under(apgd_t, "apgd_t", targets=how.targets, **auto)
    clean = test.right()
    return {
        "clean": clean,
        "fgsm": test.under(fgsm, "fgsm"),
        "pgd": test.under(pgd, "pgd", **_sizes(how), **averaged),
        "apgd": both,
        "square": test.under(square, "square", queries=how.queries),
        **({"transfer": through(test, surrogates, test.threat.eps, clean)} if surrogates else {}),
    }


def checked(some: Target, how: Judging, without_gradients: Tensor) -> list[Check]:
    """The checks for masked gradients that need attacks; (N,) is which rows are right under the square attack."""
    eps, draws = some.threat.eps, {"draws": some.draws}
    short, long = {"steps": 10, "step": 0.25, **draws}, {"steps": 100, "step": 0.05, **draws}
    few, many = some.under(pgd, "check", **short), some.under(pgd, "check", **long)
    covering = 1.0 if some.threat.norm == "linf" else math.sqrt(some.x[0].numel())
    sizes = {0.0: _share(some.right()), eps: _share(few), 2 * eps: _share(some.under(pgd, "check", 2 * eps, **short))}
    sizes[covering] = _share(some.under(pgd, "check", covering, restarts=COVERING, **short))
    return [
        masking.more_steps(few, many),
        masking.more_restarts(few, some.under(pgd, "check", restarts=5, **short)),
        masking.black_box(without_gradients, many),
        masking.vanishes(sizes),
        masking.along_gradient(some.model, some.x, some.y, eps=eps, norm=some.threat.norm),
    ]


def _slug(check: Check) -> str:
    return check.name.replace(" ", "_")


@torch.no_grad()
def corrupted(test: Target) -> dict[str, float]:
    """Common corruption -> accuracy on test rows under it."""
    found = {}
    for name, corrupt in corruptions(test.x.shape).items():
        x = corrupt(test.x, test.stream(f"corrupted {name}"))
        found[name] = _share(dataclasses.replace(test, x=x).right())
    return found


def _certified(test: Target, robust: Tensor) -> dict[str, float]:
    """What interval bounds prove, of networks and threats that there are bounds for.

    Raises:
        AssertionError: an attack fooled a network where that was proven impossible.
    """
    if test.threat.norm != "linf" or not isinstance(test.model, nn.Module):
        return {}
    try:
        pairs = zip(test.x.split(test.together), test.y.split(test.together), strict=True)
        proven = torch.cat([certified(test.model, x, y, test.threat.eps) for x, y in pairs])
        tight = float(tightness(test.model, test.x[:TIGHT]).mean())
    except TypeError:  # nothing is known of this kind of network
        return {}
    assert not bool((proven & ~robust).any()), "an attack fooled the network where bounds exclude it"
    return {"certified": _share(proven), "tightness": tight}


@torch.no_grad()
def regions(test: Target) -> dict[str, float]:
    """The class that a network predicts at the middle of each cell of a grid over the unit square, row by row."""
    middles = (torch.arange(GRID, device=test.x.device) + 0.5) / GRID
    across, up = middles.repeat(GRID), middles.repeat_interleave(GRID)
    said = test.model(torch.stack([across, up], 1).view(-1, 2, 1, 1)).argmax(1)
    return packed("region", said.tolist())


@torch.no_grad()
def examples(test: Target) -> dict[str, float]:
    """The first test image of each of the first classes as Auto-PGD leaves it, in grey, and what the network says."""
    labels = test.y.unique()[:SHOWN]
    rows = torch.stack([(test.y == label).nonzero()[0, 0] for label in labels])
    some, found = test.only(rows), dict[str, float]()
    how: dict[str, Any] = {"norm": test.threat.norm, "generator": test.stream("examples"), "draws": test.draws}
    attacked = apgd_ce(some.model, some.x, some.y, eps=test.threat.eps, **how)
    side = min(SIDE, test.x.shape[-1])
    said = zip(some.model(some.x).argmax(1).tolist(), some.model(attacked).argmax(1).tolist(), strict=True)
    for i, (before, after) in enumerate(said):
        found |= {f"example{i}_said": float(before), f"example{i}_attacked_said": float(after)}
        found[f"example{i}_label"] = float(some.y[i])
        for name, x in ((f"example{i}", some.x[i]), (f"example{i}_attacked", attacked[i])):
            grey = F.adaptive_avg_pool2d(x.mean(0, keepdim=True), side).flatten()
            found |= packed(name, (LEVELS * grey).round().long().tolist())
    return found


def worst_class(correct: Tensor, target: Tensor) -> float:
    """The smallest share that is correct among the rows of one class.

    >>> worst_class(torch.tensor([True, False, True]), torch.tensor([0, 0, 1]))
    0.5
    """
    return min(_share(correct[target == label]) for label in target.unique())


def power_law(errors: Mapping[float, float]) -> tuple[float, float] | None:
    """How well the errors at these eps lie on a power law, and its exponent: R^2 in logarithms, from 0 to 1.

    None where fewer than three errors are above 0, or all are the same.

    >>> power_law({1.0: 0.01, 2.0: 0.04, 4.0: 0.16})
    (1.0, 2.0)
    """
    known = [(math.log(size), math.log(error)) for size, error in errors.items() if error > 0]
    if len(known) < 3 or len({error for _, error in known}) == 1:
        return None
    x, y = (torch.tensor(each, dtype=torch.float64) for each in zip(*known, strict=True))
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / (x * x).sum())
    rest, all_of_it = float((y - slope * x).square().sum()), float(y.square().sum())
    return round(1 - rest / all_of_it, 9), round(slope, 9)


def _share(values: Tensor) -> float:
    return float(values.double().mean())


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)

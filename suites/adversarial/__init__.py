"""Adversarial robustness: which defence, trained with which loss, keeps its accuracy when inputs are attacked?

A network is trained once by a defence and kept as an artifact, where the defences that learn from it or combine it
find it; while one of images trains, a checkpoint of every epoch lies beside, from which a run that was killed goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lossboard.errors import UsageError
from lossboard.protocol import Cell, Task, Unit
from lossboard.records import Record
from lossboard.run import Context
from lossboard.threat import Threat
from reference.methods import Method, catalogue, find

LOSSES = ("gce", "sqen", "poly1", "focal")  # adversarial training with these for cross-entropy, too
TAUS = {"adv_comp_sum_tau0": 0.0, "adv_comp_sum_tau05": 0.5, "adv_comp_sum_tau15": 1.5, "adv_comp_sum_tau2": 2.0}
SMOOTH = "adv_comp_sum"  # with tau = 1
BOXED = "linf-only"  # a tag: what trains with bounds on a box
SMALL = ("mlp",)  # kinds of networks that are trained many at once, on processors
SECONDS = {"mlp": 2.2e-6, "cnn": 50e-6, "preact_resnet18": 20e-3}  # a forward and backward pass of a row, on one core
THROUGH = 400  # steps of the attacks through a member of a combination, in all balls
OUTRIGHT_S = {"mlp": 0.25, "cnn": 0.4, "preact_resnet18": 10.0}  # of a record, whatever its rows


@dataclass(frozen=True)
class Judging:
    """How a trained network is attacked: what is more than the attacks' own defaults would take too long.

    ``autoattack`` test rows are attacked by AutoAttack too, for seed 0 alone (0: none).
    """

    steps: int = 20  # of PGD
    auto_steps: int = 100  # of Auto-PGD
    targets: int = 9  # of targeted Auto-PGD
    queries: int = 1000  # of the square attack
    checked: int = 100  # test rows that the checks for masked gradients take
    autoattack: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.auto_steps, self.targets, self.queries, self.checked) < 1 or self.autoattack < 0:
            raise UsageError("autoattack is not negative, all other numbers at least 1")


SECTIONS = {"threat": Threat, "judging": Judging}


def methods() -> Mapping[str, Method]:
    """Every defence, smooth adversarial comp-sum losses with five taus, adversarial training with other losses."""
    found = dict(catalogue("defence"))
    found |= {f"at-{loss}": find(found, f"at-{loss}") for loss in LOSSES}
    smooth = found[SMOOTH]
    found |= {id: _with_tau(smooth, id, tau) for id, tau in {SMOOTH: smooth.defaults["tau"], **TAUS}.items()}
    return {id: _whole(found, method) for id, method in sorted(found.items())}


def _with_tau(method: Method, id: str, tau: float) -> Method:
    """The same with this tau, which is not tuned."""
    search = {name: allowed for name, allowed in method.search.items() if name != "tau"}
    return dataclasses.replace(method, id=id, defaults={**method.defaults, "tau": tau}, search=search)


def _whole(found: Mapping[str, Method], method: Method) -> Method:
    """With the sources of the defences that it needs among its own."""
    parts = dict.fromkeys(part for one in (method, *map(found.__getitem__, method.needs)) for part in _modules(one))
    tags = (*method.tags, *([BOXED] if method.radius else []))
    return dataclasses.replace(method, module="+".join(parts), tags=tags)


def _modules(method: Method) -> list[str]:
    return method.module.split("+")


def group(cells: Sequence[Cell]) -> Iterable[Unit]:
    """The trials of one defence on one task, of small networks with all seeds; what others need counts as dearer,
    so that it tends to come first."""

    def together(cell: Cell) -> tuple[str, str, int]:
        return (cell.method, cell.task.id, 0 if cell.task.model.kind in SMALL else cell.seed)

    known = catalogue("defence")
    needed = {id for method in known.values() for id in method.needs}
    for (method, _, _), found in groupby(sorted(cells, key=together), key=together):
        own = tuple(found)
        base = known.get(method) or known.get(method.partition("-")[0]) or known[SMOOTH]
        cost = sum(_judged_s(cell.task, cell.seed) for cell in own)
        more = _combined_s(own[0].task, len(base.needs)) if base.combines else _trained_s(own[0].task, base)
        cost += len(own) * more
        yield Unit(own, cost=cost * (1.2 if method in needed else 1.0))


def _rows(task: Task) -> tuple[float, float]:
    """About how many rows a task trains on, and is judged by."""
    from lossboard.data import pins

    pin, split = pins()[task.dataset], task.split
    own = sum(count for name, count in pin.splits.items() if name != "test")
    test = pin.splits.get("test", 0) * (split.kind == "official") or own * split.test
    return min(own * (1 - split.val - split.test), split.train or own), min(test, split.held_out or test)


def _trained_s(task: Task, method: Method) -> float:
    """About how long a training takes a processor, on the machine this was written on."""
    threat: Threat = task.parts["threat"]
    passes = 2.0 + (threat.steps if method.inner else 0) + (threat.steps / 4)  # validation rows are attacked too
    return SECONDS[task.model.kind] * passes * _rows(task)[0] * task.recipe.epochs


def _combined_s(task: Task, members: int) -> float:
    """About how long the attacks through the members of a combination, and the means of some, take."""
    return SECONDS[task.model.kind] * _rows(task)[1] * THROUGH * (2**members - 1) * members


def _judged_s(task: Task, seed: int) -> float:
    """About how long the attacks on a network take."""
    how: Judging = task.parts["judging"]
    whole = how.autoattack * (seed == 0) * 4000
    passes = (
        _rows(task)[1] * (how.steps * 8 + how.auto_steps * (1 + 0.6 * how.targets) + how.queries / 4)
        + how.checked * 300
        + whole
    )
    return OUTRIGHT_S[task.model.kind] + passes * SECONDS[task.model.kind]


def run(unit: Unit, context: Context) -> Iterable[Record]:
    """Train what is not kept yet, and attack it. Images are trained on and attacked on a GPU where there is one."""
    from suites.adversarial import judging

    yield from judging.records(unit.cells, context)


REASONS = {  # a check for masked gradients that failed -> why its accuracy under attack is not to be relied on
    "masked_steps": "more steps of the attack raise accuracy",
    "masked_restarts": "more restarts of the attack raise accuracy",
    "masked_black_box": "an attack without gradients beats the one with them",
    "masked_large_eps": "accuracy does not vanish as eps grows",
    "masked_along_the_gradient": "the loss does not rise along its gradient",
    "masked_repeatable": "predictions are random",
    "masked_transfer": "an attack on the networks that it combines beats the one on itself",
}


def remark(metrics: Mapping[str, float]) -> str:
    """What boards say of a method with these metrics, means over seeds; '' where no check failed.

    >>> remark({"masked_steps": 0.0, "masked_black_box": 0.2})
    'unreliable: an attack without gradients beats the one with them'
    """
    reasons = [reason for name, reason in REASONS.items() if metrics.get(name, 0.0) > 0]
    return f"unreliable: {'; '.join(reasons)}" if reasons else ""

"""EvoPress (Sieberling, Kuznedelev, Kurtic & Alistarh, ICML 2025, arXiv:2410.14649)."""

import copy
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from reference.compressors.distilled import divergence
from reference.compressors.gptq import rounded
from reference.compressors.grid import Grid
from reference.compressors.layers import (
    in_turn,
    inputs_of,
    layers,
    matrices,
    moments,
    positions,
    weight,
    weights_replaced,
)
from reference.compressors.packing import Packed, quantized, sparse
from reference.compressors.pattern import Pattern
from reference.compressors.sparsegpt import solved
from reference.methods import compressor

OFFSPRING, GENERATIONS = 16, 20
STAGES = ((4, 1 / 8), (2, 1 / 4), (1, 1.0))  # survivors, and the share of the calibration rows that chooses them
FACTORS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # of the share of weights that is kept, from level to level
ATTEMPTS = 10  # changes to come within the budget again
SPENT = 0.98  # least share of the bits that offspring spend: with fewer they are not compared at an equal size

Genes = dict[str, int]  # layer -> level: a larger one costs more
Fitness = Callable[[Genes, Tensor], float]  # of levels on some rows: the smaller the better


@compressor()
def evopress(network: nn.Module, inputs: Tensor, *, grid: Grid, generator: Generator) -> dict[str, Packed]:
    """Bits are moved between layers as long as the outputs come nearer to the full network's, for a network and inputs
    (N, ...); returns packed weights.

    Every layer is quantised by GPTQ with up to two bits more or fewer, 1 to 8; evolution chooses a number for each. The
    mean over all weights is at most the grid's bits, and at least 98 % of them. It starts from equal bits: 16 offspring
    in 20 generations. Our reading: the last of a generation are compared on all rows, and layers with the chosen bits
    are quantised in turn, as gptq does, so that equal bits would give just what gptq gives.

    $$ \\min_b \\mathrm{KL}\\left( p \\,\\Vert\\, p_b \\right) \\quad \\text{with} \\quad
       \\sum_\\ell n_\\ell b_\\ell \\le n\\, b $$
    """
    bits = [b for b in range(grid.bits - 2, grid.bits + 3) if 1 <= b <= 8]
    forms = [Grid(b, grid.group, grid.symmetric) for b in bits]
    found: dict[str, list[Packed]] = {}
    for name, layer in layers(network).items():
        w, h = weight(layer).detach().flatten(1), moments(inputs_of(network, name, inputs))
        made = [(form, *rounded(w, h, form)) for form in forms]
        found[name] = [quantized(codes, own, form, weight(layer).shape) for form, own, codes, _ in made]
    costs = {name: [w.numel() * b for b in bits] for name, w in matrices(network).items()}
    budget = sum(w.numel() for w in matrices(network).values()) * grid.bits
    chosen = _evolved(network, inputs, found, costs, budget, SPENT, bits.index(grid.bits), generator)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        form = forms[chosen[name]]
        own, codes, _ = rounded(w, moments(x), form)
        return quantized(codes, own, form, weight(layers(network)[name]).shape)

    return in_turn(network, inputs, compress)


@compressor(id="evopress_sparse")
def evopress_sparse(network: nn.Module, inputs: Tensor, *, pattern: Pattern, generator: Generator) -> dict[str, Packed]:
    """Sparsity is moved between layers as long as the outputs come nearer to the full network's, for a network and
    inputs (N, ...); returns packed weights.

    Every layer is pruned by SparseGPT to seven shares and evolution chooses one for each. Our reading: what these leave
    of the weights to keep goes to all layers in proportion, which are then pruned in turn, as in evopress.

    $$ \\min_s \\mathrm{KL}\\left( p \\,\\Vert\\, p_s \\right) \\quad \\text{with} \\quad
       \\sum_\\ell n_\\ell (1 - s_\\ell) \\le n\\, (1 - s) $$
    """
    shares = [1 - min(1.0, (1 - pattern.sparsity) * factor) for factor in FACTORS]
    found: dict[str, list[Packed]] = {}
    for name, layer in layers(network).items():
        w, h = weight(layer).detach().flatten(1), moments(inputs_of(network, name, inputs))
        found[name] = [sparse(*solved(w, h, Pattern(share)), weight(layer).shape) for share in shares]
    sizes = {name: w.numel() for name, w in matrices(network).items()}
    costs = {name: [size - Pattern(share).cut(size) for share in shares] for name, size in sizes.items()}
    start = FACTORS.index(1.0)
    budget = sum(each[start] for each in costs.values())
    chosen = _evolved(network, inputs, found, costs, budget, 0.0, start, generator)
    kept = grown({name: costs[name][level] for name, level in chosen.items()}, sizes, budget)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        share = 1 - kept[name] / w.numel()
        return sparse(*solved(w, moments(x), Pattern(share)), weight(layers(network)[name]).shape)

    return in_turn(network, inputs, compress)


def grown(kept: Mapping[str, int], sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """The numbers of weights that layers keep, in proportion larger until the budget is met; none beyond its size.

    >>> grown({"a": 10, "b": 30}, {"a": 100, "b": 45}, 80)
    {'a': 35, 'b': 45}
    """
    found = dict(kept)
    while (left := budget - sum(found.values())) > 0 and (
        open_ := [name for name in found if found[name] < sizes[name]]
    ):
        factor = 1 + left / max(1, sum(found[name] for name in open_))
        wanted = {name: min(sizes[name], int(found[name] * factor)) for name in open_}
        if all(wanted[name] == found[name] for name in open_):  # less than a weight for each
            wanted = {name: found[name] + 1 for name in open_[:left]}
        found |= wanted
    return found


def _evolved(
    network: nn.Module,
    inputs: Tensor,
    found: Mapping[str, Sequence[Packed]],
    costs: Mapping[str, Sequence[int]],
    budget: int,
    least: float,
    start: int,
    generator: Generator,
) -> Genes:
    """The levels of all layers whose outputs are nearest to the full network's."""
    replay = Replay(network, inputs, {name: [packed.dense() for packed in own] for name, own in found.items()})
    with torch.no_grad():
        full = network(inputs)

    def beside(parent: Genes) -> Fitness:
        replay.keep(parent)
        return lambda genes, rows: float(divergence(replay(genes, rows).flatten(0, -2), full[rows].flatten(0, -2)))

    return search(dict.fromkeys(found, start), costs, budget, beside, len(inputs), generator, least=least)


class Replay:
    """A network's outputs with one of several matrices in each layer, beside a parent whose activations are kept.

    Layers that come before the first in which the two differ give what they gave the parent, and are not computed.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, dense: Mapping[str, Sequence[Tensor]]) -> None:
        self.model, self.inputs, self.dense = copy.deepcopy(network), inputs, dense
        self.order = list(positions(self.model, inputs[:1]))
        self.parent: Genes = {}
        self.kept: dict[str, Tensor] = {}
        self.known: set[str] = set()  # layers that are not computed
        for name, layer in layers(self.model).items():
            layer.forward = functools.partial(self._forward, name, layer.forward)

    @torch.no_grad()
    def keep(self, parent: Genes) -> None:
        """From now on others stand beside this one."""
        if parent == self.parent:
            return
        self.known, self.kept, seen = set(), {}, list[str]()

        def note(name: str, given: Tensor) -> None:
            seen.append(name)
            if len(given) == len(self.inputs) and name != self.order[-1]:
                self.kept[name] = given

        hooks = [
            layer.register_forward_hook(lambda _, inputs, outputs, name=name: note(name, outputs))
            for name, layer in layers(self.model).items()
        ]
        self._outputs(parent, self.inputs)
        for hook in hooks:
            hook.remove()
        self.kept = {name: given for name, given in self.kept.items() if seen.count(name) == 1}
        self.parent = dict(parent)

    @torch.no_grad()
    def __call__(self, genes: Genes, rows: Tensor) -> Tensor:
        """The outputs for some rows of the inputs."""
        same = itertools.takewhile(lambda name: genes[name] == self.parent[name], self.order)
        self.known, self.rows = {name for name in same if name in self.kept}, rows
        return self._outputs(genes, self.inputs[rows])

    def _outputs(self, genes: Genes, inputs: Tensor) -> Tensor:
        with weights_replaced(self.model, {name: self.dense[name][level] for name, level in genes.items()}):
            found = self.model(inputs)
        assert isinstance(found, Tensor)
        return found

    def _forward(self, name: str, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return self.kept[name][self.rows] if name in self.known else compute(x)


def search(
    parent: Genes,
    costs: Mapping[str, Sequence[int]],
    budget: int,
    beside: Callable[[Genes], Fitness],
    rows: int,
    generator: Generator,
    *,
    least: float = 0.0,
) -> Genes:
    """The fittest levels that cost at most the budget, and at least the share ``least`` of it.

    ``beside`` a parent, offspring are compared on some of ``rows`` rows, those left on more, the last on all with their
    parent.
    """
    for _ in range(GENERATIONS):
        fitness = beside(parent)
        offspring: list[Genes] = []
        for _ in range(OFFSPRING):
            child = mutated(parent, costs, budget, generator, least=least)
            if child is not None and child != parent and child not in offspring:
                offspring.append(child)
        for i, (survivors, share) in enumerate(STAGES):
            chosen = torch.randperm(rows, generator=generator)[: max(1, round(share * rows))].sort().values
            last = i == len(STAGES) - 1
            field = [parent, *offspring] if last else offspring
            offspring = sorted(field, key=lambda genes: fitness(genes, chosen))[:survivors]
        parent = offspring[0]
    return parent


def mutated(
    parent: Genes, costs: Mapping[str, Sequence[int]], budget: int, generator: Generator, *, least: float = 0.0
) -> Genes | None:
    """A few layers one level up, then others down until the budget is met again; None where that takes too long.

    Layers differ in size: what is left of the budget then goes to layers that another level fits, in random order. None
    also where less than the share ``least`` of the budget is spent in the end.
    """

    def draw(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    def spent(genes: Genes) -> int:
        return sum(costs[name][level] for name, level in genes.items())

    def raised(genes: Genes, name: str) -> Genes:
        return {**genes, name: min(genes[name] + 1, len(costs[name]) - 1)}

    child, names = dict(parent), list(parent)
    for _ in range(1 + min(draw(3), draw(3))):
        child = raised(child, names[draw(len(names))])
    for _ in range(ATTEMPTS):
        if spent(child) <= budget:
            while fitting := [up for name in names if spent(up := raised(child, name)) <= budget and up != child]:
                child = fitting[draw(len(fitting))]
            return child if spent(child) >= least * budget else None
        name = names[draw(len(names))]
        child[name] = max(child[name] - 1, 0)
    return None

"""EvoPress (Sieberling, Kuznedelev, Kurtic & Alistarh, ICML 2025, arXiv:2410.14649)."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from reference.compressors.distilled import divergence
from reference.compressors.gptq import rounded
from reference.compressors.grid import Grid
from reference.compressors.layers import in_turn, inputs_of, layers, matrices, moments, weight, weights_replaced
from reference.compressors.packing import Packed, quantized, sparse
from reference.compressors.pattern import Pattern
from reference.compressors.sparsegpt import solved
from reference.methods import compressor

OFFSPRING, GENERATIONS = 16, 20
STAGES = ((4, 1 / 32), (2, 1 / 8), (1, 1 / 2))  # survivors, and the share of the calibration rows that chooses them
FACTORS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # of the share of weights that is kept, from level to level
ATTEMPTS = 10  # changes to come within the budget again

Genes = dict[str, int]  # layer -> level: a larger one costs more


@compressor()
def evopress(network: nn.Module, inputs: Tensor, *, grid: Grid, generator: Generator) -> dict[str, Packed]:
    """Bits are moved between layers as long as the outputs come nearer to the full network's, for a network and inputs
    (N, ...); returns packed weights.

    Every layer is quantised by GPTQ with up to two bits more or fewer, 1 to 8; evolution chooses a number for each. The
    mean over all weights is at most the grid's bits. It starts from equal bits: 16 offspring in 20 generations. Our
    reading: layers with the chosen bits are then quantised in turn, as gptq does, so that equal bits would give just
    what gptq gives.

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
    chosen = _evolved(network, inputs, found, costs, budget, bits.index(grid.bits), generator)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        form = forms[chosen[name]]
        own, codes, _ = rounded(w, moments(x), form)
        return quantized(codes, own, form, weight(layers(network)[name]).shape)

    return in_turn(network, inputs, compress)


@compressor(id="evopress_sparse")
def evopress_sparse(network: nn.Module, inputs: Tensor, *, pattern: Pattern, generator: Generator) -> dict[str, Packed]:
    """Sparsity is moved between layers as long as the outputs come nearer to the full network's, for a network and
    inputs (N, ...); returns packed weights.

    Every layer is pruned by SparseGPT to seven shares, evolution chooses one for each, and layers are then pruned in
    turn, as in evopress.

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
    chosen = _evolved(network, inputs, found, costs, budget, start, generator)

    def compress(name: str, w: Tensor, x: Tensor) -> Packed:
        return sparse(*solved(w, moments(x), Pattern(shares[chosen[name]])), weight(layers(network)[name]).shape)

    return in_turn(network, inputs, compress)


def _evolved(
    network: nn.Module,
    inputs: Tensor,
    found: Mapping[str, Sequence[Packed]],
    costs: Mapping[str, Sequence[int]],
    budget: int,
    start: int,
    generator: Generator,
) -> Genes:
    """The levels of all layers whose outputs are nearest to the full network's."""
    model = copy.deepcopy(network)
    dense = {name: [packed.dense() for packed in own] for name, own in found.items()}
    with torch.no_grad():
        full = model(inputs)

    @torch.no_grad()
    def fitness(genes: Genes, rows: Tensor) -> float:
        with weights_replaced(model, {name: dense[name][level] for name, level in genes.items()}):
            outputs = model(inputs[rows])
        return float(divergence(outputs.flatten(0, -2), full[rows].flatten(0, -2)))

    return search(dict.fromkeys(found, start), costs, budget, fitness, len(inputs), generator)


def search(
    parent: Genes,
    costs: Mapping[str, Sequence[int]],
    budget: int,
    fitness: Callable[[Genes, Tensor], float],
    rows: int,
    generator: Generator,
) -> Genes:
    """The fittest levels within the budget: offspring are compared on few rows, those left on more, the last with their
    parent. ``fitness`` of some of ``rows`` rows is the smaller the better."""
    for _ in range(GENERATIONS):
        offspring: list[Genes] = []
        for _ in range(OFFSPRING):
            child = mutated(parent, costs, budget, generator)
            if child is not None and child != parent and child not in offspring:
                offspring.append(child)
        for i, (survivors, share) in enumerate(STAGES):
            chosen = torch.randperm(rows, generator=generator)[: max(1, round(share * rows))]
            last = i == len(STAGES) - 1
            field = [parent, *offspring] if last else offspring
            offspring = sorted(field, key=lambda genes: fitness(genes, chosen))[:survivors]
        parent = offspring[0]
    return parent


def mutated(parent: Genes, costs: Mapping[str, Sequence[int]], budget: int, generator: Generator) -> Genes | None:
    """A few layers one level up, then others down until the budget is met again; None where that takes too long.

    Layers differ in size: what is left of the budget then goes to layers that another level fits, in random order.
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
            return child
        name = names[draw(len(names))]
        child[name] = max(child[name] - 1, 0)
    return None

"""What compressors compute, against closed forms, exhaustive search and each other."""

import dataclasses
import itertools
import math
from functools import partial

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.compressors import (
    adaround,
    awq,
    baq,
    distilled,
    eqnet,
    evopress,
    gptq,
    packing,
    rdprune,
    sparsegpt,
    wanda,
)
from reference.compressors.fine_tuned import fine_tuned, sam_pruned
from reference.compressors.grid import Grid, Scales, codes, least_error, nearest, scales
from reference.compressors.jackpot import jackpot
from reference.compressors.layers import inputs_of, layers, matrices, moments, unfolded, weights_replaced
from reference.compressors.lsq import learned, mean_magnitude
from reference.compressors.magnitude import FLOOR, global_magnitude, lamp_scores
from reference.compressors.pattern import Pattern, group_mask, in_groups, kept_of_all, largest, with_floor
from reference.compressors.qat import qat_half, straight_through
from reference.compressors.rtn import rtn
from reference.compressors.solver import by_columns, factor
from reference.compressors.training import Training, descend, parameters
from reference.losses.ce import ce
from reference.methods import MethodError, compressor
from reference.models.cnn import CNN
from reference.models.mlp import MLP
from reference.models.transformer import Transformer

GRIDS = [Grid(2), Grid(3, 8), Grid(4, 5), Grid(4, -1), Grid(4, 0, True), Grid(3, 8, True), Grid(8)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(rows, columns, seed=1):
    """Inputs (n, d) whose columns differ in size and depend on each other."""
    return draw(rows, columns, seed=seed) @ (draw(columns, columns, seed=seed + 1) + 0.3) / columns**0.5


def rounded(w, grid):
    step, zero = scales(w, grid).over(w.shape, grid.group)
    return nearest(w, step, zero, grid.levels)


def objective(w, other, h):
    return float(((w - other) @ h * (w - other)).sum())


def isotropic(columns):
    """Inputs whose X^T X is a multiple of the identity, exactly."""
    return 2 * torch.eye(columns)


# -- elastic quantisation ----------------------------------------------------------------------------------------------


def test_unevenness_is_kurtosis_and_skewness_as_scipy_has_them():
    layers = {"a": draw(30, 40).exp(), "b": draw(50, seed=1)}
    weights = {f"{name}.weight": w.double() for name, w in layers.items()}
    wanted = [
        (scipy.stats.kurtosis(w.flatten().numpy(), fisher=False) - 1.8) ** 2
        + scipy.stats.skew(w.flatten().numpy()) ** 2
        for w in weights.values()
    ]
    assert eqnet.unevenness(weights, ["a", "b"]).item() == pytest.approx(sum(wanted) / 2)
    assert eqnet.unevenness(weights, []) == 0
    w = draw(12, seed=2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: eqnet.unevenness({"a.weight": w}, ["a"]), [w])


def test_what_a_step_of_eqnet_makes_small_by_hand():
    """At 8 bits all three networks are one: no divergence, and (1 + 2 (1 - alpha)) times the loss."""
    network, inputs, training = MLP(6, [9], 3, torch.Generator().manual_seed(0)), draw(40, 6), None
    target = torch.arange(40) % 3
    training = Training(inputs, target, ce, steps=3, batch=40, lr=1e-2, generator=torch.Generator().manual_seed(1))
    seen = []

    def kept(network, training, weights, *, objective, constrain):
        used = constrain(weights, 0.0)
        outputs = torch.func.functional_call(network, used, (inputs,))
        seen.append((objective(outputs, inputs, target, 0.0), training.mean_loss(outputs, inputs, target, 0.0)))
        assert training.steps == 1, "a third of the steps: each has three gradients"
        return weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eqnet, "descend", kept)
        given = {"grid": Grid(8), "training": training, "generator": torch.Generator()}
        found = eqnet.eqnet(network, inputs, **given, alpha=0.25, shape=0.0)
        eqnet.eqnet(network, inputs, **given, alpha=0.25, shape=0.5)
    (total, loss), (pushed, _) = seen
    assert total.item() == pytest.approx((1 + 2 * 0.75) * loss.item(), rel=1e-5)
    uneven = eqnet.unevenness(
        {"head.weight": dict(network.named_parameters())[list(layers(network))[1] + ".weight"]}, ["head"]
    )
    assert (pushed - total).item() == pytest.approx(0.5 * uneven.item(), rel=1e-4), "the first layer is not pushed"
    untrained = rtn(network, inputs, grid=Grid(8))
    assert all(torch.equal(found[name].codes, untrained[name].codes) for name in untrained)


# -- grids and rounding ------------------------------------------------------------------------------------------------


@every_grid
def test_nearest_is_the_nearest_level_by_search(grid):
    w = draw(6, 19)
    found = scales(w, grid)
    step, zero = found.over(w.shape, grid.group)
    levels = step[..., None] * (torch.arange(grid.levels) - zero[..., None])
    apart = (levels.expand(*w.shape, -1) - w[..., None]).abs().min(-1).values
    torch.testing.assert_close((nearest(w, step, zero, grid.levels) - w).abs(), apart, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("grid", [g for g in GRIDS if not g.symmetric], ids=str)
def test_rounding_twice_is_rounding_once(grid):
    once = rounded(draw(6, 19), grid)
    torch.testing.assert_close(rounded(once, grid), once)


def test_a_whole_row_of_zeros_has_levels_from_minus_one_to_one():
    found = scales(torch.zeros(1, 4), Grid(2))
    assert found.step.item() == pytest.approx(2 / 3, rel=1e-3)
    assert (rounded(torch.zeros(1, 4), Grid(2)) == 0).all()


@every_grid
def test_the_searched_range_has_no_larger_error(grid):
    w = draw(6, 19)
    step, zero = least_error(w, grid).over(w.shape, grid.group)
    searched = (nearest(w, step, zero, grid.levels) - w).abs().pow(2.4).sum()
    assert searched <= (rounded(w, grid) - w).abs().pow(2.4).sum()


def test_halves_go_to_the_even_level():
    assert codes(torch.tensor([0.5, 1.5, 2.5]), torch.ones(1), torch.zeros(1), 8).tolist() == [0, 2, 2]


# -- packed bytes ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), min_size=1, max_size=70))
def test_bits_are_packed_and_unpacked(bits, values):
    data = torch.tensor([value % (1 << bits) for value in values], dtype=torch.uint8)
    packed = packing.bits_packed(data, bits)
    assert len(packed) == -(-len(values) * bits // 8)
    assert torch.equal(packing.bits_unpacked(packed, bits, len(values)), data)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 256), st.lists(st.integers(0, 255), min_size=1, max_size=1500))
def test_digits_of_any_base_are_packed_and_unpacked(base, values):
    data = torch.tensor([value % base for value in values], dtype=torch.uint8)
    packed = packing.digits_packed(data, base)
    assert len(packed) == packing.digits_bytes(len(values), base)
    assert torch.equal(packing.digits_unpacked(packed, base, len(values)), data)


def test_digits_take_little_more_than_their_logarithm():
    for base in range(2, 257):
        assert 8 * packing.digits_bytes(10_000, base) <= 1.01 * 10_000 * math.log2(base) + 8


@every_grid
@pytest.mark.parametrize("columns", [False, True])
def test_codes_scales_and_factors_come_back(grid, columns):
    w = draw(6, 19)
    found = scales(w, grid)
    factors = awq.factors(draw(19, seed=3).abs(), 0.5) if columns else None
    step, zero = found.over(w.shape, grid.group)
    packed = packing.quantized(codes(w, step, zero, grid.levels), found, grid, torch.Size((6, 19)), factors)
    file = packing.encode({"w": packed, "b": draw(6)})
    again = packing.decode(file)
    assert torch.equal(again["w"].dense(), packed.dense())
    assert torch.equal(again["b"], draw(6))
    assert packing.encode(again) == file


@pytest.mark.parametrize("count", [0, 1, 17, 39, 40])
def test_the_largest_are_the_first_of_a_stable_sort(count):
    scores = torch.randint(0, 5, (5, 8), generator=torch.Generator().manual_seed(0)).float()
    scores[2, 3], scores[1, 1], scores[4, 4] = math.nan, math.inf, -math.inf
    expected = torch.zeros(40, dtype=torch.bool)
    values = scores.flatten().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    expected[values.sort(descending=True, stable=True).indices[:count]] = True
    assert torch.equal(largest(scores, count), expected.view(5, 8))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 8), (5, 16), (1, 1)])
def test_groups_keep_the_first_of_equal_scores(n, m):
    scores = torch.randint(0, 3, (6, 2 * m + 1), generator=torch.Generator().manual_seed(1)).float()
    scores[2, 0], scores[3, 1], scores[4, 0] = math.nan, math.inf, -math.inf
    kept = in_groups(scores, n, m)
    apart = torch.cat([group_mask(part, n) for part in scores.T.split(m)]).T
    assert torch.equal(apart, kept)
    for row, mask in zip(scores, kept, strict=True):
        for start in range(0, len(row), m):
            part = row[start : start + m]
            order = part.sort(descending=True, stable=True).indices[:n]
            assert mask[start : start + m].nonzero()[:, 0].tolist() == sorted(order.tolist())


def test_what_is_measured_is_what_is_written():
    """4 bits a weight, 16 a scale and 8 a zero-point, by hand."""
    w = draw(10, 64)
    found = scales(w, Grid(4, 32))
    step, zero = found.over(w.shape, 32)
    packed = packing.quantized(codes(w, step, zero, 16), found, Grid(4, 32), w.shape)
    assert packing.weight_bits({"w": packed}) == pytest.approx(4 + (16 + 8) / 32)
    mask = largest(w.abs(), 64)
    assert packing.weight_bits({"w": packing.sparse(w, mask, w.shape)}) == pytest.approx(1 + 32 * 0.1)


def test_entropy_of_codes_that_are_alike_is_nothing():
    assert packing.entropy(torch.full((50,), 3, dtype=torch.uint8)) == 0
    assert packing.entropy(torch.arange(8, dtype=torch.uint8).repeat(5)) == pytest.approx(3 * 40)


def test_a_file_that_is_cut_short_or_too_long_is_refused():
    file = packing.encode({"b": draw(6)})
    with pytest.raises(ValueError, match="cut short"):
        packing.decode(file[:-1])
    with pytest.raises(ValueError, match="left over"):
        packing.decode(file + b"0")
    with pytest.raises(ValueError, match="of a kind"):
        packing.decode(file.replace(b"float32", b"float65"))


# -- layers ------------------------------------------------------------------------------------------------------------


def test_a_convolution_is_a_product_with_its_unfolded_inputs():
    layer = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1)
    x = draw(4, 2, 8, 8)
    flat = unfolded(layer, x) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(flat.view(4, 4, 4, 3).permute(0, 3, 1, 2), layer(x), rtol=1e-4, atol=1e-5)


def test_the_factor_is_upper_and_leaves_inputs_that_are_always_zero_alone():
    h = moments(correlated(50, 12)).double()
    h[4] = h[:, 4] = 0
    r, dead = factor(h, damping=0.0)
    expected = h.clone()
    expected[4, 4] = 1
    torch.testing.assert_close(r @ r.mT, expected)
    assert torch.equal(r.triu(), r)
    assert dead.nonzero().tolist() == [[4]]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (2, 6), (1, 3), (3, 130)])
def test_sparsegpt_keeps_n_of_every_m_whatever_the_blocks(n, m):
    w, h = draw(5, 270), moments(correlated(600, 270))
    pruned, mask = sparsegpt.solved(w, h, Pattern(0, n, m))
    for start in range(0, 270, m):
        part = mask[:, start : start + m]
        assert (part.sum(1) == min(n, part.shape[1])).all()
    assert (pruned[~mask] == 0).all()


def test_shares_of_large_counts_are_whole_numbers():
    assert [Pattern(s).cut(n) for s, n in ((0.29, 100), (0.29, 10**8), (0.58, 5 * 10**7))] == [
        29,
        29 * 10**6,
        29 * 10**6,
    ]


def in_order(w, h, decide):
    """The update as GPTQ's paper has it, column by column, with the inverse itself; what is decided, and losses."""
    h = h + 0.01 * h.diagonal().mean() * torch.eye(len(h))
    left, u, losses = w.clone(), torch.linalg.cholesky(torch.linalg.inv(h), upper=True), []
    for j in range(len(h)):
        found = decide(j, left[:, j].clone())
        error = (left[:, j] - found) / u[j, j]
        left -= error[:, None] * u[j]
        left[:, j] = found
        losses.append(error.square().sum() / 2)
    return left, torch.stack(losses)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 40, 128, 150])
def test_columns_are_decided_as_the_paper_has_it(width):
    w, h = draw(5, width).double(), moments(correlated(3 * width, width)).double()

    def decide(_, column):
        return torch.round(2 * column) / 2

    for found, truth in zip(by_columns(w, factor(h)[0], decide), in_order(w, h, decide), strict=True):
        torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("block", [18, 24, 64])
@pytest.mark.parametrize("together", [1, 4, 16, 32, 48, 5, 7, 100, 200])
def test_columns_looked_at_together_are_current(together, block):
    """Where a group begins, all its columns in the block have the changes of every column before it."""
    w, h = draw(3, 90).double(), moments(correlated(300, 90)).double()
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(90)
    u = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    left, kept, begun = w.clone(), [], {}

    def begin(first, columns, _):
        begun.update(first=first, columns=columns)

    def decide(j, column):
        nonlocal left
        if j % together == 0:
            start = j - begun["first"]
            group = begun["columns"][start : start + together]
            kept.append((group - left[:, j : j + len(group)].T).abs().max())
        found = torch.round(column)
        left = left - ((left[:, j] - found) / u[j, j])[:, None] * u[j]
        return found

    by_columns(w, factor(h)[0], decide, begin, together=together, block=block)
    assert len(kept) == -(-90 // together)
    assert max(kept) < 1e-6


@pytest.mark.parametrize("block", [1, 5, 7, 128])
def test_blocks_of_columns_change_nothing(block):
    w, h = draw(9, 23).double(), moments(correlated(80, 23)).double()
    r, _ = factor(h)

    def decide(_, column):
        return torch.round(2 * column) / 2

    whole, lost = by_columns(w, r, decide)
    parts, lost_in_parts = by_columns(w, r, decide, block=block)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(lost_in_parts, lost)


def test_what_columns_lose_is_half_of_what_the_outputs_do():
    """With the errors fed back, the sum of the columns' losses is the objective: here with damping in H too."""
    w, h = draw(9, 23).double(), moments(correlated(80, 23)).double()
    r, _ = factor(h)
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(23)
    decided, lost = by_columns(w, r, lambda _, column: torch.round(column))
    assert 2 * float(lost.sum()) == pytest.approx(objective(w, decided, damped), rel=1e-9)


# -- quantisers --------------------------------------------------------------------------------------------------------


@every_grid
@pytest.mark.parametrize("how", ["current", "block", "order"])
def test_gptq_of_isotropic_inputs_rounds_to_nearest(grid, how):
    w = draw(6, 19)
    found, chosen, _ = gptq.rounded(w, isotropic(19), grid, how)
    step, zero = found.over(w.shape, grid.group)
    assert torch.equal(step * (chosen - zero), rounded(w, grid))


@pytest.mark.parametrize("grid", [Grid(2), Grid(3), Grid(4), Grid(3, 32), Grid(4, -1)], ids=str)
@pytest.mark.parametrize("how", ["current", "block", "order"])
def test_gptq_changes_outputs_less_than_rounding_to_nearest(grid, how):
    w, h = draw(24, 64), moments(correlated(300, 64))
    found, chosen, _ = gptq.rounded(w, h, grid, how)
    step, zero = found.over(w.shape, grid.group)
    assert objective(w, step * (chosen - zero), h) < objective(w, rounded(w, grid), h)


def test_the_forms_of_gptq_differ_in_the_scales_of_groups_alone():
    w, h = draw(12, 300), moments(correlated(600, 300))
    current, block = (gptq.rounded(w, h, Grid(3, 32), how) for how in ("current", "block"))
    assert not torch.equal(current[0].step, block[0].step)
    assert torch.equal(current[0].step[:, 0], block[0].step[:, 0])
    current, block = (gptq.rounded(w, h, Grid(3), how) for how in ("current", "block"))
    assert torch.equal(current[1], block[1])


def test_weights_of_inputs_that_are_always_zero_become_zero():
    h = moments(correlated(300, 16))
    h[3], h[:, 3] = 0, 0
    found, chosen, _ = gptq.rounded(draw(5, 16), h, Grid(4))
    assert (found.step[:, 0] * (chosen[:, 3] - found.zero[:, 0]) == 0).all()


def test_awq_without_scaling_rounds_to_nearest():
    w = draw(6, 19)
    ones = awq.factors(draw(19).abs(), 0.0)
    assert (ones == 1).all()
    assert torch.equal(awq.scaled(w, ones, Grid(3)), rounded(w, Grid(3)))


@every_grid
def test_awq_clips_what_changes_outputs_less(grid):
    """Against the same error made of outputs, group by group."""
    w, x = draw(6, 19), correlated(200, 19)
    h = moments(x) / len(x)
    best = awq.least_output_error(w, h, grid)
    error = nearest(w, *best.over(w.shape, grid.group), grid.levels) - w
    plain = rounded(w, grid) - w
    size = grid.group if grid.group > 0 else 19
    shares = [
        [(x[:, a : a + size] @ change[:, a : a + size].T).square().mean(0) for a in range(0, 19, size)]
        for change in (error, plain)
    ]
    ours, theirs = (torch.stack(each) for each in shares)
    total = (ours.sum(), theirs.sum()) if grid.group < 0 else (ours, theirs)
    assert (total[0] <= total[1] * (1 + 1e-5) + 1e-7).all()


def test_what_adaround_relaxes_ends_at_zero_or_one():
    w, x = draw(32, 64), correlated(128, 64)
    grid = Grid(3)
    h = adaround.relaxed(w, x, x, scales(w, grid), grid, 30.0)
    assert (torch.minimum(h, 1 - h) < 1e-3).float().mean() > 0.99


def test_adaround_rounds_down_or_up_and_better_than_to_nearest():
    w, x = draw(8, 16), correlated(200, 16)
    grid = Grid(3)
    own = scales(w, grid)
    step, zero = own.over(w.shape, grid.group)
    chosen = adaround.chosen(w, adaround.relaxed(w, x, x, own, grid, 30.0) >= 0.5, own, grid)
    down = (torch.floor(w / step) + zero).clamp(0, 7)
    assert ((chosen == down) | (chosen == (down + 1).clamp(max=7))).all()
    assert objective(w, step * (chosen - zero), moments(x)) < objective(w, rounded(w, grid), moments(x))


def test_adaround_of_one_row_is_near_the_best_of_all_roundings():
    """Against all 2^10 roundings."""
    w, x = draw(1, 10, seed=5), correlated(100, 10)
    grid = Grid(3)
    own = scales(w, grid)
    step, zero = own.over(w.shape, grid.group)
    every = torch.tensor(list(itertools.product((0, 1), repeat=10)))
    levels = (torch.floor(w / step) + zero + every).clamp(0, 7)
    best = min(objective(w, row[None], moments(x)) for row in step * (levels - zero))
    chosen = adaround.chosen(w, adaround.relaxed(w, x, x, own, grid, 30.0) >= 0.5, own, grid)
    assert objective(w, step * (chosen - zero), moments(x)) <= 1.5 * best


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_baq_spends_its_bits_and_no_more(bits):
    losses = draw(300).exp() ** 2
    levels = baq.allocated(losses, 4000, bits)
    mean = float(levels.double().log2().mean())
    assert bits - 0.05 < mean <= bits
    assert levels.min() >= 1
    assert levels[losses.argmax()] == levels.max()
    assert baq.allocated(torch.ones(50), 4000, bits).unique().tolist() == [2**bits - 1], "equal losses, equal levels"


@pytest.mark.parametrize("grid", [Grid(2), Grid(3), Grid(4, -1), Grid(3, 8), Grid(3, 0, True)], ids=str)
def test_baq_writes_no_more_than_gptq(grid):
    model, x = network(), correlated(60, 12)
    ours, theirs = (
        sum(len(part) for packed in method(model, x, grid=grid).values() for part in packed.parts())
        for method in (baq.baq, gptq.gptq)
    )
    assert ours <= theirs
    assert ours > 0.9 * theirs - 30


def test_baq_follows_its_formula_where_nothing_is_rounded_off():
    losses = torch.tensor([1.0, 2.0**1.95, 2.0 ** (2 * 1.95)])
    found = baq.allocated(losses, 100_000, 4)
    every = [torch.round(2 ** (torch.tensor([3.0, 4.0, 5.0]) - less)).long() for less in torch.linspace(0, 0.1, 200)]
    assert any(torch.equal(found, levels) for levels in every), "8, 16 and 32 less what their numbers cost"


def test_baq_stays_with_equal_bits_where_others_do_not_pay():
    losses = torch.tensor([1.0, 1.0, 100.0])
    assert baq.pays(losses, torch.tensor([4, 4, 16]), 3)
    assert not baq.pays(losses, torch.tensor([8, 8, 8]), 3)
    assert not baq.pays(torch.ones(3), torch.tensor([4, 8, 16]), 3)
    model, x = network(), correlated(60, 12)
    found, plain = (method(model, x, grid=Grid(8)) for method in (baq.baq, gptq.gptq))
    last = "layers.2.weight"
    assert torch.equal(found["layers.0.weight"].dense(), plain["layers.0.weight"].dense())
    assert isinstance(found[last], packing.Quantized), "three rows"


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_sparsegpt_and_wanda_coincide_on_isotropic_inputs():
    w, x = draw(8, 24), isotropic(24)
    for pattern in (Pattern(0, 2, 4), Pattern(0, 1, 4)):
        pruned, mask = sparsegpt.solved(w, moments(x), pattern)
        assert torch.equal(mask, wanda.mask(w.abs() * x.norm(dim=0), pattern))
        assert torch.equal(pruned, w * mask)
    for row in w:  # Wanda compares within rows, SparseGPT within blocks: of one row these are the same
        pruned, mask = sparsegpt.solved(row[None], moments(x), Pattern(0.5))
        assert torch.equal(mask, wanda.mask(row[None].abs() * x.norm(dim=0), Pattern(0.5)))
        assert torch.equal(pruned, row * mask)


def test_sparsegpt_cuts_nothing_where_nothing_is_asked_for():
    w = draw(8, 300)
    pruned, mask = sparsegpt.solved(w, moments(correlated(400, 300)), Pattern(0.0))
    assert mask.all()
    assert torch.equal(pruned, w)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_sparsegpt_cuts_exactly_what_is_asked_for_and_changes_outputs_less(share):
    w, h = draw(8, 300), moments(correlated(400, 300))
    pruned, mask = sparsegpt.solved(w, h, Pattern(share))
    assert int((~mask).sum()) == int(share * 2400 + 1e-9)
    assert objective(w, pruned, h) < objective(w, w * largest(w.abs(), int(mask.sum())), h)


def network(seed=0):
    return MLP(12, [16, 8], 3, torch.Generator().manual_seed(seed)).eval()


def test_global_magnitude_cuts_exactly_the_smallest():
    model = network()
    found = global_magnitude(model, draw(5, 12), pattern=Pattern(0.6))
    every = torch.cat([w.abs().flatten() for w in matrices(model).values()])
    masks = torch.cat([packed.mask.flatten() for packed in found.values()])
    assert int((~masks).sum()) == int(0.6 * len(every))
    assert every[masks].min() >= every[~masks].max()


def test_the_floor_keeps_a_layer_from_vanishing():
    model = network()
    with torch.no_grad():
        model.layers[1].weight.mul_(1e-3)
    total = sum(w.numel() for w in matrices(model).values())
    kept = [int(p.mask.sum()) for p in global_magnitude(model, draw(5, 12), pattern=Pattern(0.9)).values()]
    assert sum(kept) == total - int(0.9 * total)
    assert int(FLOOR * total) <= kept[1] <= 1
    sizes = {"a": 1000, "b": 10, "c": 500}
    assert with_floor({"a": 90, "b": 0, "c": 10}, sizes, 20) == {"a": 70, "b": 10, "c": 20}
    assert sum(with_floor({"a": 5, "b": 0, "c": 0}, sizes, 20).values()) == 5


def test_scores_that_adapt_to_layers_by_their_definition():
    w = draw(3, 4)
    wanted = [[float(v**2 / (w[w.abs() >= v.abs()] ** 2).sum()) for v in row] for row in w]
    torch.testing.assert_close(lamp_scores(w).float(), torch.tensor(wanted))
    assert sum(kept_of_all({"a": lamp_scores(w), "b": lamp_scores(5 * w)}, Pattern(0.5)).values()) == 12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_amounts_by_dynamic_programming_are_the_best_of_all(seed, layers):
    g = torch.Generator().manual_seed(seed)
    kept = [sorted(torch.randint(12, (4,), generator=g).tolist()) for _ in range(layers)]
    cost = [torch.rand(4, generator=g).tolist() for _ in range(layers)]
    budget = sum(each[0] for each in kept) + int(torch.randint(12, (1,), generator=g))
    found = rdprune.allocated(kept, cost, budget)
    every = itertools.product(*(zip(n, c, strict=True) for n, c in zip(kept, cost, strict=True)))
    best = min(sum(c for _, c in choice) for choice in every if sum(n for n, _ in choice) <= budget)
    assert sum(found) <= budget
    least = [
        min(c for n, c in zip(ns, cs, strict=True) if n == own) for ns, cs, own in zip(kept, cost, found, strict=True)
    ]
    assert sum(least) == pytest.approx(best)


def test_a_budget_that_nothing_meets_is_refused():
    with pytest.raises(ValueError, match="at most 3"):
        rdprune.allocated([[2, 4], [2, 4]], [[1.0, 0.0]] * 2, 3)


def test_distortions_are_those_of_the_outputs():
    model, x = network(), draw(20, 12)
    found = rdprune.distortions(model, x, "layers.2", [0, 24])
    gone = (model(x) - model.layers[2].bias).square().sum(1).mean().detach()
    assert found[0] == pytest.approx(float(gone), rel=1e-5)
    assert found[1] == 0


def training(model, steps=30):
    x = draw(64, 12)
    return Training(x, (x[:, 0] > 0).long(), ce, steps, 16, 1e-2, torch.Generator().manual_seed(0))


def test_jackpot_keeps_weights_to_the_bit_and_changes_the_mask():
    model = network()
    found = jackpot(model, draw(5, 12), pattern=Pattern(0.7), training=training(model))
    before = global_magnitude(model, draw(5, 12), pattern=Pattern(0.7))
    for name, w in matrices(model).items():
        packed = found[f"{name}.weight"]
        assert torch.equal(packed.values, w[packed.mask])
        assert int(packed.mask.sum()) == int(before[f"{name}.weight"].mask.sum())
    assert any(not torch.equal(found[key].mask, before[key].mask) for key in found)


def test_fine_tuning_lowers_the_loss_under_a_fixed_mask():
    model = network()
    how = training(model)
    found = fine_tuned(model, draw(5, 12), pattern=Pattern(0.7), training=how)
    before = global_magnitude(model, draw(5, 12), pattern=Pattern(0.7))
    assert all(torch.equal(found[key].mask, before[key].mask) for key in before)
    values = []
    for parameters_ in (before, found):
        small = network()
        small.load_state_dict({**model.state_dict(), **packing.unpacked(parameters_)})
        values.append(float(ce(small(how.inputs), how.target).mean().detach()))
    assert values[1] < values[0]


# -- training, distillation, search ------------------------------------------------------------------------------------


def test_gradients_pass_the_rounding_within_the_range():
    w = torch.tensor([[-1.0, 0.2, 0.4, 2.0]], requires_grad=True)
    found = straight_through(w, Grid(2))
    assert torch.equal(found, rounded(w.detach(), Grid(2)))
    (found * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert w.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_the_gradient_of_a_learned_step():
    """round(v) - v inside, -n or p outside."""
    w, step = torch.tensor([[0.3, -5.0, 5.0, 1.4]]), torch.ones(1, 1, requires_grad=True)
    learned(w, step, Grid(3, 0, True)).sum().backward()
    wanted = (0 - 0.3) + (-4) + 3 + (1 - 1.4)
    assert step.grad.item() == pytest.approx(wanted, rel=1e-5)
    (again,) = torch.autograd.grad(learned(w.requires_grad_(), step, Grid(3, 0, True)).sum(), w)
    assert again.tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_the_mean_magnitude_of_what_shares_a_step():
    """A row's last group may be short: what fills it up does not count."""
    w = draw(3, 19)
    by_hand = [[float(row[i : i + 8].abs().mean()) for i in (0, 8, 16)] for row in w]
    torch.testing.assert_close(mean_magnitude(w, 8), torch.tensor(by_hand))
    torch.testing.assert_close(mean_magnitude(w, -1), w.abs().mean().view(1, 1))
    torch.testing.assert_close(mean_magnitude(w, 0), w.abs().mean(1, keepdim=True))


def test_a_part_of_the_training_is_in_full_precision_at_a_constant_rate():
    """By hand: one AdamW, whose weights are rounded from the middle on, while the rate falls to nothing."""
    model, how = network(), training(network(), steps=8)
    found = qat_half(model, draw(5, 12), grid=Grid(3), training=how.again())
    other = network()
    optimizer = torch.optim.AdamW(other.parameters(), lr=how.lr, weight_decay=0.0)
    for i, chosen in enumerate(how.again().batches()):
        used = dict(other.named_parameters())
        if i >= 4:
            used = {name: straight_through(p, Grid(3)) if name.endswith("weight") else p for name, p in used.items()}
        optimizer.param_groups[0]["lr"] = how.lr * (1.0 if i < 4 else 0.5 * (1 + math.cos(math.pi * (i - 4) / 4)))
        optimizer.zero_grad()
        outputs = torch.func.functional_call(other, used, (how.inputs[chosen],))
        torch.nn.functional.cross_entropy(outputs, how.target[chosen]).backward()
        optimizer.step()
    for name, p in other.named_parameters():
        stored = found[name] if name.endswith("bias") else found[name].dense()
        torch.testing.assert_close(stored, p.detach() if name.endswith("bias") else rounded(p.detach(), Grid(3)))


def test_a_flat_minimum_is_looked_for_before_anything_is_cut():
    """As many gradients as the others take, and twenty steps with one mask after five of SAM."""
    model, how, taken = network(), training(network(), steps=30), []

    def loss(outputs, target):
        taken.append(len(outputs))
        return ce(outputs, target)

    found = sam_pruned(model, draw(5, 12), pattern=Pattern(0.7), training=dataclasses.replace(how, loss=loss))
    assert len(taken) == 5 * 2 + 20
    total = sum(w.numel() for w in matrices(model).values())
    assert sum(int(found[f"{name}.weight"].mask.sum()) for name in matrices(model)) == total - int(0.7 * total)


def test_training_is_that_of_torch():
    """Against AdamW written out, with the same batches."""
    model, how = network(), training(network(), steps=5)
    found = descend(model, how.again(), parameters(model))
    other = network()
    optimizer = torch.optim.AdamW(other.parameters(), lr=how.lr, weight_decay=0.0)
    for i, chosen in enumerate(how.again().batches()):
        optimizer.param_groups[0]["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * i / 5)) * min(1.0, (i + 1) / 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(other(how.inputs[chosen]), how.target[chosen]).backward()
        optimizer.step()
    for name, p in other.named_parameters():
        torch.testing.assert_close(found[name].detach(), p.detach())


def test_batches_pass_over_all_rows():
    how = training(network(), steps=8)
    chosen = torch.cat(list(how.batches()))
    assert torch.equal(chosen[:64].sort().values, torch.arange(64))
    assert torch.equal(chosen[64:].sort().values, torch.arange(64))


def test_divergence_and_the_other_classes():
    z, t = draw(5, 4), draw(5, 4, seed=1)
    p, q = t.softmax(1), z.softmax(1)
    assert float(distilled.divergence(z, t)) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-5)
    target = torch.tensor([0, 1, 2, 3, 0])
    left = distilled.others(z, target).softmax(1)
    for row, wanted, y in zip(left, q, target, strict=True):
        rest = torch.cat([wanted[:y], wanted[y + 1 :]])
        torch.testing.assert_close(row, rest / (1 - wanted[y]))


def test_every_offspring_is_within_the_budget():
    g = torch.Generator().manual_seed(0)
    costs = {"a": [10, 20, 30], "b": [200, 400, 600], "c": [5, 7, 9]}
    parent, budget, seen = {"a": 1, "b": 1, "c": 1}, 427, set()
    for _ in range(300):
        child = evopress.mutated(parent, costs, budget, g, least=0.98)
        if child is not None:
            assert sum(costs[name][level] for name, level in child.items()) <= budget
            assert all(0 <= level < 3 for level in child.values())
            left = budget - sum(costs[name][level] for name, level in child.items())
            ups = [costs[n][level + 1] - costs[n][level] for n, level in child.items() if level < 2]
            assert all(left < up for up in ups), "nothing is left that a layer could take"
            seen.add(tuple(child.values()))
    assert seen == {(0, 1, 2), (1, 1, 1)}, "all that leave nothing, but (2, 0, 2), which spends little"


def test_the_search_finds_the_best_levels_of_a_small_problem():
    costs = {name: [1, 2, 3] for name in "abcd"}
    worth = {"a": 5.0, "b": 3.0, "c": 1.0, "d": 0.1}

    def fitness(genes, rows):
        return -sum(worth[name] * level for name, level in genes.items())

    parents = []

    def beside(parent):
        parents.append(parent)
        return fitness

    found = evopress.search(dict.fromkeys("abcd", 1), costs, 8, beside, 100, torch.Generator().manual_seed(0))
    assert found == {"a": 2, "b": 2, "c": 0, "d": 0}
    worths = [fitness(each, None) for each in parents]
    assert worths == sorted(worths, reverse=True), "no parent gives way to a worse one"


def lopsided():
    """Four layers, of which one has 95 % of the weights."""
    model = MLP(200, [150, 8, 8], 6, torch.Generator().manual_seed(0))
    sizes = {name: w.numel() for name, w in matrices(model).items()}
    assert max(sizes.values()) > 0.95 * sum(sizes.values())
    return model, sizes


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_bits_are_spent_where_one_layer_has_nearly_all_weights(bits):
    model, sizes = lopsided()
    found = evopress.evopress(model, correlated(60, 200), grid=Grid(bits), generator=torch.Generator().manual_seed(0))
    spent = sum(sizes[name] * found[f"{name}.weight"].grid.bits for name in sizes)
    assert 0.98 * bits * sum(sizes.values()) <= spent <= bits * sum(sizes.values())


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_as_many_weights_are_kept_where_one_layer_has_nearly_all(share):
    model, sizes = lopsided()
    found = evopress.evopress_sparse(
        model, correlated(60, 200), pattern=Pattern(share), generator=torch.Generator().manual_seed(0)
    )
    kept = sum(int(packed.mask.sum()) for packed in found.values())
    budget = sum(size - Pattern(share).cut(size) for size in sizes.values())
    assert kept == budget


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (MLP(6, [9, 7], 3, torch.Generator().manual_seed(0)), draw(5, 6)),
        (CNN(1, 8, 3, torch.Generator().manual_seed(0), width=3).eval(), draw(5, 1, 8, 8)),
        (
            Transformer(5, torch.Generator().manual_seed(0), width=8, layers=2, heads=2).eval(),
            torch.arange(30).view(5, 6) % 5,
        ),
    ],
    ids=["mlp", "cnn", "transformer"],
)
def test_a_replay_gives_what_the_whole_network_gives_and_computes_less(model, x):
    dense = {name: [w, 0.5 * w, draw(*w.shape)] for name, w in matrices(model).items()}
    replay, rows, computed = evopress.Replay(model, x, dense), torch.tensor([0, 2, 3]), []

    def noting(name, compute):
        return lambda given: computed.append(name) or compute(given)

    for name, layer in layers(replay.model).items():
        layer.forward = partial(replay._forward, name, noting(name, layer.forward.args[1]))
    for parent in (dict.fromkeys(dense, 1), dict.fromkeys(dense, 0)):
        replay.keep(parent)
        for changed in replay.order:
            genes = {**parent, changed: 2}
            with weights_replaced(model, {name: dense[name][level] for name, level in genes.items()}), torch.no_grad():
                expected = model(x[rows])
            computed.clear()
            torch.testing.assert_close(replay(genes, rows), expected)
            assert computed == replay.order[replay.order.index(changed) :]


@pytest.mark.parametrize("bits", [2, 3])
def test_bits_that_are_searched_for(bits):
    """A layer of two values needs one bit: the others get what it can spare, and the mean is within the budget."""
    model, x = MLP(12, [12, 12], 12, torch.Generator().manual_seed(0)), correlated(60, 12)
    with torch.no_grad():
        model.layers[1].weight.copy_(0.25 * (model.layers[1].weight > 0))
    found = evopress.evopress(model, x, grid=Grid(bits), generator=torch.Generator().manual_seed(0))
    used = {name: packed.grid.bits for name, packed in found.items()}
    assert used["layers.1.weight"] < bits < max(used.values())
    sizes = {f"{name}.weight": w.numel() for name, w in matrices(model).items()}
    assert sum(sizes[name] * b for name, b in used.items()) <= bits * sum(sizes.values())


def test_inputs_of_a_layer_are_what_it_is_given():
    model, x = network(), draw(7, 12)
    torch.testing.assert_close(inputs_of(model, "layers.1", x), torch.tanh(model.layers[0](x)))


def test_declarations_that_are_refused():
    with pytest.raises(MethodError, match="either 'grid' or 'pattern'"):
        compressor(id="none")(_neither)
    with pytest.raises(MethodError, match="semi_structured"):
        compressor(id="odd", semi_structured=True)(_quantises)


def _neither(network, inputs):
    """Names neither."""


def _quantises(network, inputs, *, grid):
    """Names the grid."""


def test_rtn_is_rounding_to_nearest():
    model = network()
    for name, w in matrices(model).items():
        found = rtn(model, draw(5, 12), grid=Grid(3))[f"{name}.weight"]
        torch.testing.assert_close(found.dense(), rounded(w, Grid(3)))
        assert isinstance(found.scales, Scales)

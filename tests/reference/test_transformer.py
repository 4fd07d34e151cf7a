"""The language model: what it sees, where its weights come from, gradients, and that training learns."""

import math

import pytest
import torch

from reference.models.language import Recipe, fit, rate, windows
from reference.models.transformer import Transformer, rotations, turned


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, *, tied=False, layers=2):
    return Transformer(11, seeded(seed), width=8, layers=layers, heads=2, tied=tied)


def some_tokens(n=3, length=7):
    return torch.randint(11, (n, length), generator=seeded(5))


@pytest.mark.parametrize("tied", [False, True])
def test_shapes(tied):
    model, tokens = small(tied=tied), some_tokens()
    assert model.hidden(tokens).shape == (3, 7, 8)
    assert model.classifier.shape == (11, 8)
    torch.testing.assert_close(model(tokens), model.hidden(tokens) @ model.classifier.T)
    assert model(tokens[:, :1]).isfinite().all()


@pytest.mark.parametrize("place", range(1, 7))
@torch.no_grad()
def test_later_tokens_change_no_earlier_output(place):
    model, tokens = small(), some_tokens()
    for parameter in model.parameters():
        parameter *= 10  # so that attention is far from a mean
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % 11
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.isclose(before[:, place:], after[:, place:]).all(-1).any()  # and each later one sees it


@torch.no_grad()
def test_windows_in_a_batch_are_apart():
    model, tokens = small(), some_tokens()
    torch.testing.assert_close(model(tokens)[1:2], model(tokens[1:2]))


@torch.no_grad()
def test_order_matters():
    model, tokens = small(), torch.tensor([[1, 2, 3]])
    assert not torch.allclose(model(tokens)[:, 2], model(tokens[:, [1, 0, 2]])[:, 2], atol=1e-5)


def test_positions_enter_by_their_distance_alone():
    q, k = torch.randn(2, 6, generator=seeded(), dtype=torch.float64)
    turns = rotations(9, 6, q)
    scores = turned(q.expand(9, 6), turns) @ turned(k.expand(9, 6), turns).T
    for distance in range(-8, 9):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    torch.testing.assert_close(scores[0, 0], q @ k)
    assert scores[0].unique().numel() == 9


@pytest.mark.parametrize("tied", [False, True])
def test_gradients(tied):
    model, tokens = small(tied=tied, layers=1).double(), some_tokens(2, 4)
    weights = dict(model.named_parameters())
    for parameter in weights.values():
        parameter.data *= 5  # so that no part is close to linear

    def loss(*values):
        given = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(model, given, tokens).logsumexp(-1).mean()

    assert torch.autograd.gradcheck(loss, tuple(weights.values()))


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(1)
    first = small().state_dict()
    torch.manual_seed(2)
    second, other = small().state_dict(), small(1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_weights_at_the_start():
    model = Transformer(1000, seeded(), width=128, layers=8, heads=4)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert parameter.eq(1).all()
        else:
            wanted = 0.005 if name.endswith("_out.weight") else 0.02  # over the root of 2 x 8 layers
            assert parameter.std().item() == pytest.approx(wanted, rel=0.03)


def test_sizes():
    def size(**sizes):
        return sum(p.numel() for p in Transformer(65, seeded(), width=192, layers=4, heads=6, **sizes).parameters())

    blocks, norms = 4 * 12 * 192**2, (2 * 4 + 1) * 192
    assert size(tied=True) == blocks + norms + 65 * 192
    assert size(tied=False) == blocks + norms + 2 * 65 * 192


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 8 must be a multiple of 2 x 8 heads"):
        Transformer(11, seeded(), width=8, heads=8)


# -- training ----------------------------------------------------------------------------------------------------------

RECIPE = Recipe(steps=60, batch=4, context=12, lr=3e-2, warmup=5)
CYCLE = torch.arange(11).repeat(20)  # each token says the next


def trained(seed):
    model = small()
    return model, fit(model, CYCLE, RECIPE, seeded(seed), torch_loss)


def torch_loss(hidden, weight, target):
    return torch.nn.functional.cross_entropy(hidden @ weight.T, target)


def test_training_learns_and_is_deterministic():
    model, losses = trained(0)
    again, same = trained(0)
    assert losses[0].item() == pytest.approx(math.log(11), abs=0.1)
    assert losses[-1] < 0.1
    assert torch.equal(losses, same)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(losses, trained(1)[1])
    with torch.no_grad():
        assert torch.equal(model(CYCLE[None, :12]).argmax(-1)[0], CYCLE[1:13])


def test_the_rate_rises_then_falls():
    rates = [rate(RECIPE, step) for step in range(61)]
    assert rates[:5] == pytest.approx([0.006, 0.012, 0.018, 0.024, 0.03])
    assert rates[5] == max(rates) == 0.03
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[60] == pytest.approx(0)


def test_windows_are_of_the_text():
    tokens = torch.arange(10)
    inputs, target = windows(tokens, 500, 4, seeded())
    assert inputs.shape == target.shape == (500, 4)
    assert torch.equal(inputs + 1, target)
    assert torch.equal(inputs[:, :1] + torch.arange(4), inputs)
    assert (inputs.min(), target.max()) == (0, 9)

"""The contract of a defence, over every registered one: a file in ``reference/defences`` needs no edit here."""

import re

import pytest
import torch
from attacked import EPS, held_out, seeded, trained
from latex2mathml.converter import convert

from lossboard.defend import Searches
from reference.attacks.search import Search
from reference.bounds import worst
from reference.methods import catalogue, find, named, supply
from reference.models.abreast import abreast
from reference.models.mlp import MLP
from reference.models.pixels import Scaled

DEFENCES = catalogue("defence")
TRAINED = {id: m for id, m in DEFENCES.items() if not m.combines}
COMBINED = {id: m for id, m in DEFENCES.items() if m.combines}
every_defence = pytest.mark.parametrize("method", DEFENCES.values(), ids=list(DEFENCES))
every_trained = pytest.mark.parametrize("method", TRAINED.values(), ids=list(TRAINED))
every_combined = pytest.mark.parametrize("method", COMBINED.values(), ids=list(COMBINED))
SEARCHING = [pytest.param(m, norm, id=f"{id}-{norm}") for id, m in TRAINED.items() if m.inner for norm in EPS]


def settings(method):
    """The default hyperparameters, and each one at the ends of its search range."""
    yield dict(method.defaults)
    for name, allowed in method.search.items():
        yield {**method.defaults, name: allowed.low}
        yield {**method.defaults, name: allowed.high}


def batch(n=12, classes=10, size=2.0, dtype=torch.float64):
    """Everything that a defence may ask for, with a gradient where it has one."""
    g = seeded()

    def logits():
        return (size * torch.randn(n, classes, generator=g, dtype=torch.float64)).to(dtype)

    target = torch.randint(classes, (n,), generator=g)
    made = {name: logits().requires_grad_() for name in ("clean", "adversarial", "worst")}
    other = {"accurate": logits(), "robust": logits(), "right_steps": torch.randint(11, (n,), generator=g)}
    return target, made, other


def values(method, target, made, other, *, progress=0.6, carried=None, **hyperparameters):
    dtype = made["clean"].dtype
    carried = torch.tensor(method.carried, dtype=dtype) if carried is None else carried
    given = {**made, **other, "progress": torch.tensor(progress, dtype=dtype), "carried": carried}
    own = {**method.defaults, **hyperparameters}
    result = method.function(target, **supply(named(method.function), {**given, **own}))
    return result if method.carried else (result, carried)


@every_trained
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 2.0, 1e4])
def test_values_and_gradients_are_finite(method, dtype, size):
    for hyperparameters in settings(method):
        target, made, other = batch(size=size, dtype=dtype)
        found, carried = values(method, target, made, other, **hyperparameters)
        assert found.shape == target.shape
        assert found.dtype == dtype
        assert found.isfinite().all()
        assert carried.shape == (len(method.carried),)
        assert carried.isfinite().all()
        assert not carried.requires_grad
        asked = [made[name] for name in made if name in method.supplied]
        assert asked, "a defence is told of some logits"
        for gradient in torch.autograd.grad(found.mean(), asked):
            assert gradient.isfinite().all()


@every_trained
def test_every_logit_that_is_asked_for_matters(method):
    target, made, other = batch()
    found, _ = values(method, target, made, other)
    asked = [name for name in made if name in method.supplied]
    for name, gradient in zip(asked, torch.autograd.grad(found.mean(), [made[n] for n in asked]), strict=True):
        assert gradient.abs().sum() > 0, name


@every_trained
def test_the_order_of_samples_does_not_matter(method):
    target, made, other = batch()
    found, carried = values(method, target, made, other)
    order = torch.randperm(len(target), generator=seeded(5))
    turned = ({name: value[order] for name, value in part.items()} for part in (made, other))
    again, carried_again = values(method, target[order], *turned)
    torch.testing.assert_close(again, found[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(carried_again, carried, rtol=1e-9, atol=1e-9)


@every_trained
def test_hyperparameters_may_be_tensors(method):
    target, made, other = batch()
    as_tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in method.defaults.items()}
    found, _ = values(method, target, made, other, **as_tensors)
    torch.testing.assert_close(found, values(method, target, made, other)[0])


@every_trained
def test_hyperparameters_matter(method):
    """Some value of the search range changes the value, or what the inner search finds."""
    target, made, other = batch()
    base, _ = values(method, target, made, other)
    hooks = {key for hook in (method.inner, method.weights) if hook for key in named(hook)}
    for name, allowed in method.search.items():
        ends = [values(method, target, made, other, **{name: end})[0] for end in (allowed.low, allowed.high)]
        assert name in hooks or any(not torch.allclose(end, base) for end in ends), name


@pytest.mark.parametrize(("method", "norm"), SEARCHING)
def test_the_inner_search_of_several_networks_is_that_of_each(method, norm):
    """Their rows come together, and each draws from its own stream: with ``search.anywhere`` and ``search.near``."""
    x, target = held_out(32)
    models = [Scaled(MLP(64, [16], 10, seeded(r)), [0.3], [0.4], flat=True) for r in (0, 1)]
    own = supply(named(method.inner), method.defaults)
    each = [[Search(EPS[norm], EPS[norm] / 4, 4, seeded(r), norm) for r in (3, 4)] for _ in range(2)]
    alone = [
        method.inner(abreast([model]), rows, labels, search, **own)
        for model, rows, labels, search in zip(models, x.chunk(2), target.chunk(2), each[0], strict=True)
    ]
    together = Searches.of(each[1], lambda r: abreast([models[r]]))
    found = method.inner(abreast(models), x, target, together, **own)
    assert torch.equal(found.x, torch.cat([one.x for one in alone]))
    assert torch.equal(found.right_steps, torch.cat([one.right_steps for one in alone]))


@pytest.mark.parametrize(("method", "norm"), SEARCHING)
def test_the_inner_search_raises_what_it_is_for(method, norm):
    """The values are larger, in the mean, at what it finds than at the inputs; it is deterministic and in the ball."""
    model, (x, target) = trained(), held_out(60)
    found = []
    for _ in range(2):
        search = Search(EPS[norm], EPS[norm] / 4, 10, seeded(3), norm)
        own = supply(named(method.inner), method.defaults)
        found.append(method.inner(model, x, target, search, **own))
    one, two = found
    assert torch.equal(one.x, two.x)
    assert one.right_steps.shape == target.shape
    assert (one.right_steps >= 0).all()
    assert (one.right_steps <= 10).all()
    if method.id != "vat":
        assert one.x.min() >= 0
        assert one.x.max() <= 1
        change = (one.x - x).flatten(1)
        length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        assert (length <= EPS[norm] + 1e-6).all()
    with torch.no_grad():
        at = {"clean": model(x), "worst": worst(model, x, target, 0.01)}
        other = {"accurate": model(x), "robust": model(x), "right_steps": one.right_steps}
        before, _ = values(method, target, {**at, "adversarial": model(x)}, other)
        after, _ = values(method, target, {**at, "adversarial": model(one.x)}, other)
    assert after.mean() > before.mean()


@pytest.mark.parametrize("base", ["gce", "sqen", "poly1", "comp"])
@pytest.mark.parametrize("id", ["standard", "at", "trades", "fat", "dro_at", "gairat", "ibp", "vat", "at_awp"])
def test_any_loss_of_logits_and_target_can_take_the_place_of_cross_entropy(id, base):
    method = find(DEFENCES, f"{id}-{base}")
    target, made, other = batch()
    found, _ = values(method, target, made, other)
    assert found.isfinite().all()
    assert not torch.allclose(found, values(DEFENCES[id], target, made, other)[0]) or base == "comp"


@every_combined
def test_a_combination_gives_scores_for_each_row_alone(method):
    members = torch.randn(len(method.needs), 9, 5, generator=seeded(), dtype=torch.float64)
    for size in (0.0, 1.0, 1e4):
        for hyperparameters in settings(method):
            scores = method.function(size * members, **hyperparameters)
            assert scores.shape == (9, 5)
            assert scores.isfinite().all()
            alone = torch.cat([method.function(size * members[:, i : i + 1], **hyperparameters) for i in range(9)])
            torch.testing.assert_close(alone, scores)


@every_combined
def test_a_combination_predicts_what_all_networks_do_and_lets_gradients_through(method):
    target = torch.arange(9) % 5
    members = torch.randn(len(method.needs), 9, 5, generator=seeded(), dtype=torch.float64)
    members = (members + 8 * torch.nn.functional.one_hot(target, 5)).requires_grad_()
    scores = method.function(members, **method.defaults)
    assert torch.equal(scores.argmax(1), target)
    (gradient,) = torch.autograd.grad(scores.square().sum(), members)
    assert (gradient.abs().sum((0, 2)) > 0).all()


@every_defence
def test_what_it_needs_is_there_and_trains(method):
    for id in method.needs:
        assert id in TRAINED
        assert not TRAINED[id].needs


@every_defence
def test_documentation(method):
    cited = re.search(r"\(.+ (18|19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?\)", method.citation)
    assert cited, f"the module's docstring begins 'Name (Authors, Venue Year)', found {method.citation!r}"
    shapes = r"for members \(K, N, C\); returns \(N, C\)" if method.combines else r"for target \(N,\); returns \(N,\)"
    assert re.search(shapes, method.summary), method.summary
    assert len(method.formula) > 3, "the docstring has a paragraph $$ LaTeX $$"
    assert convert(method.formula).startswith("<math")


@every_defence
def test_defaults_are_searched_or_explained(method):
    for name, default in method.defaults.items():
        if name in method.search:
            assert method.search[name].low <= default <= method.search[name].high, name
        else:
            assert any(re.search(rf"\b{name}\b", remark) for remark in method.remarks), f"say why '{name}' is not tuned"

"""The plain loop of a defence: every defence trains, one that was interrupted goes on to the same bits."""

import dataclasses
import functools

import pytest
import torch
from attacked import accuracy, digits, seeded
from torch.nn.functional import cross_entropy

from lossboard import defend as module
from lossboard.defend import Loop, Searches, combined, defend
from lossboard.problem import Problem, Run
from lossboard.protocol import Recipe
from lossboard.threat import Threat
from reference.attacks.pgd import pgd
from reference.attacks.search import Search
from reference.bounds import certified
from reference.methods import MethodError, catalogue, find
from reference.models.cnn import CNN
from reference.models.mlp import MLP
from reference.models.pixels import Scaled
from reference.models.preact_resnet import PreActResNet

DEFENCES = catalogue("defence")
TRAINED = [id for id, m in DEFENCES.items() if not m.combines]
RECIPE = Recipe(epochs=6, batch=64, lr=0.1)
THREAT = Threat(0.06, steps=5, step=0.4, ramp=0.3)


@functools.cache
def problem():
    images, labels = digits()
    train, val, test, _ = torch.arange(len(images)).split([800, 160, 240, 597])
    return Problem(images, labels, train, val, test, 10, labels, torch.eye(10))


def network(rows, generator):
    return Scaled(MLP(64, [25], rows.classes, generator), [0.3], [0.4], flat=True)


def run(method, seed=0, **params):
    return Run(problem(), {"lr": RECIPE.lr, **method.defaults, **params}, ("test", seed))


@functools.cache
def teachers():
    return {id: trained(id).model for id in ("standard", "at")}


@functools.cache
def others(seed):
    """Networks of the defence's teachers' kinds that know nothing yet."""
    return {id: network(problem(), seeded(10 * seed + i)) for i, id in enumerate(("standard", "at"))}


def trained(id, recipe=RECIPE, threat=THREAT, **given):
    method = find(DEFENCES, id)
    known = [teachers()] if method.needs else None
    (found,) = defend(method, [run(method)], network, recipe, threat, teachers=known, **given)
    return found


@pytest.mark.parametrize("id", [*TRAINED, "at-gce", "trades-sqen"])
def test_every_defence_learns(id):
    found = trained(id)
    assert found.status == "ok"
    assert len(found.val) == len(found.robust_val) == RECIPE.epochs
    assert found.val[found.epoch] > 0.6, found
    assert all(robust <= clean for robust, clean in zip(found.robust_val, found.val, strict=True))
    assert found.robust_val[found.epoch] == max(found.robust_val)
    assert not found.model.training


@pytest.mark.parametrize("id", ["at", "trades", "adv_comp_sum", "ibp"])
def test_what_is_trained_for_it_is_more_robust(id):
    x, target = problem().features[problem().test], problem().labels[problem().test]
    left = {
        one: accuracy(net, pgd(net, x, target, eps=0.06, norm="linf", generator=seeded()), target)
        for one, net in (("standard", teachers()["standard"]), (id, trained(id).model))
    }
    assert left[id] > left["standard"] + 0.03, left


def test_training_on_bounds_certifies():
    x, target = problem().features[problem().test], problem().labels[problem().test]
    sure = {id: float(certified(trained(id).model, x, target, 0.03).double().mean()) for id in ("standard", "ibp")}
    assert sure["ibp"] > sure["standard"] + 0.1, sure


@pytest.mark.parametrize("id", ["at", "mtard", "ibp", "vat"])
def test_an_interrupted_training_goes_on_to_the_same_bits(id, tmp_path, monkeypatch):
    whole = trained(id)
    file = tmp_path / "loop.pt"
    epoch = Loop.epoch

    def killed(self):
        if self.done == 3:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(Loop, "epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(id, checkpoint=file)
    monkeypatch.setattr(Loop, "epoch", epoch)
    resumed = trained(id, checkpoint=file)
    assert resumed.bits == whole.bits
    assert resumed.robust_val == whole.robust_val
    assert resumed.seconds > 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("id", [*TRAINED, "at-gce"])
def test_a_run_has_the_same_bits_in_any_company(id, norm):
    """Whatever the others' seeds and hyperparameters are, those of the search too; and the same passes."""
    method, recipe = find(DEFENCES, id), dataclasses.replace(RECIPE, epochs=2)
    threat = Threat(0.06 if norm == "linf" else 0.3, norm, steps=3, step=0.5)
    if method.radius and norm == "l2":
        pytest.skip("bounds a box")
    runs = [run(method, seed) for seed in (0, 1, 2)]
    searched = {"reach": 0.7} if "reach" in method.defaults else {}
    runs.append(run(method, 1, lr=0.03, **searched))
    known = [others(seed) for seed in (0, 1, 2, 1)]

    def trained_at_once(*which):
        return defend(method, [runs[r] for r in which], network, recipe, threat, teachers=[known[r] for r in which])

    alone = [trained_at_once(r)[0] for r in range(4)]
    assert len({one.bits for one in alone}) == 4
    for which in ((2, 0), (3, 1, 2, 0), (1, 2)):
        for r, one in zip(which, trained_at_once(*which), strict=True):
            assert one.bits == alone[r].bits, which
            assert (one.val, one.robust_val, one.passes) == (alone[r].val, alone[r].robust_val, alone[r].passes)


def test_a_checkpoint_that_cannot_be_read_is_left_and_the_training_starts_anew(tmp_path):
    file = tmp_path / "loop.checkpoint"
    file.write_bytes(b"")
    with pytest.warns(UserWarning, match="loop.checkpoint cannot be read .*; the training starts anew"):
        found = trained("standard", checkpoint=file)
    assert found.bits == trained("standard").bits


def test_only_small_networks_are_trained_at_once():
    method = DEFENCES["at"]
    make = lambda rows, g: CNN(1, 8, rows.classes, g, width=4)  # noqa: E731
    with pytest.raises(TypeError, match="train other networks one by one"):
        defend(method, [run(method), run(method, 1)], make, RECIPE, THREAT)


def test_a_search_at_once_draws_for_each_run_and_for_nobody():
    each = [Search(0.1, 0.05, 2, seeded(r)) for r in (0, 1)]
    both = Searches.of(each)
    x = torch.rand(8, 1, 2, 2, generator=seeded())
    for draw in ("anywhere", "near"):
        apart = [Search(0.1, 0.05, 2, seeded(r)) for r in (0, 1)]
        own = [getattr(one, draw)(part) for one, part in zip(apart, x.chunk(2), strict=True)]
        each = [Search(0.1, 0.05, 2, seeded(r)) for r in (0, 1)]
        assert torch.equal(getattr(Searches.of(each), draw)(x), torch.cat(own))
    with pytest.raises(TypeError):
        torch.empty(3).normal_(generator=both.generator)


def test_adversarial_training_is_the_loop_as_a_paper_writes_it():
    """One step, against PGD and SGD in a few lines."""
    method = DEFENCES["at"]
    one = Loop(method, [run(method)], network, RECIPE, Threat(0.1, steps=3, step=0.5), [{}], torch.device("cpu"))
    rows = problem().train[:64]
    x, target = problem().features[rows], problem().labels[rows]
    by_hand = network(problem(), run(method).stream("weights"))
    draw = run(method).stream("attack")
    x_adv = Search(0.1, 0.05, 3, draw).anywhere(x)
    for _ in range(3):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(by_hand(x_adv), target), x_adv)
        x_adv = torch.min(torch.max(x_adv.detach() + 0.05 * gradient.sign(), x - 0.1), x + 0.1).clamp(0, 1)
    cross_entropy(by_hand(x_adv), target).backward()
    torch.optim.SGD(by_hand.parameters(), lr=RECIPE.lr, momentum=0.9).step()
    one.step([rows], 0.0)
    for p, expected in zip(one.models[0].parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-6)


def test_at_perturbed_weights_the_step_starts_from_the_old_ones():
    """With gamma near 0 it is adversarial training; with a large one it is not; the statistics move once a forward."""
    method, found = DEFENCES["at_awp"], {}
    make = lambda rows, g: PreActResNet(1, rows.classes, g, (1,), width=4)  # noqa: E731
    for gamma in (1e-9, 0.3):
        one = Loop(method, [run(method, gamma=gamma)], make, RECIPE, Threat(0.05, steps=1), [{}], torch.device("cpu"))
        one.step([problem().train[:64]], 0.0)
        found[gamma] = [p.detach().clone() for p in one.models[0].parameters()]
        assert int(one.models[0].norm.num_batches_tracked) == 2
    plain = Loop(DEFENCES["at"], [run(DEFENCES["at"])], make, RECIPE, Threat(0.05, steps=1), [{}], torch.device("cpu"))
    plain.step([problem().train[:64]], 0.0)
    for near, far, p in zip(found[1e-9], found[0.3], plain.models[0].parameters(), strict=True):
        torch.testing.assert_close(near, p, rtol=1e-4, atol=1e-5)
        assert p.ndim == 1 or not torch.allclose(far, p, rtol=1e-3, atol=1e-4)


def test_the_search_leaves_batch_statistics_alone():
    make = lambda rows, g: PreActResNet(1, rows.classes, g, (1,), width=4)  # noqa: E731
    one = Loop(DEFENCES["trades"], [run(DEFENCES["trades"])], make, RECIPE, Threat(0.05), [{}], torch.device("cpu"))
    one.step([problem().train[:64]], 0.0)
    assert int(one.models[0].norm.num_batches_tracked) == 2  # clean and adversarial


def test_mixed_precision_is_for_the_search_alone(monkeypatch):
    seen = []

    class Spy(CNN):
        def forward(self, x):
            y = super().forward(x)
            seen.append((self.training, y.dtype))
            return y

    make = lambda rows, g: Spy(1, 8, rows.classes, g, width=4)  # noqa: E731
    threat = Threat(0.05, steps=2, precision="bfloat16")
    one = Loop(DEFENCES["at"], [run(DEFENCES["at"])], make, RECIPE, threat, [{}], torch.device("cpu"))
    one.step([problem().train[:64]], 0.0)
    assert seen == [(False, torch.bfloat16)] * 2 + [(True, torch.float32)]


def test_eps_grows_over_the_ramp(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "Search", lambda eps, *rest: seen.append(eps) or Search(eps, *rest))
    method = DEFENCES["at"]
    one = Loop(method, [run(method)], network, RECIPE, Threat(0.2, steps=1, ramp=0.5), [{}], torch.device("cpu"))
    for progress in (0.0, 0.25, 0.5, 0.9):
        one.step([problem().train[:64]], progress)
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.2])


@pytest.mark.parametrize("id", ["adaptive_smoothing", "crossmax"])
def test_a_combination_is_one_model_to_an_attack(id):
    method = DEFENCES[id]
    members = {one: trained(one).model for one in method.needs}
    model = combined(method, members, method.defaults)
    x, target = problem().features[problem().test], problem().labels[problem().test]
    assert accuracy(model, x, target) > 0.7
    x_adv = pgd(model, x, target, eps=0.25, norm="linf", generator=seeded())
    assert accuracy(model, x_adv, target) < accuracy(model, x, target) - 0.1
    with pytest.raises(MethodError, match=f"'{id}' needs {method.needs[0]}"):
        combined(method, {}, method.defaults)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(MethodError, match="trains nothing: it combines at, trades, mart"):
        trained("crossmax")
    with pytest.raises(MethodError, match='bounds an "linf" ball'):
        trained("ibp", threat=Threat(0.5, "l2"))
    with pytest.raises(MethodError, match="is trained"):
        combined(DEFENCES["at"], {}, {})
    scalar = lambda target, *, clean: clean.mean()  # noqa: E731
    broken = dataclasses.replace(DEFENCES["standard"], function=scalar)
    with pytest.raises(MethodError, match=r"returned shape \(\), expected \(64,\)"):
        defend(broken, [run(broken)], network, RECIPE, THREAT)


def test_a_network_that_diverges_is_said_to():
    method = DEFENCES["at"]
    (found,) = defend(method, [run(method, lr=1e38)], network, Recipe(epochs=2, batch=64, lr=1.0), THREAT)
    assert found.status == "diverged"

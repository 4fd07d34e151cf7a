"""Defences against independent closed forms, their limits and their identities, in float64."""

import numpy as np
import pytest
import torch
from attacked import held_out, seeded, trained
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from reference.attacks.ball import project
from reference.attacks.objectives import ce
from reference.attacks.search import Search
from reference.defences.adv_comp_sum import moved
from reference.defences.awp import against_weights
from reference.defences.divergence import kl
from reference.defences.ibp import ramp
from reference.defences.mtard import CARRIED
from reference.methods import MethodError, catalogue, defence, ensemble, find
from reference.softmax import target_log_softmax

DEFENCES = catalogue("defence")


def batch(n=8, classes=5, seed=0):
    g = seeded(seed)
    clean, adversarial = (2 * torch.randn(n, classes, generator=g, dtype=torch.float64) for _ in range(2))
    return torch.randint(classes, (n,), generator=g), clean, adversarial


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def value(id, target, **given):
    return find(DEFENCES, id).function(target, **given)


def nll(logits, target):
    return -log_softmax(logits.numpy(), 1)[np.arange(len(target)), target.numpy()]


def divergence(clean, adversarial):
    return rel_entr(softmax(clean.numpy(), 1), softmax(adversarial.numpy(), 1)).sum(1)


def test_standard_and_adversarial_training_are_the_loss_at_their_inputs():
    target, clean, adversarial = batch()
    close(value("standard", target, clean=clean), nll(clean, target))
    for id in ("at", "fat", "at_awp"):
        close(value(id, target, adversarial=adversarial), nll(adversarial, target))
    close(value("at-mae", target, adversarial=adversarial), 2 - 2 * np.exp(-nll(adversarial, target)))


def test_divergence_is_scipys():
    _, clean, adversarial = batch()
    close(kl(clean, adversarial), divergence(clean, adversarial))
    close(kl(clean, clean), np.zeros(8))


def test_trades():
    target, clean, adversarial = batch()
    close(
        value("trades", target, clean=clean, adversarial=adversarial, weight=2.5),
        nll(clean, target) + 2.5 * divergence(clean, adversarial),
    )
    close(value("trades", target, clean=clean, adversarial=clean), nll(clean, target))  # an adversary that does nothing


def test_mart_by_hand():
    target, clean, adversarial = batch()
    p, q = softmax(clean.numpy(), 1), softmax(adversarial.numpy(), 1)
    rows, y = np.arange(8), target.numpy()
    others = q.copy()
    others[rows, y] = 0
    boosted = -np.log(q[rows, y]) - np.log(1.0001 - others.max(1))
    expected = boosted + 3 * (1 - p[rows, y]) * divergence(clean, adversarial)
    close(value("mart", target, clean=clean, adversarial=adversarial, weight=3.0), expected)


def test_gairat_weights_fall_with_the_distance_from_the_boundary():
    target, _, adversarial = batch(n=11)
    given = {"adversarial": adversarial, "right_steps": torch.arange(11)}
    late = value("gairat", target, **given, progress=torch.tensor(0.9)) / torch.from_numpy(nll(adversarial, target))
    expected = (1 + np.tanh(-1 + 5 * (1 - 2 * np.arange(11) / 10))) / 2
    close(late, expected / expected.mean())
    assert (late.diff() < 0).all()
    close(value("gairat", target, **given, progress=torch.tensor(0.2)), nll(adversarial, target))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_adv_comp_sum_is_its_definition(tau):
    """Phi^tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau) of the sum of exp(-margin / rho)."""
    target, clean, adversarial = batch()
    y = target.numpy()[:, None]

    def margins(z):
        apart = np.take_along_axis(z.numpy(), y, 1) - z.numpy()
        return apart[np.arange(5)[None] != y].reshape(8, 4)

    u = np.exp(-margins(clean) / 1.3).sum(1)
    phi = np.log1p(u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau)
    stable = np.linalg.norm(margins(adversarial) - margins(clean), axis=1)
    found = value("adv_comp_sum", target, clean=clean, adversarial=adversarial, tau=tau, nu=0.7, rho=1.3)
    close(found, phi + 0.7 * stable, 1e-6)
    close(moved(adversarial, clean, target), stable, 1e-6)


def test_adv_comp_sum_at_tau_1_is_cross_entropy_where_nothing_moves():
    target, clean, _ = batch()
    close(
        value("adv_comp_sum", target, clean=clean, adversarial=clean + 3), nll(clean, target), 1e-5
    )  # shifts move none


def test_dro_descends_the_log_mean_exponential():
    target, _, adversarial = batch()
    for r in (0.3, 1.0, 5.0):
        z = adversarial.clone().requires_grad_()
        (found,) = torch.autograd.grad(value("dro_at", target, adversarial=z, temperature=r).mean(), z)
        z = adversarial.clone().requires_grad_()
        risk = r * (torch.logsumexp(-target_log_softmax(z, target) / r, 0) - np.log(8))
        (expected,) = torch.autograd.grad(risk, z)
        torch.testing.assert_close(found, expected)
    values = nll(adversarial, target)
    close(value("dro_at", target, adversarial=adversarial, temperature=1e9), values, 1e-6)
    worst = value("dro_at", target, adversarial=adversarial, temperature=1e-3)
    assert worst.sum().item() == pytest.approx(8 * values.max())
    r = 0.8  # the weights attain the maximum of the regularised risk
    p = softmax(values / r)
    assert p @ values - r * (p * np.log(8 * p)).sum() == pytest.approx(r * (logsumexp(values / r) - np.log(8)))


def taught(**changed):
    target, clean, adversarial = batch()
    _, accurate, robust = batch(seed=1)
    given = {"clean": clean, "adversarial": adversarial, "accurate": accurate, "robust": robust}
    given |= {"carried": torch.tensor(CARRIED, dtype=torch.float64), "progress": torch.tensor(0.0)} | changed
    return value("mtard", target, **given), given


def test_mtard_starts_with_the_mean_of_both_divergences():
    (found, carried), given = taught()
    both = (divergence(given["accurate"], given["clean"]), divergence(given["robust"], given["adversarial"]))
    close(found, (both[0] + both[1]) / 2 / 5)
    close(carried[0], 0.5)
    close(carried[1:3], [both[0].mean() / 5, both[1].mean() / 5])


def test_mtard_moves_weight_to_what_has_fallen_less():
    (_, carried), given = taught()
    learnt = given["accurate"] + 0.1 * (given["clean"] - given["accurate"])
    (_, after), _ = taught(clean=learnt, carried=carried)
    ratio = divergence(given["accurate"], learnt).mean() / divergence(given["accurate"], given["clean"]).mean()
    assert ratio < 0.2
    close(after[0], 0.5 - 0.025 * (0.5 - ratio / (ratio + 1)), 1e-3)
    (_, late), _ = taught(clean=learnt, carried=carried, progress=torch.tensor(0.8))
    assert (late[0] - 0.5).item() == pytest.approx(0.1 * (after[0] - 0.5).item(), rel=1e-3)


def test_mtard_brings_the_teachers_entropies_together():
    sharp = {"accurate": 5 * batch(seed=1)[1], "entropy_pace": 0.05}

    def entropies(given, carried):
        return [
            -(torch.log_softmax(given[name] / heat.exp(), 1).exp() * torch.log_softmax(given[name] / heat.exp(), 1))
            .sum(1)
            .mean()
            for name, heat in (("accurate", carried[3]), ("robust", carried[4]))
        ]

    (_, carried), given = taught(**sharp)
    first = entropies(given, carried)
    for _ in range(60):
        (_, carried), given = taught(**sharp, carried=carried)
    last = entropies(given, carried)
    assert abs(last[0] - last[1]) < 0.1 * abs(first[0] - first[1])
    (_, still), _ = taught(**(sharp | {"entropy_pace": 0.0}))
    assert not still[3:].any()


def test_vat_searches_the_direction_of_most_change():
    """Of a linear network the divergence is quadratic nearby: the direction is the top one of W F W', F its Fisher
    information, and a power iteration from a random start leans to it."""
    weight = torch.randn(6, 3, generator=seeded(), dtype=torch.float64) * torch.tensor([3.0, 1.0, 1.0])
    x = torch.rand(300, 6, 1, 1, generator=seeded(), dtype=torch.float64)
    p = (x.flatten(1) @ weight).softmax(1)
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    top = torch.linalg.eigh(weight @ fisher @ weight.T).eigenvectors[:, :, -1]
    search = Search(0.05, 0.1, 1, seeded(), "l2")
    found = DEFENCES["vat"].inner(lambda x: x.flatten(1) @ weight, x, p.argmax(1), search, reach=1.0)
    step = (found.x - x).flatten(1)
    torch.testing.assert_close(step.norm(dim=1), torch.full((300,), 0.05, dtype=torch.float64))
    assert ((step / 0.05 * top).sum(1).abs() > 0.9).double().mean() > 0.6
    assert value("vat", p.argmax(1), clean=x[:, :3, 0, 0], adversarial=x[:, :3, 0, 0]).equal(
        -target_log_softmax(x[:, :3, 0, 0], p.argmax(1))
    )


def test_ibp_goes_from_the_loss_to_its_share_of_the_bound():
    target, clean, worst = batch()
    given = {"clean": clean, "worst": worst, "clean_share": 0.25}
    close(value("ibp", target, **given, progress=torch.tensor(0.0)), nll(clean, target))
    late = 0.25 * nll(clean, target) + 0.75 * nll(worst, target)
    close(value("ibp", target, **given, progress=torch.tensor(0.7)), late)
    shares = ramp(torch.linspace(0, 1, 21))
    assert (shares.diff() >= 0).all()
    assert shares[0] == 0
    assert shares[-1] == 1


def test_weights_move_along_their_gradient_by_a_share_of_their_length():
    g = seeded()
    weights = [torch.randn(4, 3, generator=g), torch.randn(4, generator=g)]
    gradients = [torch.randn(4, 3, generator=g), torch.randn(4, generator=g)]
    moved_weights = against_weights(weights, gradients, gamma=0.02)
    change = moved_weights[0] - weights[0]
    assert change.norm() == pytest.approx(0.02 * weights[0].norm().item(), rel=1e-4)
    torch.testing.assert_close(change / change.norm(), gradients[0] / gradients[0].norm(), rtol=1e-3, atol=1e-4)
    assert torch.equal(moved_weights[1], weights[1])


def test_adaptive_smoothing_is_a_mixture_of_probabilities():
    _, accurate, robust = batch()
    members = torch.stack([accurate, robust])
    mix = DEFENCES["adaptive_smoothing"].function
    p = 0.3 * softmax(accurate.numpy(), 1) + 0.7 * softmax(robust.numpy(), 1)
    close(mix(members, share=0.7), np.log(p))
    close(mix(members, share=1 - 1e-12), log_softmax(robust.numpy(), 1), 1e-6)


def test_adaptive_smoothing_cannot_be_overruled_by_the_accurate_network():
    """Where the robust one is ahead by (1 - a) / a in probability, as its authors prove."""
    g = seeded()
    robust, accurate = 4 * torch.randn(500, 5, generator=g).double(), 100 * torch.randn(500, 5, generator=g).double()
    scores = DEFENCES["adaptive_smoothing"].function(torch.stack([accurate, robust]), share=0.8)
    first, second = robust.softmax(1).topk(2, 1).values.unbind(1)
    sure = first - second >= (1 - 0.8) / 0.8
    assert 0.3 < sure.double().mean() < 1
    assert torch.equal(scores.argmax(1)[sure], robust.argmax(1)[sure])


def test_crossmax_by_hand_and_against_one_shouting_member():
    members = torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]], [[5.0, 1.0]]])
    # minus each one's largest: (-2, 0), (-2, 0), (0, -4); the largest of each class is then 0; medians (-2, 0)
    found = DEFENCES["crossmax"].function(members)
    assert found.tolist() == [[-2.0, 0.0]]
    members[2, 0] = torch.tensor([1e6, 0.0])
    assert DEFENCES["crossmax"].function(members).argmax() == 1


@pytest.mark.parametrize("id", ["at", "trades", "adv_comp_sum", "mart"])
def test_inner_searches_step_along_the_gradient_of_what_they_are_for(id):
    """One step from their start: TRADES ascends the divergence, comp-sum the margins, the others cross-entropy."""
    model, (x, target) = trained(), held_out(50)
    clean = model(x).detach()
    objective = {"trades": lambda z: kl(clean, z), "adv_comp_sum": lambda z: moved(z, clean, target)}
    search = Search(0.05, 0.0125, 1, seeded())
    start = search.near(x) if id in ("trades", "mart") else search.anywhere(x)
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective.get(id, lambda z: ce(z, target))(model(leaf)).sum(), leaf)
    expected = project(start + 0.0125 * gradient.sign(), x, 0.05, "linf")
    found = DEFENCES[id].inner(model, x, target, Search(0.05, 0.0125, 1, seeded()))
    torch.testing.assert_close(found.x, expected)


def test_a_friendly_adversary_stops_at_the_boundary():
    model, (x, target) = trained(), held_out(100)
    search = Search(0.1, 0.02, 10, seeded())
    friendly = DEFENCES["fat"].inner(model, x, target, search, further=0.0)
    harsh = DEFENCES["at"].inner(model, x, target, Search(0.1, 0.02, 10, seeded()))
    with torch.no_grad():
        losses = [float(ce(model(found.x), target).mean()) for found in (friendly, harsh)]
    assert losses[0] < 0.7 * losses[1]


# -- declarations -----------------------------------------------------------------------------------------------------


def test_losses_that_cannot_stand_in_are_refused():
    for id, message in (
        ("at-dmi", "not a function of logits and target alone"),
        ("at-elr", "not a function of logits and target alone"),
        ("mart-gce", "no loss to be replaced"),
        ("trades-mixup-gce", "not a function of logits and target alone"),
        ("crossmax-gce", "no loss to be replaced"),
    ):
        with pytest.raises((MethodError, LookupError), match=message):
            find(DEFENCES, id)
    found = find(DEFENCES, "trades-gce")
    assert found.id == "trades-gce"
    assert dict(found.defaults) == {"weight": 6.0, "q": 0.7}
    assert found.module == "reference.defences.trades+reference.losses.gce"
    assert found.citation.startswith("TRADES")


def test_what_declarations_refuse(monkeypatch):
    monkeypatch.setattr("reference.methods._registered", {})

    def searching(target, *, adversarial): ...

    def remembering(target, *, clean, carried): ...

    def taught(target, *, clean, accurate): ...

    def plain(target, *, clean): ...

    def members(members, *, share=0.5): ...

    def inner(model, x, target, search, *, tau): ...

    for register, function, message in (
        (defence(), searching, "declare inner=... exactly when"),
        (defence(inner=inner), plain, "declare inner=... exactly when"),
        (defence(inner=inner), searching, "'tau' of inner is no hyperparameter"),
        (defence(), remembering, "declare carried=... and teachers=..."),
        (defence(), taught, "declare carried=... and teachers=..."),
        (defence(), members, "the first parameters are 'target'"),
        (ensemble(of=("at",)), members, "at least two"),
    ):
        with pytest.raises(MethodError, match=message):
            register(function)
    assert ensemble(of=("at", "trades"))(members) is members

"""Corrections against independent closed forms, their limits and their identities, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, rel_entr, softmax

from reference.corrections.labels import against_all
from reference.corrections.mixup import symmetric_beta
from reference.corrections.transition import anchors, inverse
from reference.methods import Memory, MethodError, catalogue, corrected, find
from reference.noise import transition as of_noise

LOSSES = catalogue("loss")
CLASSES = 5
NOISE = torch.rand(CLASSES, CLASSES, generator=torch.Generator().manual_seed(9)).double()
NOISE = 0.7 * torch.eye(CLASSES).double() + 0.3 * NOISE / NOISE.sum(-1, keepdim=True)


def batch(n=8, classes=CLASSES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(function(logits).sum(), logits)[0]


def value(id, logits, target, **given):
    return find(LOSSES, id).function(logits, target, **given)


def each_label(base, logits):
    """The losses (N, C) against every label, one call for each."""
    columns = (LOSSES[base].function(logits, torch.full((len(logits),), k)) for k in range(logits.shape[-1]))
    return torch.stack(list(columns), -1)


def soft_cross_entropy(logits, weights):
    return -(np.asarray(weights) * log_softmax(logits.numpy(), -1)).sum(-1)


def one_hot(target):
    return np.eye(CLASSES)[target.numpy()]


@pytest.mark.parametrize("base", ["ce", "gce", "nce_rce", "ldr", "ww", "cs"])
def test_the_losses_against_all_labels(base):
    logits, _ = batch()
    close(against_all(LOSSES[base].function, logits), each_label(base, logits))
    slope = gradient(lambda z: against_all(LOSSES[base].function, z), logits)
    close(slope, gradient(lambda z: each_label(base, z), logits))


# -- other labels -----------------------------------------------------------------------------------------------------


def test_label_smoothing_is_cross_entropy_with_soft_targets():
    logits, target = batch()
    weights = 0.7 * one_hot(target) + 0.3 / CLASSES
    close(value("ls", logits, target, softening=0.3), soft_cross_entropy(logits, weights))


@pytest.mark.parametrize(("base", "total"), [("mae", 2 * (CLASSES - 1)), ("nce", 1)])
def test_label_smoothing_of_a_symmetric_loss_is_affine(base, total):
    logits, target = batch()
    expected = 0.7 * LOSSES[base].function(logits, target) + 0.3 * total / CLASSES
    close(value(f"ls-{base}", logits, target, softening=0.3), expected)


@pytest.mark.parametrize("id", ["boot_soft", "boot_hard"])
@pytest.mark.parametrize("base", ["ce", "gce", "ww"])
def test_bootstrapping_with_full_trust_is_the_loss(id, base):
    logits, target = batch()
    close(corrected_value(id, base, logits, target, trust=1.0), LOSSES[base].function(logits, target))


def corrected_value(id, base, logits, target, **given):
    return corrected(LOSSES[id].correction, LOSSES[base]).function(logits, target, **given)


def test_bootstrapping_of_cross_entropy():
    logits, target = batch()
    p = softmax(logits.numpy(), -1)
    soft = 0.7 * one_hot(target) + 0.3 * p
    hard = 0.7 * one_hot(target) + 0.3 * np.eye(CLASSES)[p.argmax(-1)]
    close(value("boot_soft", logits, target, trust=0.7), soft_cross_entropy(logits, soft))
    close(value("boot_hard", logits, target, trust=0.7), soft_cross_entropy(logits, hard))


def test_soft_bootstrapping_has_the_gradient_of_the_entropy():
    logits, target = batch()
    found = gradient(lambda z: value("boot_soft", z, target, trust=0.7), logits)
    p, log_p = logits.softmax(-1), logits.log_softmax(-1)
    entropy = -(p * log_p).sum(-1, keepdim=True)
    close(found, 0.7 * (p - torch.as_tensor(one_hot(target))) - 0.3 * p * (log_p + entropy))


# -- noise transitions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["fwd", "fwd_est", "bwd", "bwd_est"])
@pytest.mark.parametrize("base", ["ce", "gce", "nce_rce", "cs"])
def test_without_noise_the_corrections_are_the_loss(id, base):
    logits, target = batch()
    found = corrected_value(id, base, logits, target, transition=torch.eye(CLASSES).double())
    close(found, LOSSES[base].function(logits, target))


def test_forward_correction_of_cross_entropy():
    logits, target = batch()
    noisy = softmax(logits.numpy(), -1) @ NOISE.numpy()
    close(
        value("fwd", logits, target, transition=NOISE),
        soft_cross_entropy(torch.as_tensor(np.log(noisy)), one_hot(target)),
    )
    close(value("fwd-gce", logits, target, transition=NOISE), (1 - noisy[np.arange(8), target] ** 0.7) / 0.7)


def test_forward_correction_is_minimised_by_the_clean_probabilities():
    clean = torch.tensor([[0.5, 0.3, 0.1, 0.07, 0.03]], dtype=torch.float64)
    noisy = clean @ NOISE

    def risk(z):
        rows = z.expand(CLASSES, CLASSES)
        return (noisy[0] * value("fwd", rows, torch.arange(CLASSES), transition=NOISE)).sum()

    close(gradient(risk, clean.log()), torch.zeros(1, CLASSES))


@pytest.mark.parametrize("base", ["ce", "gce", "mae", "ww"])
def test_backward_correction_is_unbiased(base):
    """The mean over the noisy labels of a sample is the loss against its clean one, where nothing is clipped."""
    logits = batch()[0] / 2
    assert each_label(base, logits).max() < 16
    found = torch.stack(
        [corrected_value("bwd", base, logits, torch.full((8,), y), transition=NOISE) for y in range(CLASSES)], -1
    )
    close(found @ NOISE.T, each_label(base, logits))


def test_backward_correction_clips_what_it_subtracts():
    logits = torch.tensor([[0.0, 50.0, 0.0, 0.0, 0.0]], dtype=torch.float64)  # label 1 costs nothing, the others 50
    for y in range(CLASSES):
        weights = torch.linalg.inv(NOISE)[y]
        costs = torch.where(weights > 0, 50.0, -math.log(1e-7))
        costs[1] = 0
        close(value("bwd", logits, torch.tensor([y]), transition=NOISE), [(weights * costs).sum().item()], 1e-7)


@pytest.mark.parametrize(("kind", "rate"), [("uniform_ldr", 0.8), ("class_dependent", 0.4), ("symmetric", 0.8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_noise_of_the_suites_is_inverted(kind, rate, dtype):
    t = of_noise(kind, 11, rate, "vowel").to(dtype)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(inverse(t) @ t, torch.eye(11, dtype=dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_of_a_singular_transition_is_bounded(dtype):
    swapped = of_noise("class_dependent", 11, 0.5, "vowel").to(dtype)
    uniform = torch.full((11, 11), 1 / 11, dtype=dtype)
    nearly = uniform + 0.003 * torch.eye(11, dtype=dtype)
    for t in (swapped, uniform, nearly, torch.eye(11, dtype=dtype)[[0] * 11]):
        assert inverse(t).abs().max() < 150
    close(inverse(swapped).double(), torch.linalg.pinv(swapped.double()), 1e-8 if dtype == torch.float64 else 1e-3)


def test_anchors_read_the_transition_off_samples_of_every_class():
    """At 10 classes the row of class i is the prediction at the 97th percentile of its probability."""
    t = of_noise("class_dependent", 11, 0.3, "vowel")
    clean = torch.eye(11).double().repeat(50, 1)  # 50 samples a class: certain but for the first 5
    clean[:55] = 0.9 * clean[:55] + 0.1 * clean[:55].roll(1, -1)
    close(anchors((clean @ t).clamp(min=1e-9).log()), t, 1e-7)
    log_p = batch(1000, 10)[0].log_softmax(-1)
    found = anchors(log_p)
    for i in range(10):
        assert found[i, i].item() == pytest.approx(np.percentile(log_p[:, i].exp(), 97, method="lower"), rel=1e-6)
        assert (found[i].log() - log_p).abs().sum(-1).min() < 1e-9  # a row is one sample's


# -- mixed samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.2, 1.0, 8.0, 32.0])
def test_the_share_of_mixup_has_a_beta_distribution(a):
    u, v = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stats.kstest(symmetric_beta(a, u, v).numpy(), stats.beta(a, a).cdf).pvalue > 0.01


def test_the_share_of_mixup_at_the_ends():
    for a in (0.01, 1.0, 32.0):
        for u in (0.0, 1e-7, 1 - 1e-7):
            share = symmetric_beta(torch.tensor(a), torch.tensor([u] * 4), torch.tensor([0.0, 0.25, 0.5, 0.9999]))
            assert ((share >= 0) & (share <= 1)).all()


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 4, 4)])
def test_mixup_mixes_as_it_says(shape):
    inputs, target = torch.randn(shape).double(), torch.arange(6)
    mixed, second, share = LOSSES["mixup"].correction.function(inputs, target, mix=0.5, draws=torch.rand(6, 2).double())
    assert second.tolist() == [1, 2, 3, 4, 5, 0]
    close(mixed, share * inputs + (1 - share) * inputs[second])
    assert 0 <= share <= 1


# -- steps ------------------------------------------------------------------------------------------------------------


def lists():
    generator = torch.Generator().manual_seed(0)
    return ([torch.randn(s, generator=generator).double() for s in ((4, 3), (4,), (2, 4), (2,))] for _ in range(2))


def norm(tensors):
    return math.sqrt(sum(t.square().sum().item() for t in tensors))


def test_sam_goes_to_the_worst_weights_around():
    """To first order: the loss rises by rho |g| there, and by no more at other weights at that distance."""
    logits, target = batch(32)
    features = torch.randn(32, 3, generator=torch.Generator().manual_seed(1)).double()
    weights = [torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(2)).double(), logits.mean(0)]

    def risk(w):
        return LOSSES["ce"].function(features @ w[0].T + w[1], target).mean()

    leaves = [w.clone().requires_grad_() for w in weights]
    gradients = list(torch.autograd.grad(risk(leaves), leaves))
    rho = 1e-5
    there = LOSSES["sam"].correction.function(weights, gradients, rho=rho)
    moved = [a - b for a, b in zip(there, weights, strict=True)]
    assert norm(moved) == pytest.approx(rho)
    rise = (risk(there) - risk(weights)).item()
    assert rise == pytest.approx(rho * norm(gradients), rel=1e-3)
    for seed in range(20):
        other = [torch.randn(w.shape, generator=torch.Generator().manual_seed(seed)).double() for w in weights]
        length = norm(other)
        assert risk([w + rho * o / length for w, o in zip(weights, other, strict=True)]) - risk(weights) < rise


def test_perp_is_orthogonal_and_as_long():
    weights, gradients = lists()
    for w, g, found in zip(weights, gradients, LOSSES["perp"].correction.function(weights, gradients), strict=True):
        assert (w * found).sum().item() == pytest.approx(0, abs=1e-12)
        assert found.norm().item() == pytest.approx(g.norm().item())
        assert (found * g).sum() > 0


def test_perp_of_parallel_and_of_no_weights():
    w = torch.tensor([[0.3, -0.7], [1.1, 0.9]])
    parallel, free = LOSSES["perp"].correction.function([w, 0 * w], [w / 3, w])
    assert parallel.norm() < 1e-3
    close(free.double(), w.double(), 1e-6)


# -- memory -----------------------------------------------------------------------------------------------------------


def visit(id, logits, target, state, progress=None, **given):
    if progress is not None:
        given["progress"] = torch.tensor(progress, dtype=torch.float64)
    return value(id, logits, target, state=state, **given)


FRESH = torch.zeros(8, CLASSES, dtype=torch.float64)


def test_pskd_begins_as_the_loss():
    logits, target = batch()
    before = batch(seed=1)[0].softmax(-1)
    for base in ("ce", "gce"):
        plain = LOSSES[base].function(logits, target)
        id = "pskd" if base == "ce" else f"pskd-{base}"
        close(visit(id, logits, target, before, 0.0)[0], plain)
        close(visit(id, logits, target, FRESH, 0.9)[0], plain)


def test_pskd_is_cross_entropy_with_the_last_prediction_in_the_target():
    logits, target = batch()
    first, last = visit("pskd", batch(seed=1)[0], target, FRESH, 0.0)[1], logits.softmax(-1)
    found, rows = visit("pskd", logits, target, first, 0.5, distil=0.6)
    weights = 0.7 * one_hot(target) + 0.3 * softmax(batch(seed=1)[0].numpy(), -1)
    close(found, soft_cross_entropy(logits, weights))
    close(rows, last)


def test_elr_term_and_memory():
    logits, target = batch()
    state = 0.8 * batch(seed=1)[0].softmax(-1)
    found, rows = visit("elr", logits, target, state, pull=2.0, keep=0.6)
    p = logits.softmax(-1)
    clamped = p.clamp(1e-4, 1 - 1e-4)
    mean = 0.6 * state + 0.4 * clamped / clamped.sum(-1, keepdim=True)
    close(rows, mean)
    close(found, LOSSES["ce"].function(logits, target) + 2 * torch.log(1 - (p * mean).sum(-1)))


def test_elr_gradient():
    """The paper's: p - e_y + pull * g with g_k = p_k / (1 - <p, t>) * sum_j (t_j - t_k) p_j."""
    logits, target = batch()
    state = 0.8 * batch(seed=1)[0].softmax(-1)
    rows = visit("elr", logits, target, state, pull=2.0, keep=0.6)[1]
    found = gradient(lambda z: visit("elr", z, target, state, pull=2.0, keep=0.6)[0], logits)
    p = logits.softmax(-1)
    overlap = (p * rows).sum(-1, keepdim=True)
    close(found, p - torch.as_tensor(one_hot(target)) + 2 * p / (1 - overlap) * (overlap - rows))


def test_elr_stays_finite_where_prediction_and_memory_agree():
    logits = 1e4 * torch.eye(CLASSES)
    state = torch.zeros(CLASSES, CLASSES)
    for _ in range(200):
        found, state = value("elr", logits, torch.arange(CLASSES), state=state)
    assert found.isfinite().all()
    close(found.double(), torch.full((CLASSES,), 3 * math.log(4e-4)), 1e-2)


def test_saf_adds_the_divergence_from_the_visit_before():
    logits, target = batch()
    rows = visit("saf", batch(seed=1)[0], target, FRESH, 0.0)[1]
    close(rows, batch(seed=1)[0].log_softmax(-1))
    found, after = visit("saf", logits, target, rows, 0.5, pull=0.4, heat=3.0)
    old, new = (softmax(z.numpy() / 3, -1) for z in (batch(seed=1)[0], logits))
    close(found, LOSSES["ce"].function(logits, target) + 0.4 * 9 * torch.as_tensor(rel_entr(old, new).sum(-1)))
    close(after, logits.log_softmax(-1))


def test_saf_begins_late_and_never_at_a_first_visit():
    logits, target = batch()
    plain, rows = LOSSES["ce"].function(logits, target), batch(seed=1)[0].log_softmax(-1)
    close(visit("saf", logits, target, rows, 0.29, onset=0.3)[0], plain)
    assert (visit("saf", logits, target, rows, 0.3, onset=0.3)[0] > plain).all()
    close(visit("saf", logits, target, FRESH, 0.9)[0], plain)


# -- clipped logits ---------------------------------------------------------------------------------------------------


def test_logit_clipping():
    logits, target = batch()
    logits[0] *= 0.01
    clipped = logits * (1.5 / logits.norm(dim=-1)).clamp(max=1)[:, None]
    assert torch.equal(clipped[0], logits[0])
    close(value("logitclip", logits, target, limit=1.5), LOSSES["ce"].function(clipped, target))
    close(value("logitclip-ww", logits, target, limit=1.5), LOSSES["ww"].function(clipped, target))
    slope = gradient(lambda z: value("logitclip", z, target, limit=1.5), logits)
    close((slope[1:] * logits[1:]).sum(-1), torch.zeros(7))  # no gradient along the logits


# -- which go together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [m.id for m in LOSSES.values() if m.correction])
def test_a_corrected_loss_declares_what_both_need(id):
    correction = LOSSES[id].correction
    for base in ("ce", "gce", "nce_rce"):
        found = corrected(correction, LOSSES[base])
        assert found.id == (id if base == "ce" else f"{id}-{base}")
        assert found.memory == correction.memory
        assert found.draws == correction.draws
        assert found.defaults == {**LOSSES[base].defaults, **correction.defaults}
        acts = correction.at == "loss"
        assert found.symmetric == (not acts and LOSSES[base].symmetric)
        assert set(found.supplied) == (set(correction.supplied) if acts else set())
        assert found.citation == correction.citation


def test_memory_is_kept_by_one_of_them_and_only_for_samples_as_they_are():
    aldr = LOSSES["aldr"]
    assert aldr.memory == Memory(1.0)
    for id in ("pskd", "ls", "mixup"):
        with pytest.raises(MethodError, match=f"'{id}' cannot wrap 'aldr'"):
            find(LOSSES, f"{id}-aldr")
    assert find(LOSSES, "sam-aldr").memory == aldr.memory

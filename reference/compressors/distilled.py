"""Knowledge distillation after pruning (Hinton, Vinyals & Dean 2015, arXiv:1503.02531)."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.compressors.fine_tuned import masked, pruned, under
from reference.compressors.layers import layers, matrices, weight
from reference.compressors.magnitude import global_masks
from reference.compressors.packing import Packed
from reference.compressors.pattern import Pattern
from reference.compressors.training import Objective, Training, Weights, descend, parameters
from reference.methods import compressor


@compressor(semi_structured=True, search={"temperature": (1.0, 8.0), "alpha": (0.1, 1.0)})
def kd(
    network: nn.Module,
    inputs: Tensor,
    *,
    pattern: Pattern,
    training: Training,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> dict[str, Packed | Tensor]:
    """Global magnitude pruning, and training of what is left towards the full network's probabilities, for a network
    and inputs (N, ...), which it does not look at; returns packed weights and the other parameters.

    $$ (1 - \\alpha)\\, \\ell(z, y) + \\alpha T^2\\, \\mathrm{KL}\\left( p_T \\,\\Vert\\, q_T \\right), \\quad
       q_T = \\mathrm{softmax}(z / T) $$
    """

    def objective(outputs: Tensor, x: Tensor, target: Tensor, done: float) -> Tensor:
        wanted = _logits(network, x) / temperature
        apart = divergence(outputs.flatten(0, -2) / temperature, wanted)
        return (1 - alpha) * training.mean_loss(outputs, x, target, done) + alpha * temperature**2 * apart

    return _tuned(network, pattern, training, objective)


@compressor(id="nkd", semi_structured=True, search={"gamma": (0.5, 3.0)})
def nkd(
    network: nn.Module,
    inputs: Tensor,
    *,
    pattern: Pattern,
    training: Training,
    temperature: float = 1.0,
    gamma: float = 1.5,
) -> dict[str, Packed | Tensor]:
    """Global magnitude pruning, and training of what is left towards the full network's probabilities of the classes
    that are not the target, made to sum to one, for a network and inputs (N, ...), which it does not look at; returns
    packed weights and the other parameters.

    Normalised distillation; the loss of the target is that of training, and temperature and weight are our reading.

    $$ \\ell(z, y) - \\gamma T^2 \\sum_{k \\ne y} \\frac{p_k}{1 - p_y} \\log \\frac{q_k}{1 - q_y} $$
    """

    def objective(outputs: Tensor, x: Tensor, target: Tensor, done: float) -> Tensor:
        own, wanted = (others(z / temperature, target.flatten()) for z in (outputs.flatten(0, -2), _logits(network, x)))
        cross = -(wanted.softmax(1) * own.log_softmax(1)).sum(1).mean()
        return training.mean_loss(outputs, x, target, done) + gamma * temperature**2 * cross

    return _tuned(network, pattern, training, objective)


@compressor(id="dhkd", semi_structured=True, search={"alpha": (0.1, 10.0)})
def dhkd(
    network: nn.Module, inputs: Tensor, *, pattern: Pattern, training: Training, alpha: float = 1.0
) -> dict[str, Packed | Tensor]:
    """Global magnitude pruning, and training of what is left with two heads, for a network and inputs (N, ...), which
    it does not look at; returns packed weights and the other parameters.

    The network's own head learns from the targets, another one, which is thrown away, from the full network's logits,
    class by class; the layers before serve both. The other head starts with the weights of the first, and has no bias.
    The weight is our reading.

    $$ \\ell(z, y) + \\alpha \\sum_k \\mathrm{KL}\\left( \\sigma(t_k) \\,\\Vert\\, \\sigma(a_k) \\right) $$
    """
    student, seen = copy.deepcopy(network), list[Tensor]()
    masks = global_masks(matrices(network), pattern)
    last = list(layers(network))[-1]
    hook = layers(student)[last].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    weights: Weights = parameters(network)
    weights["other"] = weight(layers(network)[last]).detach().clone().requires_grad_()

    def objective(outputs: Tensor, x: Tensor, target: Tensor, done: float) -> Tensor:
        logits = (seen.pop() @ weights["other"].T).flatten(0, -2)
        wanted = _logits(network, x)
        apart = F.binary_cross_entropy_with_logits(logits, wanted.sigmoid(), reduction="none").sum(1).mean()
        return training.mean_loss(outputs, x, target, done) + alpha * apart

    descend(student, training, weights, objective=objective, constrain=lambda now, _: under(now, masks))
    hook.remove()
    return pruned(network, weights, masks)


def _tuned(
    network: nn.Module, pattern: Pattern, training: Training, objective: Objective
) -> dict[str, Packed | Tensor]:
    masks = global_masks(matrices(network), pattern)
    return pruned(network, masked(network, training, parameters(network), masks, objective), masks)


@torch.no_grad()
def _logits(network: nn.Module, x: Tensor) -> Tensor:
    """Logits (M, C) of the full network."""
    found: Tensor = network(x)
    return found.flatten(0, -2)


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """The mean Kullback-Leibler divergence of the softmax of logits (M, C) from that of the wanted ones."""
    log_p = wanted.log_softmax(1)
    return (log_p.exp() * (log_p - logits.log_softmax(1))).sum(1).mean()


def others(logits: Tensor, target: Tensor) -> Tensor:
    """Logits (M, C - 1) of the classes that are not the target."""
    count, classes = logits.shape
    keep = torch.arange(classes) != target[:, None]
    return logits[keep].view(count, classes - 1)

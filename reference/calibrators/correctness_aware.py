"""Correctness-aware calibration (Liu et al., 2024, arXiv:2404.13016)."""

from collections.abc import Callable

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.methods import Range, calibrator

LARGEST = 4  # classes of the original whose probabilities under the copies are looked at
HIDDEN = 5  # units
LOWEST, HIGHEST = 0.1, 10.0  # temperatures


def features(logits: Tensor, copies: Tensor) -> Tensor:
    """Probabilities (N, K * min(4, C)) under K copies (K, N, C) of the classes of the largest logits (N, C)."""
    classes = logits.topk(min(LARGEST, logits.shape[1]), 1).indices
    seen = torch.softmax(copies.double(), 2).gather(2, classes.expand(len(copies), -1, -1))
    return seen.permute(1, 0, 2).flatten(1)


def temperatures(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Of features (N, F): the temperatures (N, 1) of a network with one hidden layer."""
    first, shift, second, last = weights
    return (torch.relu(x @ first + shift) @ second + last).clamp(LOWEST, HIGHEST)


def slope(below: Tensor, temperature: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """Derivative (N, 1) in each temperature (N, 1) of the sum of weight * (confidence - right)^2, all (N, 1).

    ``below`` (N, C) are logits less the largest of their row. The confidence is 1 / sum_k exp(below_k / T).
    """
    scaled = below / temperature
    e = scaled.exp()
    confidence = 1 / e.sum(1, keepdim=True)
    rises = confidence**2 * (e * scaled).sum(1, keepdim=True) / temperature
    return 2 * weight * (confidence - right) * rises


def balance(right: Tensor) -> Tensor:
    """Weights (N, 1) that sum to 1 and give right and wrong predictions half each, or all to those there are."""
    share = right.mean()
    weight = torch.where(right > 0, 1 - share, share)
    return weight / weight.sum() if weight.sum() > 0 else torch.ones_like(weight) / len(weight)


@calibrator(accuracy_preserving=True, search={"rate": Range(1e-3, 1e-1, log=True)}, tags=("rebalanced",))
def correctness_aware(
    logits: Tensor,
    target: Tensor,
    *,
    copies: Tensor,
    generator: torch.Generator,
    rate: float = 0.03,
    steps: float = 100,
) -> Calibrated:
    r"""A temperature for each sample from how its transformed copies are predicted, for logits (N, C) and target (N,);
    returns a map of logits (M, C) and copies (K, M, C) to log-probabilities.

    $$ \mathrm{softmax}(z / T(x)), \quad \min_T \sum_i w_i \left( \max_k \mathrm{softmax}(z_i / T_i)_k - a_i \right)^2
    $$

    a is 1 where the prediction is right, and w gives right and wrong predictions the same weight together. T, in [0.1,
    10], is the output of a network with 5 hidden units; its inputs are the probabilities that the copies give to the
    four most probable classes of the original (the paper's copies: rotated, grey, with changed colours).

    With those weights the optimum is calibrated to a population half of which is predicted wrongly: where nearly all
    predictions are right it is much less sure than it should be, with or without a shift of the inputs.
    ``correctness_aware_plain`` is without them.

    As in the released code but for the training: that takes ten epochs of Adam at rate 1e-4 in batches of 1,000 from a
    random temperature, which on a small held-out set stays where it began. Here T begins at 1, and Adam takes a number
    of steps (steps, not tuned as rate is: more of them change little) over all samples at once.
    """
    return fitted(logits, target, balance, copies=copies, generator=generator, rate=float(rate), steps=float(steps))


def fitted(
    logits: Tensor,
    target: Tensor,
    weigh: Callable[[Tensor], Tensor],
    *,
    copies: Tensor,
    generator: torch.Generator,
    rate: float,
    steps: float,
) -> Calibrated:
    """The map of ``correctness_aware`` with other weights: those (N, 1) that ``weigh`` gives right predictions (N, 1),
    which are 1, and wrong ones, which are 0."""
    z = logits.double()
    largest, predicted = z.max(1, keepdim=True)
    right = (predicted == target[:, None]).double()
    below, weight, x = z - largest, weigh(right), features(z, copies)
    weights = _begin(x.shape[1], generator)
    adam = torch.optim.Adam(weights, lr=rate)
    with torch.enable_grad():
        for _ in range(round(steps)):
            adam.zero_grad()
            t = temperatures(x, weights)
            t.backward(slope(below, t.detach(), right, weight))
            adam.step()
    found = [part.detach() for part in weights]

    def calibrated(new: Tensor, *, copies: Tensor) -> Tensor:
        return torch.log_softmax(new.double() / temperatures(features(new.double(), copies), found), 1)

    return calibrated


def _begin(inputs: int, generator: torch.Generator) -> list[Tensor]:
    """Weights of a network that says 1, with hidden units at random."""

    def uniform(*shape: int) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1) / shape[0] ** 0.5

    parts = [uniform(inputs, HIDDEN), torch.zeros(HIDDEN), torch.zeros(HIDDEN, 1), torch.ones(1)]
    return [part.double().requires_grad_() for part in parts]

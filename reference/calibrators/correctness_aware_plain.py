"""Correctness-aware calibration without its weights (Liu et al., 2024, arXiv:2404.13016)."""

import torch
from torch import Tensor

from reference.calibrators.calibrated import Calibrated
from reference.calibrators.correctness_aware import fitted
from reference.methods import Range, calibrator


def even(right: Tensor) -> Tensor:
    """The same weight for every prediction (N, 1), their sum 1."""
    return torch.full_like(right, 1 / len(right))


@calibrator(accuracy_preserving=True, search={"rate": Range(1e-3, 1e-1, log=True)})
def correctness_aware_plain(
    logits: Tensor,
    target: Tensor,
    *,
    copies: Tensor,
    generator: torch.Generator,
    rate: float = 0.03,
    steps: float = 100,
) -> Calibrated:
    r"""As ``correctness_aware`` with every prediction weighing the same, for logits (N, C) and target (N,); returns a
    map of logits (M, C) and copies (K, M, C) to log-probabilities.

    $$ \mathrm{softmax}(z / T(x)), \quad \min_T \frac{1}{N} \sum_i \left( \max_k \mathrm{softmax}(z_i / T_i)_k - a_i
    \right)^2 $$

    The variant is ours. What is minimised is the Brier score of the event that the prediction is right, which is least
    where the confidence is the share of right predictions that there is; the published weights make it half of them.
    Network, inputs and training (rate, and steps, not tuned as rate is) are those of ``correctness_aware``.
    """
    return fitted(logits, target, even, copies=copies, generator=generator, rate=float(rate), steps=float(steps))

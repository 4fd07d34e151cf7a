"""Maximum mean calibration error (Kumar, Sarawagi & Jain, ICML 2018)."""

import torch
from torch import Tensor

from reference.methods import calibration_loss
from reference.softmax import pick, softmax, target_log_softmax

WIDTH = 0.4  # of the Laplace kernel, in confidence
NEAR = 1e-10  # what is added under a root, so that its slope at 0 is finite


def confidence_and_right(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The largest probability (N,), and 1 where it is the target's, else 0 (N,)."""
    p = softmax(logits)
    confidence = p.amax(-1)
    return confidence, (pick(p, target) >= confidence).to(logits.dtype)


def norm(weights: Tensor, confidence: Tensor) -> Tensor:
    """The root of sum_ij w_i w_j exp(-|c_i - c_j| / 0.4) for weights and confidences (N,): a scalar."""
    kernel = torch.exp(-(confidence[:, None] - confidence[None, :]).abs() / WIDTH)
    squared = (weights[:, None] * kernel * weights[None, :]).sum((-2, -1))
    return (squared.clamp(min=0) + NEAR).sqrt()


@calibration_loss(batchwise=True, search={"weight": (0.5, 8.0)}, tags=("penalty",))
def mmce(logits: Tensor, target: Tensor, *, weight: float = 2.0) -> Tensor:
    r"""Cross-entropy plus a kernel norm of the batch's calibration error, for logits (N, C) and target (N,); returns
    the batch's mean, a scalar.

    $$ \frac{1}{N} \sum_i -\log p_{i, y_i} + \lambda \sqrt{\frac{1}{N^2} \sum_{i, j} (a_i - c_i) (a_j - c_j)
    e^{-|c_i - c_j| / 0.4}} $$

    Lambda is weight, c the confidence, and a is 1 where the prediction is right. The norm is 0 in expectation just for
    calibrated predictions. The range is ours.

    Two things differ from the released code, which adds the double sum without the root and has lambda = 2 for the
    weighted form ``mmce_w``: here both forms have the root, so that the term is as large as a calibration error, and
    the same lambda.
    """
    confidence, right = confidence_and_right(logits, target)
    gap = (right - confidence) / len(target)
    return -target_log_softmax(logits, target).mean() + weight * norm(gap, confidence)


@calibration_loss(batchwise=True, search={"weight": (0.5, 8.0)}, tags=("penalty",))
def mmce_w(logits: Tensor, target: Tensor, *, weight: float = 2.0) -> Tensor:
    r"""As ``mmce`` with right and wrong predictions weighing the same together, for logits (N, C) and target (N,);
    returns the batch's mean, a scalar.

    $$ \frac{1}{N} \sum_i -\log p_{i, y_i} + \lambda \sqrt{\sum_{i, j} w_i w_j e^{-|c_i - c_j| / 0.4}}, \quad w_i =
    \frac{a_i (1 - c_i)}{n^2} - \frac{(1 - a_i) c_i}{m^2} $$

    n predictions of the batch are right and m wrong; without one of the two the second term is constant. The paper
    divides by n and m: the squares are those of the authors' code, whose means over pairs are divided by their number
    again. The range is ours.
    """
    confidence, right = confidence_and_right(logits, target)
    n, m = right.sum(), (1 - right).sum()
    share = right * (1 - confidence) / n.clamp(min=1) ** 2 - (1 - right) * confidence / m.clamp(min=1) ** 2
    both = ((n > 0) & (m > 0)).to(logits.dtype)
    return -target_log_softmax(logits, target).mean() + weight * norm(both * share, confidence)

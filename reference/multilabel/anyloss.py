"""AnyLoss (Han, Moniz & Chawla, KDD 2024, arXiv:2405.14745).

Metrics of a soft confusion matrix, here of each label over the batch, with the mean over labels. A label that no sample
of the batch has can only be judged by its absent ones, so large batches are meant.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reference.methods import Range, multilabel_loss

LEAST = 1e-5  # what the authors' code adds to denominators
SEARCH = {"amplifier": Range(1.0, 100.0, log=True)}


@dataclass(frozen=True)
class Confusion:
    """Soft counts over the batch: (L,) each."""

    tp: Tensor
    fn: Tensor
    fp: Tensor
    tn: Tensor

    @property
    def recall(self) -> Tensor:
        return self.tp / (self.tp + self.fn + LEAST)

    @property
    def specificity(self) -> Tensor:
        return self.tn / (self.tn + self.fp + LEAST)


def confusion(logits: Tensor, target: Tensor, amplifier: float) -> Confusion:
    """The confusion matrix of each label, of probabilities that a steep sigmoid drives towards 0 and 1."""
    a = torch.sigmoid(amplifier * (torch.sigmoid(logits) - 0.5))
    absent = 1 - target
    return Confusion((target * a).sum(-2), (target * (1 - a)).sum(-2), (absent * a).sum(-2), (absent * (1 - a)).sum(-2))


@multilabel_loss(search=SEARCH, batchwise=True)
def anyloss_accuracy(logits: Tensor, target: Tensor, *, amplifier: float = 73.0) -> Tensor:
    r"""One minus the soft accuracy, for logits (N, L) and target (N, L); returns a scalar.

    $$ 1 - \frac{1}{L} \sum_l \frac{TP_l + TN_l}{N}, \quad TP_l = \sum_i y_{il} A(p_{il}), \;
    A(p) = \frac{1}{1 + e^{-\lambda (p - 1/2)}} $$

    lambda is the amplifier; its default is recalled, not read in the paper. The authors' code has no accuracy loss;
    this one follows the paper's formula.
    """
    found = confusion(logits, target, amplifier)
    return 1 - (found.tp + found.tn).mean() / logits.shape[-2]


@multilabel_loss(search={**SEARCH, "beta": Range(0.5, 2.0, log=True)}, batchwise=True)
def anyloss_fbeta(logits: Tensor, target: Tensor, *, amplifier: float = 73.0, beta: float = 1.0) -> Tensor:
    r"""One minus the soft F-beta score, for logits (N, L) and target (N, L); returns a scalar.

    $$ 1 - \frac{1}{L} \sum_l \frac{(1 + \beta^2) TP_l}{(1 + \beta^2) TP_l + \beta^2 FN_l + FP_l} $$

    The counts are those of ``anyloss_accuracy``. A label that is absent from the whole batch scores 0 whatever is
    predicted, without a gradient.
    """
    found = confusion(logits, target, amplifier)
    hits = (1 + beta**2) * found.tp
    return 1 - (hits / (hits + beta**2 * found.fn + found.fp + LEAST)).mean()


@multilabel_loss(search=SEARCH, batchwise=True)
def anyloss_gmean(logits: Tensor, target: Tensor, *, amplifier: float = 73.0) -> Tensor:
    r"""One minus the soft geometric mean of recall and specificity, for logits (N, L) and target (N, L); returns a
    scalar.

    $$ 1 - \frac{1}{L} \sum_l \sqrt{\frac{TP_l}{TP_l + FN_l} \cdot \frac{TN_l}{TN_l + FP_l}} $$

    The counts are those of ``anyloss_accuracy``. The root is smoothed by 1e-5, so that its slope ends at 0.
    """
    found = confusion(logits, target, amplifier)
    return 1 - ((found.recall * found.specificity + LEAST**2).sqrt() - LEAST).mean()


@multilabel_loss(search=SEARCH, batchwise=True)
def anyloss_gmean_script(logits: Tensor, target: Tensor, *, amplifier: float = 73.0) -> Tensor:
    r"""One minus the product of soft recall and specificity, as in the authors' code, for logits (N, L) and target
    (N, L); returns a scalar.

    $$ 1 - \frac{1}{L} \sum_l \frac{TP_l}{TP_l + FN_l} \cdot \frac{TN_l}{TN_l + FP_l} $$

    ``anyloss_gmean`` without its root.
    """
    found = confusion(logits, target, amplifier)
    return 1 - (found.recall * found.specificity).mean()


@multilabel_loss(search=SEARCH, batchwise=True)
def anyloss_balanced(logits: Tensor, target: Tensor, *, amplifier: float = 73.0) -> Tensor:
    r"""One minus the soft balanced accuracy, for logits (N, L) and target (N, L); returns a scalar.

    $$ 1 - \frac{1}{2 L} \sum_l \left[ \frac{TP_l}{TP_l + FN_l} + \frac{TN_l}{TN_l + FP_l} \right] $$

    The counts are those of ``anyloss_accuracy``. Of a label that is absent from the whole batch the recall is 0.
    """
    found = confusion(logits, target, amplifier)
    return 1 - (found.recall + found.specificity).mean() / 2

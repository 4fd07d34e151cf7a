"""Entropy maximisation for single positive labels (Zhou et al., ECCV 2022, arXiv:2203.16219)."""

import torch
from torch import Tensor

from reference.methods import Memory, Range, multilabel_loss
from reference.sigmoid import negative_logs

ALPHA = Range(0.01, 0.5, log=True)


def soft(logits: Tensor, label: Tensor) -> Tensor:
    """The cross-entropy with a probability of being present, elementwise: (N, L)."""
    present, absent = negative_logs(logits)
    return label * present + (1 - label) * absent


def known_or_entropy(logits: Tensor, target: Tensor, observed: Tensor, alpha: float) -> Tensor:
    """The cross-entropy of known labels, minus alpha times the entropy of unknown ones: (N, L)."""
    return torch.where(observed > 0, soft(logits, target), -alpha * soft(logits, torch.sigmoid(logits)))


@multilabel_loss(search={"alpha": ALPHA}, tags=("single-positive",))
def em(logits: Tensor, target: Tensor, *, alpha: float = 0.1, observed: Tensor) -> Tensor:
    r"""Cross-entropy of the known labels, and the entropy of the unknown ones, maximised, for logits (N, L) and target
    (N, L); returns (N,).

    $$ -\frac{1}{L} \left[ \sum_{\text{known}} \log q_l + \alpha \sum_{\text{unknown}} H(p_l) \right], \quad
    H(p) = -p \log p - (1 - p) \log(1 - p) $$

    q is the probability of what is known. An unknown label moves towards p = 1/2, most where it is neither sure nor
    undecided. The default is the authors' for COCO and NUS-WIDE; they take 0.2 for VOC and 0.01 for CUB.
    """
    return known_or_entropy(logits, target, observed, alpha).mean(-1)


def newly_absent(logits: Tensor, free: Tensor, wanted: Tensor) -> Tensor:
    """True for the ``wanted`` (L,) lowest of the free labels of each column, and those tied with them: (N, L)."""
    scores = torch.where(free, logits, torch.inf)
    last = (wanted - 1).clamp(min=0).long()
    threshold = scores.sort(-2).values.gather(-2, last[..., None, :])
    return free & (scores <= threshold) & (wanted[..., None, :] > 0)


@multilabel_loss(
    search={"alpha": ALPHA, "beta": Range(0.02, 1.0, log=True)},
    state=Memory(0.0, per_class=True),
    tags=("single-positive",),
)
def em_apl(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 0.2,
    theta: float = 0.9,
    warmup: float = 0.4,
    observed: Tensor,
    state: Tensor,
    progress: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Entropy maximisation with asymmetric pseudo-labels: the lowest unknown labels become absent, softly, for logits
    (N, L) and target (N, L); returns (N,) and the pseudo-labels (N, L).

    $$ -\frac{1}{L} \left[ \sum_{\text{known}} \log q_l + \alpha \sum_{\text{unknown}} H(p_l)
    + \beta \sum_{\text{pseudo}} \tilde p_l \log p_l + (1 - \tilde p_l) \log(1 - p_l) \right] $$

    p~ is what a label's probability was when it was chosen. The memory holds -p~, or 0 for a label not chosen. From the
    share warmup of the training on, the share of a label's unknown entries that are chosen grows evenly, up to theta.
    The authors choose once after each epoch, among all training rows; here each batch chooses among its own, for their
    next visits. The defaults are the authors' for NUS-WIDE, with warmup 4 of 10 epochs; theta is 0.9 everywhere and
    warmup 3 to 5 epochs, so neither is tuned.
    """
    chosen = state < 0
    fixed = beta * soft(logits, -state)
    found = torch.where(chosen, fixed, known_or_entropy(logits, target, observed, alpha)).mean(-1)
    unknown = observed == 0
    share = theta * ((progress - warmup) / (1 - warmup)).clamp(min=0)
    wanted = (share * unknown.sum(-2)).floor() - chosen.sum(-2)
    new = newly_absent(logits.detach(), unknown & ~chosen, wanted)
    least = torch.finfo(logits.dtype).tiny
    return found, torch.where(new, -torch.sigmoid(logits.detach()).clamp(min=least), state)

"""Progressive self-knowledge distillation, PS-KD (Kim et al., ICCV 2021, arXiv:2006.12000)."""

from torch import Tensor

from reference.corrections.labels import Loss, against_all
from reference.methods import Memory, correction
from reference.softmax import pick, softmax


@correction(search={"distil": (0.1, 1.0)}, state=Memory(0.0, per_class=True))
def pskd(
    base: Loss, logits: Tensor, target: Tensor, *, distil: float = 0.8, state: Tensor, progress: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The loss against a label that gives way to the sample's previous prediction, for logits (N, C) and target (N,);
    returns (N,) and the predictions (N, C).

    $$ (1 - \alpha_t) \, \ell(z, y) + \alpha_t \sum_k p'_k \, \ell(z, k), \quad \alpha_t = \alpha_T \frac{t}{T} $$

    alpha_T is distil, t / T the progress of the training, and p' the prediction of the visit before, held constant. The
    memory holds it, 0 before the first visit: there the label keeps its whole weight. Around cross-entropy it is the
    cross-entropy with the target (1 - alpha_t) e_y + alpha_t p'. The default is the authors'.
    """
    losses = against_all(base, logits)
    weight = distil * progress
    values = (1 - weight * state.sum(-1)) * pick(losses, target) + weight * (state * losses).sum(-1)
    return values, softmax(logits.detach())

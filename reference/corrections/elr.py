"""Early-learning regularisation (Liu et al., NeurIPS 2020, arXiv:2007.00151)."""

from torch import Tensor

from reference.corrections.labels import Loss
from reference.methods import Memory, Range, correction
from reference.softmax import softmax


@correction(
    search={"pull": Range(1, 10, log=True), "keep": (0.5, 0.99)},
    state=Memory(0.0, per_class=True),
    tags=("noise-robust",),
)
def elr(
    base: Loss, logits: Tensor, target: Tensor, *, pull: float = 3.0, keep: float = 0.7, state: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The loss plus a term that holds the prediction to the mean of earlier ones, for logits (N, C) and target (N,);
    returns (N,) and the mean predictions (N, C).

    $$ \ell(z, y) + \lambda \log(1 - \langle p, t \rangle), \quad t \leftarrow \beta t + (1 - \beta) p $$

    lambda is pull, beta is keep. The memory holds t, 0 at the start; a visit first moves it, without gradient, towards
    the prediction, clamped at 1e-4 and normalised, so that the logarithm stays finite. Labels that the network, as it
    learns the clean ones first, contradicts lose their gradient before it memorises them. The defaults are the authors'
    for CIFAR-10 with uniform noise; they use (1, 0.9) for asymmetric noise and (7, 0.9) for CIFAR-100.
    """
    p = softmax(logits)
    clamped = p.detach().clamp(1e-4, 1 - 1e-4)
    mean = keep * state + (1 - keep) * clamped / clamped.sum(-1, keepdim=True)
    apart = (p * (1 - mean)).sum(-1)  # 1 - <p, t>, without cancellation
    return base(logits, target) + pull * apart.log(), mean

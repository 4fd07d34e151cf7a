"""Label smoothing (Szegedy et al., CVPR 2016, arXiv:1512.00567), section 7."""

from torch import Tensor

from reference.corrections.labels import Loss, against_all
from reference.methods import correction
from reference.softmax import pick


@correction(search={"softening": (0.05, 0.8)})
def ls(base: Loss, logits: Tensor, target: Tensor, *, softening: float = 0.1) -> Tensor:
    r"""The loss against a label mixed with the uniform distribution, for logits (N, C) and target (N,); returns (N,).

    $$ (1 - s) \, \ell(z, y) + \frac{s}{C} \sum_k \ell(z, k) $$

    s is the softening. Around cross-entropy it is the cross-entropy with the target (1 - s) e_y + s/C. A symmetric loss
    it only scales by 1 - s and shifts. The range reaches far above the default because uniform label noise is itself a
    smoothing of the labels.
    """
    losses = against_all(base, logits)
    return (1 - softening) * pick(losses, target) + softening * losses.mean(-1)

"""Logit clipping, LogitClip (Wei et al., ICML 2023, arXiv:2212.04055)."""

from torch import Tensor

from reference.corrections.labels import Loss
from reference.methods import Range, correction


@correction(search={"limit": Range(0.5, 10, log=True)}, bounded=True, tags=("noise-robust",))
def logitclip(base: Loss, logits: Tensor, target: Tensor, *, limit: float = 1.5) -> Tensor:
    r"""The loss of logits whose norm is clipped, for logits (N, C) and target (N,); returns (N,).

    $$ \ell\Big( \min\Big(1, \frac{\tau}{\| z \|_2}\Big) z, \; y \Big) $$

    tau is the limit. Any loss that is continuous in the logits becomes bounded; a sample with long logits still turns
    them, but no longer makes them longer. The default is the limit in the example of the authors' code, which scales
    longer logits to 1 / tau instead.
    """
    square = logits.square().sum(-1, keepdim=True)
    return base(logits * (limit / square.clamp(min=limit**2).sqrt()), target)

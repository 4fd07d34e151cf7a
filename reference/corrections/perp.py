"""Orthogonal gradients, perp-Grad (Prieto et al., ICLR 2025, arXiv:2501.04697)."""

from torch import Tensor

from reference.methods import correction


@correction(at="gradients")
def perp(weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    r"""The part of the gradient that is orthogonal to the weights, at the gradient's length, for weights and gradients,
    a tensor for each parameter of the network; returns such a list.

    $$ \frac{\| g \|}{\| g_\perp \|} \, g_\perp, \quad
    g_\perp = g - \frac{\langle w, g \rangle}{\langle w, w \rangle} w $$

    Each parameter tensor by itself. The weights then do not grow just to scale the logits up, which lowers the loss of
    samples that are fitted already. Where almost nothing of the gradient is orthogonal it is lengthened a
    thousandfold at most, so that rounding errors do not become steps.
    """
    return [_orthogonal(w, g) for w, g in zip(weights, gradients, strict=True)]


def _orthogonal(w: Tensor, g: Tensor) -> Tensor:
    rest = g - (w * g).sum() / ((w * w).sum() + 1e-30) * w
    length, left = (t.square().sum().sqrt() for t in (g, rest))
    return length / (left + 1e-30).clamp(min=1e-3 * length) * rest

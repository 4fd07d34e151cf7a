"""The loss of a row from its logits a (V,), and its gradient, for implementations that see a part of the logits.

    value = L - (1 - e) a_y - e mean(a) + z L^2          L = log sum exp a
    d value / d a_j = (1 + 2 z L) p_j - (1 - e) [j = y] - e / V

e is the label smoothing, z the z-loss. The logits are capped, a = c tanh(r / c) of the raw r, and d a / d r is
1 - (a / c)^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.logits import scaled_exp_
from kernels.products import by_onednn, product
from kernels.registry import Unsupported


@dataclass(frozen=True)
class Terms:
    """What is added to cross-entropy, and what is done to the logits."""

    softcap: float | None
    label_smoothing: float
    z_loss: float

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, room: Tensor) -> Tensor:
        """The logits (N, V), capped, in ``room``'s dtype, and in its first places unless the product has its own."""
        found = room[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        if by_onednn(hidden, weight.T):
            found = product(hidden, weight.T)
        elif room.dtype is hidden.dtype:
            torch.mm(hidden, weight.T, out=found)
        else:
            found.copy_(hidden @ weight.T)
        if bias is not None:
            found += bias
        return found if self.softcap is None else found.div_(self.softcap).tanh_().mul_(self.softcap)

    def values(self, lse: Tensor, own: Tensor, mean: Tensor | None) -> Tensor:
        """The losses (N,) from log-sum-exps, the targets' logits and (with label smoothing) the mean logits."""
        found = lse - own
        if self.label_smoothing and mean is not None:
            found = found + self.label_smoothing * (own - mean)
        return found + self.z_loss * lse**2 if self.z_loss else found

    def of_p(self, lse: Tensor, upstream: Tensor, upstream_lse: Tensor | None) -> Tensor:
        """What the probabilities are multiplied by in the gradient, (N,) float64."""
        found = upstream.double() * (1 + 2 * self.z_loss * lse) if self.z_loss else upstream.double()
        return found if upstream_lse is None else found + upstream_lse.double()

    def slope(self, capped: Tensor) -> Tensor:
        """d capped / d raw; only with a cap."""
        assert self.softcap is not None
        return 1 - (capped / self.softcap) ** 2

    def gradient_(
        self,
        logits: Tensor,
        target: Tensor,
        lse: Tensor,
        upstream: Tensor,
        upstream_lse: Tensor | None = None,
        classes: int | None = None,
    ) -> Tensor:
        """Turn capped logits (N, B) into the gradient by the raw ones, in place.

        lse (N,) is float64, upstream (N,) the gradients of the values and log-sum-exps. The target (N,) counts the
        block's columns from 0; another number is in another block. The uniform part of label smoothing is left out
        (:func:`subtract_uniform_`) unless the number of classes is given.
        """
        slope = None if self.softcap is None else self.slope(logits)
        scaled_exp_(logits, lse, self.of_p(lse, upstream, upstream_lse))
        if self.label_smoothing and classes:
            logits.sub_((upstream * (self.label_smoothing / classes)).to(logits.dtype)[:, None])
        here = ((target >= 0) & (target < logits.shape[1])).nonzero().squeeze(1)
        logits[here, target[here]] += (self.label_smoothing - 1) * upstream[here].to(logits.dtype)
        return logits if slope is None else logits.mul_(slope)


def subtract_uniform_(
    upstream: Tensor,
    hidden: Tensor,
    weight: Tensor,
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
) -> None:
    """Label smoothing's e / V of every class, in ``upstream`` (N,) times the row's: products of two vectors."""
    if d_hidden is not None:
        d_hidden.sub_((upstream[:, None] * weight.sum(0).to(upstream.dtype)).to(d_hidden.dtype))
    if d_weight is not None:
        d_weight.sub_((upstream @ hidden.to(upstream.dtype)).to(d_weight.dtype))
    if d_bias is not None:
        d_bias.sub_(upstream.sum().to(d_bias.dtype))


def filterable(terms: Terms, eps: float) -> None:
    """Refuse what cannot be done where small gradients are left out.

    Raises:
        Unsupported: label smoothing under a cap gives every class a small gradient of its own.
    """
    if eps and terms.softcap is not None and terms.label_smoothing:
        raise Unsupported("label smoothing with a softcap leaves no small gradients out: use eps=0, or 'chunked'")


def room(rows: int, classes: int, like: Tensor) -> Tensor:
    """Memory for logits, float64 for float64 and else float32: made once, since a new piece each time fragments."""
    kind = torch.float64 if like.dtype is torch.float64 else torch.float32
    return torch.empty(rows * classes, dtype=kind, device=like.device)


def own_logits(logits: Tensor, target: Tensor) -> Tensor:
    """The targets' logits, (N,)."""
    return logits.gather(1, target[:, None]).squeeze(1)

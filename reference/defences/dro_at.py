"""Doubly robust instance-reweighted adversarial training (Sow et al., ICLR 2024, arXiv:2308.00311)."""

from collections.abc import Callable

import torch
from torch import Tensor

from reference.defences.inner import loudest
from reference.methods import Range, defence


@defence(search={"temperature": Range(0.1, 10, log=True)}, inner=loudest)
def dro_at(
    target: Tensor,
    *,
    adversarial: Tensor,
    base: Callable[[Tensor, Tensor], Tensor],
    temperature: float = 1.0,
) -> Tensor:
    r"""Adversarial training on the worst weights of the samples that are not too uneven, for target (N,); returns (N,).

    $$ N p_i \, \ell(f(x_i'), y_i), \quad p = \arg\max_p \sum_i p_i \ell_i - r \sum_i p_i \log(N p_i)
    = \mathrm{softmax}(\ell / r) $$

    r is temperature: towards infinity this is adversarial training, towards 0 only the worst sample of the batch
    counts. The weights are those of the batch and carry no gradient, which is then that of r log mean exp(l / r). The
    default is unverified, as is the number of the paper; the authors solve a bilevel problem with a barrier for the
    ball, of which this is the simple form.
    """
    values = base(adversarial, target)
    weight = len(values) * torch.softmax(values.detach() / temperature, 0)
    return weight * values

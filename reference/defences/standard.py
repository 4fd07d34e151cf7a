"""Empirical risk minimisation, without any adversary (Vapnik, NeurIPS 1991)."""

from collections.abc import Callable

from torch import Tensor

from reference.methods import defence


@defence()
def standard(target: Tensor, *, clean: Tensor, base: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    r"""The loss for the inputs as they are, for target (N,); returns (N,).

    $$ \ell(f(x), y) $$

    What every defence is measured against: the most accurate where nobody attacks, and as a rule without any
    robustness.
    """
    return base(clean, target)

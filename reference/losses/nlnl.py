"""Negative learning for noisy labels (Kim et al., ICCV 2019, arXiv:1908.07387)."""

import torch
from torch import Tensor

from reference.methods import loss
from reference.softmax import target_log_softmax

LEAST = 1e-5  # where 1 - p is clipped, as in the code of Ma et al. (ICML 2020)


@loss(bounded=True, draws=1, tags=("noise-robust",))
def nlnl(logits: Tensor, target: Tensor, *, draws: Tensor) -> Tensor:
    r"""Minus the log-probability of not being another class, drawn at each visit, for logits (N, C) and target (N,);
    returns (N,).

    $$ -\log \max(1 - p_{\bar y}, \; 10^{-5}), \quad \bar y \sim \mathrm{Uniform}\{k \neq y\} $$

    "The input is not of class k" is true far more often than a noisy label is. Bounded, and without gradient where the
    clip holds. This is negative learning alone, with one complementary label at each visit; the authors' selective and
    positive stages after it, and the class weights of Ma et al. (ICML 2020), who take 1 such label for 10 classes and
    110 for 100, are left out. With many classes a visit says little, so it is slow to learn.
    """
    others = logits.shape[-1] - 1
    step = (draws[..., 0] * others).long().clamp(max=others - 1)  # the product may round up to others
    other = (target + 1 + step) % (others + 1)
    return -(-torch.expm1(target_log_softmax(logits, other))).clamp(min=LEAST).log()

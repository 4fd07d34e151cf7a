"""Asymmetric loss (Ben-Baruch et al., ICCV 2021, arXiv:2009.14119)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from reference.methods import Memory, multilabel_loss

LEAST = 1e-8  # where the released code clips probabilities inside logarithms
GAMMAS = {"gamma_neg": (0.0, 6.0), "gamma_pos": (0.0, 2.0), "margin": (0.0, 0.2)}


def asymmetric(
    logits: Tensor, target: Tensor, gamma_neg: float | Tensor, gamma_pos: float | Tensor, margin: float | Tensor
) -> Tensor:
    """The asymmetric loss of every label, with its full gradient: (N, L)."""
    log_p, log_miss = logsigmoid(logits), logsigmoid(-logits)
    positive = torch.exp(gamma_pos * log_miss) * log_p
    shift = torch.as_tensor(margin, dtype=logits.dtype, device=logits.device).log()  # -inf without a margin
    log_miss = torch.logaddexp(log_miss, shift).clamp(max=0)  # of 1 - max(p - margin, 0)
    # At p <= margin a power of 0 would have an infinite slope; tiny makes it finite, times log 1 = 0.
    shifted = torch.finfo(logits.dtype).tiny - torch.expm1(log_miss)
    return -torch.where(target > 0, positive, torch.exp(gamma_neg * shifted.log()) * log_miss)


@multilabel_loss(search=GAMMAS)
def asl(
    logits: Tensor, target: Tensor, *, gamma_neg: float = 4.0, gamma_pos: float = 0.0, margin: float = 0.05
) -> Tensor:
    r"""Cross-entropy that fades for easy absent labels and is zero for the easiest, for logits (N, L) and target (N,
    L); returns (N,).

    $$ -\frac{1}{L} \sum_l \left[ y_l (1 - p_l)^{\gamma_+} \log p_l + (1 - y_l) (p^m_l)^{\gamma_-} \log(1 - p^m_l)
    \right], \quad p^m_l = \max(p_l - m, 0) $$

    Zero gammas and margin m are binary cross-entropy, equal gammas without a margin the focal loss. An absent label
    with p <= m has neither loss nor gradient. The gradient is that of the formula and the mean is over labels; the
    defaults are those of the authors' training script, whose own form is ``asl_script``.
    """
    return asymmetric(logits, target, gamma_neg, gamma_pos, margin).mean(-1)


@multilabel_loss(search=GAMMAS, batchwise=True, tags=("stop-gradient",))
def asl_script(
    logits: Tensor, target: Tensor, *, gamma_neg: float = 4.0, gamma_pos: float = 0.0, margin: float = 0.05
) -> Tensor:
    r"""The asymmetric loss as the authors' training script has it, summed over samples and labels, for logits (N, L)
    and target (N, L); returns a scalar.

    $$ -\sum_{i,l} w_{il} \left[ y_{il} \log p_{il} + (1 - y_{il}) \log(1 - p^m_{il}) \right], \quad
    w_{il} = y_{il} (1 - p_{il})^{\gamma_+} + (1 - y_{il}) (p^m_{il})^{\gamma_-} $$

    The weights w are held constant in the gradient, and logarithms end at 1e-8. The sum is over everything, not a mean:
    a learning rate means N L times what it does elsewhere.
    """
    p, shifted = torch.sigmoid(logits), (torch.sigmoid(-logits) + margin).clamp(max=1)
    right = torch.where(target > 0, p, shifted)
    gamma = gamma_pos * target + gamma_neg * (1 - target)
    weight = (1 - right.detach()) ** gamma
    return -(weight * right.clamp(min=LEAST).log()).sum()


@multilabel_loss(search={"gap": (-0.2, 0.5), "gamma_pos": (0.0, 2.0), "margin": (0.0, 0.2)}, state=Memory(0.0))
def asl_adaptive(
    logits: Tensor,
    target: Tensor,
    *,
    gap: float = 0.1,
    rate: float = 1.0,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    margin: float = 0.05,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""The asymmetric loss whose focusing of absent labels follows the gap of mean probabilities, for logits (N, L) and
    target (N, L); returns (N,) and the changes of gamma (N,).

    $$ \gamma_- \leftarrow \max \left( 0, \gamma_- + \lambda (\Delta_0 - \Delta) \right), \quad
    \Delta = \overline{p \mid y = 1} - \overline{1 - p \mid y = 0} $$

    Delta says how much surer the present labels of a batch are than its absent ones, Delta_0 (gap) what it should be,
    lambda is the rate. A greater gamma lets absent labels go, which raises Delta; so the step is towards the wanted
    gap. The formula as it is printed has the other sign, which runs away from it. A batch without present or without
    absent labels changes nothing. The authors keep one gamma for all and change it at every step; here each sample
    keeps its own, changed at its visits, so that a rate is one of epochs. gamma begins at gamma_neg; neither it nor the
    rate is tuned, and rate and gap are our choice.
    """
    gamma = (gamma_neg + state).clamp(min=0)
    found = asymmetric(logits, target, gamma[..., None], gamma_pos, margin).mean(-1)
    p, present, absent = torch.sigmoid(logits.detach()), target.sum(), (1 - target).sum()
    sure = (target * p).sum() / present.clamp(min=1)
    free = ((1 - target) * (1 - p)).sum() / absent.clamp(min=1)
    step = rate * (gap - (sure - free)) * (present * absent > 0)
    return found, (gamma + step).clamp(min=0) - gamma_neg

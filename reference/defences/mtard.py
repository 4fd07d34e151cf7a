"""Multi-teacher adversarial robustness distillation (Zhao, Wang & Wei, TPAMI 2024, arXiv:2306.16170)."""

import torch
from torch import Tensor

from reference.defences.inner import loudest_nearby
from reference.methods import defence
from reference.softmax import log_softmax

DROPS = (215 / 300, 260 / 300, 285 / 300)  # shares of the training after each of which the authors divide rates by ten
TINY = 1e-12  # a divergence that is 0 is taken for this
COLDEST, HOTTEST = 0.1, 10.0  # bounds of a teacher's temperature
# what it carries: the clean loss's weight, both losses at the first step (0: not yet seen), both log temperatures
CARRIED = (0.5, 0.0, 0.0, 0.0, 0.0)


def _entropy(log_p: Tensor) -> Tensor:
    """The mean entropy of log-probabilities (N, C), 0-d."""
    return -(log_p.exp() * log_p).sum(-1).mean()


def _taught(student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence (N,) of the student's logits (N, C) from the teacher's log-probabilities, a mean over classes."""
    return (teacher.exp() * (teacher - log_softmax(student))).mean(-1)


@defence(inner=loudest_nearby, teachers=("standard", "at"), carried=CARRIED)
def mtard(
    target: Tensor,
    *,
    clean: Tensor,
    adversarial: Tensor,
    accurate: Tensor,
    robust: Tensor,
    carried: Tensor,
    progress: Tensor,
    pace: float = 0.025,
    power: float = 1.0,
    entropy_pace: float = 0.001,
) -> tuple[Tensor, Tensor]:
    r"""The predictions of an accurate teacher for clean inputs and of a robust one for adversarial inputs, for target
    (N,); returns (N,) and what is carried (5,).

    $$ w \, \mathrm{KL}(T_n(x) \,\|\, p(x)) + (1 - w) \, \mathrm{KL}(T_a(x') \,\|\, p(x')), \quad
    w \leftarrow w - \eta \Big(w - \frac{r_n}{r_n + r_a}\Big) $$

    r are the two divergences over what they were at the first step, to the power; so the weight w goes to the one that
    has fallen less. eta is pace, a tenth of it after 215, 260 and 285 of the authors' 300 epochs. Labels serve the
    adversary alone. The entropy balance moves the logarithms of the teachers' temperatures, by entropy_pace each step,
    to where their predictions are equally uncertain; its form and pace are unverified, and the authors' published code
    is without it (entropy_pace = 0). None is tuned: they are the authors' for every data set.
    """
    weight, first_n, first_a, heat_n, heat_a = carried
    teacher_n, teacher_a = log_softmax(accurate / heat_n.exp()), log_softmax(robust / heat_a.exp())
    values_n, values_a = _taught(clean, teacher_n), _taught(adversarial, teacher_a)
    now_n, now_a = (values.detach().mean().clamp(min=TINY) for values in (values_n, values_a))
    first_n, first_a = (torch.where(first > 0, first, now) for first, now in ((first_n, now_n), (first_a, now_a)))
    ratio_n, ratio_a = ((now / first) ** power for now, first in ((now_n, first_n), (now_a, first_a)))
    drop = 0.1 ** sum((progress >= share).to(weight.dtype) for share in DROPS)
    weight = weight - pace * drop * (weight - ratio_n / (ratio_n + ratio_a))
    uneven = torch.sign(_entropy(teacher_n) - _entropy(teacher_a))
    low, high = torch.tensor(COLDEST).log(), torch.tensor(HOTTEST).log()
    heats = [(heat - by * entropy_pace * drop * uneven).clamp(low, high) for heat, by in ((heat_n, 1), (heat_a, -1))]
    values = weight * values_n + (1 - weight) * values_a
    return values, torch.stack([weight, first_n, first_a, *heats]).detach()

"""Weighted binary cross-entropy (King & Zeng, Political Analysis 2001)."""

from torch import Tensor

from reference.methods import multilabel_loss
from reference.sigmoid import target_log_sigmoid


@multilabel_loss(search={"share": (0.1, 0.9)})
def wbce(logits: Tensor, target: Tensor, *, share: float = 0.5, counts: Tensor, rows: Tensor) -> Tensor:
    r"""Binary cross-entropy as if each label held for a given share of the rows, for logits (N, L) and target (N, L);
    returns (N,).

    $$ -\frac{1}{L} \sum_l \left[ \frac{\tau}{n_l / N} \, y_l \log p_l + \frac{1 - \tau}{1 - n_l / N} \, (1 - y_l)
    \log(1 - p_l) \right] $$

    n of the N training rows have the label; tau is the share. The authors weight a sample of rare events back to the
    share that they have in the population; here the share is chosen, one half by default, which gives both sides of
    every label the same total weight. Labels that no row or every row has count as if one row were otherwise.
    """
    positives, negatives = counts.clamp(min=1), (rows - counts).clamp(min=1)
    weight = rows * (target * (share / positives) + (1 - target) * ((1 - share) / negatives))
    return -(weight * target_log_sigmoid(logits, target)).mean(-1)

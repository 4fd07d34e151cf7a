"""Expected positive regularisation (Cole et al., CVPR 2021, arXiv:2106.09708)."""

from torch import Tensor

from reference.methods import Range, multilabel_loss
from reference.sigmoid import negative_logs


def excess(p: Tensor, cardinality: Tensor) -> Tensor:
    """How many labels more than it should a sample of the batch is expected to have, as a share of L: 0-d."""
    return (p.sum(-1).mean() - cardinality) / p.shape[-1]


@multilabel_loss(search={"weight": Range(0.1, 10.0, log=True)}, batchwise=True, tags=("single-positive",))
def epr(logits: Tensor, target: Tensor, *, weight: float = 1.0, observed: Tensor, cardinality: Tensor) -> Tensor:
    r"""Cross-entropy of the present labels, and the right number of labels in the batch, for logits (N, L) and target
    (N, L); returns a scalar.

    $$ -\frac{1}{N L} \sum_{il} y_{il} \log p_{il} + \lambda \left( \frac{\frac{1}{N} \sum_{il} p_{il} - k}{L}
    \right)^2 $$

    k is the mean number of labels that samples truly have, which the loss is told; lambda is the weight, 1 in the
    authors' code. Unknown labels count in the number alone. Labels known to be absent, which the authors do not have,
    add their cross-entropy.
    """
    present, absent = negative_logs(logits)
    known = target * present + observed * (1 - target) * absent
    return known.mean() + weight * excess(logits.sigmoid(), cardinality) ** 2

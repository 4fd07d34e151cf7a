"""CrossMax (Fort & Lakshminarayanan 2024, arXiv:2408.05446)."""

from torch import Tensor

from reference.methods import ensemble


@ensemble(of=("at", "trades", "mart"))
def crossmax(members: Tensor) -> Tensor:
    r"""The median of several networks' logits, none of which can outvote the others, for members (K, N, C); returns
    (N, C).

    $$ \mathrm{median}_m \left(\hat{z}_{mk} - \max_{m'} \hat{z}_{m'k}\right), \quad
    \hat{z}_{mk} = z_{mk} - \max_{k'} z_{mk'} $$

    Of each network its largest logit is subtracted, then of each class its largest over the networks. An attacker has
    to move more than half of them. The authors combine heads on the layers of one backbone that sees several
    resolutions; here the members are networks of their own. What they report is known to be sensitive to attacks that
    are adapted to it: the attacks here go through the combination.
    """
    z = members - members.amax(2, keepdim=True)
    z = z - z.amax(0, keepdim=True)
    ordered = z.sort(0).values
    middle = (len(members) - 1) // 2
    return (ordered[middle] + ordered[len(members) // 2]) / 2

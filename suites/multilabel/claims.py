"""What papers claim of multi-label and long-tail losses, for the records to judge. Statements are in our words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossboard.claims import GAINS_MORE, Claim, Comparison, On
from suites.multilabel.density import DENSITY


@dataclass(frozen=True)
class Seen(On):
    """Tasks of which so much of the labels is seen, or whose classes are so uneven, as it is told."""

    told: str = ""

    @property
    def words(self) -> str:
        return self.told


FEW = 1 / 6  # of the entries of a set whose rows have few of its labels
SPARSE_SETS = tuple(name for name, share in DENSITY.items() if share < FEW)
DENSE_SETS = tuple(name for name, share in DENSITY.items() if share >= FEW)
MANY_LABELS = 100

FULL = Seen(("everything",), told="all labels seen")
MANY = Seen(("everything",), classes=MANY_LABELS, told=f"all labels seen, at least {MANY_LABELS} of them")
SPARSE = Seen(("everything",), datasets=SPARSE_SETS, told="all labels seen, of which a row has less than a sixth")
DENSE = Seen(("everything",), datasets=DENSE_SETS, told="all labels seen, of which a row has more")
ONE_POSITIVE = Seen(("single_positive",), told="one positive label of each row seen")
HIDDEN = Seen(("random_entries",), told="entries hidden at random")
TAIL = Seen(("long_tail",), most=0.5, told="classes cut to a long tail")
STEEP = Seen(("long_tail",), most=0.03, told="classes cut to a long tail, the smallest at most 3 % of the largest")

ASL = "Asymmetric loss (Ben-Baruch et al., ICCV 2021, arXiv:2009.14119)"
MACRO_AUC = "Surrogates of macro-AUC (Wu, Li & Yin, ICML 2023, arXiv:2305.05248)"
SPML = "Single positive labels (Cole et al., CVPR 2021, arXiv:2106.09708)"
EM = "Acknowledging the unknown (Zhou et al., ECCV 2022, arXiv:2203.16219)"
DSM = "Decoupled softmax (Gupta et al., ICLR 2024, arXiv:2310.10636)"


def better(
    ours: Sequence[str], than: Sequence[str], on: On, *, asks: str = "better", metric: str = "", smaller: bool = False
) -> tuple[Comparison, ...]:
    """Each of ours beside each of the others."""
    return tuple(Comparison(a, b, on, asks, metric, smaller) for a in ours for b in than)


CLAIMS = (
    Claim(
        "asl-over-bce",
        "The asymmetric loss has a higher mean average precision than binary cross-entropy.",
        ASL,
        "recalled",
        better(["asl"], ["bce"], FULL),
        "The paper's evidence is on images with large networks; its code's sum over everything is asl_script.",
    ),
    Claim(
        "asl-over-focal",
        "The asymmetric loss has a higher mean average precision than the focal loss.",
        ASL,
        "recalled",
        better(["asl"], ["mlfocal"], FULL),
    ),
    Claim(
        "asl-recall",
        "The asymmetric loss keeps the gradient of rare positives: at a threshold of 1/2 it has a higher recall, mean "
        "over labels, than binary cross-entropy.",
        ASL,
        "derived",
        better(["asl"], ["bce"], FULL, metric="fixed_cr"),
    ),
    Claim(
        "univariate-imbalance",
        "The univariate surrogate is more sensitive to imbalance: where a row has few of the labels, the pairwise and "
        "the reweighted one are further ahead of it in macro-AUC than where a row has many.",
        MACRO_AUC,
        "abstract",
        tuple(
            Comparison(ours, "auc_u1", SPARSE, GAINS_MORE, "macro_auc", beyond=DENSE) for ours in ("auc_pa", "auc_u2")
        ),
        "The paper proves it of bounds on the generalisation error. Here it is the difference of two gains, on sets "
        "that differ in more than their imbalance.",
    ),
    Claim(
        "reweighted-like-pairwise",
        "The reweighted univariate surrogate, which needs no pairs, is not worse in macro-AUC than the pairwise one.",
        MACRO_AUC,
        "abstract",
        better(["auc_u2"], ["auc_pa"], FULL, asks="not worse", metric="macro_auc"),
    ),
    Claim(
        "em-over-an",
        "With one positive label of each row, maximising the entropy of unknown labels beats assuming that they are "
        "absent.",
        EM,
        "secondary",
        better(["em"], ["an"], ONE_POSITIVE),
    ),
    Claim(
        "apl-over-em",
        "Asymmetric pseudo-labels add to entropy maximisation.",
        EM,
        "secondary",
        better(["em_apl"], ["em"], ONE_POSITIVE),
        "The differences that were published are below half a point, and choosing a trial by labels that are seen in "
        "part costs more.",
    ),
    Claim(
        "role-over-an",
        "With one positive label of each row, estimating the labels together with the network beats assuming that "
        "unknown ones are absent.",
        SPML,
        "recalled",
        better(["role"], ["an"], ONE_POSITIVE),
        "As in the paper, `role` is told how many labels rows truly have in the mean, and `an` is not.",
    ),
    Claim(
        "smoothing-single-positive",
        "With one positive label of each row, label smoothing improves on assuming that unknown ones are absent.",
        SPML,
        "recalled",
        better(["an_ls"], ["an"], ONE_POSITIVE),
    ),
    Claim(
        "ignore-unknown",
        "Where entries are hidden at random, leaving them out of the loss beats taking them for absent.",
        SPML,
        "derived",
        better(["iu"], ["an"], HIDDEN),
        "Leaving out what is hidden at random changes no minimum; taking it for absent lowers every probability.",
    ),
    Claim(
        "dsm-over-softmax",
        "Where there are very many labels, decoupled softmax, in which those of a row do not compete with each other, "
        "has a higher precision at 5 than softmax.",
        DSM,
        "abstract",
        better(["dsm"], ["pal_n"], MANY, metric="p5"),
        "The paper has thousands of labels and more; here there are 159 to 983. Sets of which rows have fewer than 5 "
        "labels count too.",
    ),
    Claim(
        "logit-adjustment-tail",
        "Logit adjustment beats cross-entropy on classes with a long tail, in the mean recall of the classes.",
        "Logit adjustment (Menon et al., ICLR 2021, arXiv:2007.07314)",
        "abstract",
        better(["logit_adjusted"], ["ce"], TAIL),
    ),
    Claim(
        "ldam-tail",
        "Margins that are larger for smaller classes, with deferred re-weighting, beat cross-entropy on a steep tail.",
        "Label-distribution-aware margins (Cao et al., NeurIPS 2019, arXiv:1906.07413)",
        "abstract",
        better(["ldam_drw"], ["ce"], STEEP),
        "The authors normalise features and weights, of which logits are 30 cosines; here a plain network is given, "
        "whose step a scale of 30 multiplies: the default trial says little, the tuned one counts.",
    ),
    Claim(
        "class-balanced-tail",
        "Weighting by the effective number of samples improves cross-entropy and the focal loss on a long tail.",
        "Class-balanced loss (Cui et al., CVPR 2019, arXiv:1901.05555)",
        "abstract",
        (*better(["cb"], ["ce"], TAIL), *better(["cb_focal"], ["focal"], TAIL)),
    ),
)

"""What papers claim of multi-label and long-tail losses, for the records to judge. Statements are in our words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossboard.claims import Claim, Comparison, On


@dataclass(frozen=True)
class Seen(On):
    """Tasks of which so much of the labels is seen, or whose classes are so uneven, as it is told."""

    told: str = ""

    @property
    def words(self) -> str:
        return self.told


FEW_POSITIVES = ("birds", "enron", "medical", "genbase", "bibtex", "corel5k", "delicious", "cal500")  # below a sixth

FULL = Seen(("everything",), told="all labels seen")
IMBALANCED = Seen(("everything",), datasets=FEW_POSITIVES, told="all labels seen, of which a row has few")
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
        "Where a row has few labels, the pairwise and the reweighted surrogate have a higher macro-AUC than the "
        "univariate one.",
        MACRO_AUC,
        "abstract",
        better(["auc_pa", "auc_u2"], ["auc_u1"], IMBALANCED, metric="macro_auc"),
        "The paper proves that the univariate one is more sensitive to imbalance; this is what remains of it on the "
        "data at hand, where one that is worse everywhere would pass too.",
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
        "Decoupled softmax, in which the labels of a row do not compete with each other, has a higher precision at 5 "
        "than softmax.",
        DSM,
        "abstract",
        better(["dsm"], ["pal_n"], FULL, metric="p5"),
        "Sets of which rows have fewer than 5 labels count too.",
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

"""What papers claim of losses under label noise, for the records to judge. Statements are in our words."""

from __future__ import annotations

from collections.abc import Sequence

from lossboard.claims import CLASS_DEPENDENT, CLEAN, UNIFORM, Claim, Comparison, On

CLEAN_LABELS = On((CLEAN,))
MANY_CLASSES = On((CLEAN,), classes=20)
NOISE = On()
UNIFORM_NOISE = On(UNIFORM)
HIGH_NOISE = On(UNIFORM, least=0.6)
CLASS_NOISE = On(CLASS_DEPENDENT)

LDR = "Label-distributionally robust losses (Zhu, Ying & Yang, ICML 2023, arXiv:2112.14869)"
APL = "Normalized loss functions (Ma et al., ICML 2020, arXiv:2006.13554)"
SYMMETRIC = "Robust loss functions under label noise (Ghosh, Kumar & Sastry, AAAI 2017, arXiv:1712.09482)"
COMP = "Comp-sum losses (Mao, Mohri & Zhong, ICML 2023, arXiv:2304.07288)"
SQUENTROPY = "Squentropy (Hui, Belkin & Wright, ICML 2023, arXiv:2302.03952)"
GCE = "Generalized cross-entropy (Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836)"

RIVALS = ("ce", "cs", "ww", "gce", "tgce", "rll_ldr", "mae", "mse", "sce_ldr", "js", "nce_rce", "nce_agce", "nce_aul")
PAIRS = ("nce_mae", "nce_rce", "nfl_mae", "nfl_rce")


def better(
    ours: Sequence[str], than: Sequence[str], on: On, *, asks: str = "better", metric: str = "", smaller: bool = False
) -> tuple[Comparison, ...]:
    """Each of ours beside each of the others."""
    return tuple(Comparison(a, b, on, asks, metric, smaller) for a in ours for b in than if a != b)


CLAIMS = (
    Claim(
        "aldr-competitive",
        "ALDR-KL is competitive under noise with the 13 losses that it was compared with.",
        LDR,
        "abstract",
        better(["aldr"], RIVALS, NOISE, asks="not worse"),
        "Competitive is read here as: worse than none of them by more than half a point. The paper judges by average "
        "ranks over its data sets, clean labels among them.",
    ),
    Claim(
        "aldr-stable",
        "ALDR-KL is stable: from clean to noisy labels it loses less accuracy than cross-entropy, and under noise it "
        "is not less accurate.",
        LDR,
        "abstract",
        (*better(["aldr"], ["ce"], NOISE, asks="loses less"), *better(["aldr"], ["ce"], NOISE, asks="not worse")),
    ),
    Claim(
        "ldr-topk",
        "LDR-KL is consistent for the k most probable classes at every k: under noise its top-5 accuracy is not below "
        "that of cross-entropy.",
        LDR,
        "abstract",
        better(["ldr"], ["ce"], On(classes=7), asks="not worse", metric="top5"),
        "Consistency is a statement about infinitely much data; this is what remains of it on the data at hand.",
    ),
    Claim(
        "normalized-robust",
        "Any loss becomes robust by being normalized: from clean to uniformly noisy labels normalized cross-entropy "
        "loses less accuracy than cross-entropy.",
        APL,
        "abstract",
        better(["nce"], ["ce"], UNIFORM_NOISE, asks="loses less"),
        "Of the normalized losses here only this one has the hyperparameters, none, of the loss that it normalizes.",
    ),
    Claim(
        "robust-underfit",
        "Robust losses by themselves underfit: joined with a passive loss, normalized cross-entropy and normalized "
        "focal loss are more accurate than alone.",
        APL,
        "abstract",
        (
            *better(["nce_mae", "nce_rce"], ["nce"], NOISE),
            *better(["nfl_mae", "nfl_rce"], ["nfl"], NOISE),
        ),
    ),
    Claim(
        "apl-high-noise",
        "Active-passive losses beat cross-entropy at 60 % uniform noise and more.",
        APL,
        "abstract",
        better(PAIRS, ["ce"], HIGH_NOISE),
        "The paper's evidence is on images with larger networks, and its rate is of labels that are wrong: of labels "
        "drawn anew from all of ten classes, 60 % make 54 % wrong.",
    ),
    Claim(
        "symmetric-tolerant",
        "A symmetric loss tolerates uniform noise: from clean labels the mean absolute error loses less accuracy than "
        "cross-entropy.",
        SYMMETRIC,
        "derived",
        better(["mae"], ["ce"], UNIFORM_NOISE, asks="loses less"),
        "What they prove is about the least mean loss; that training comes near it is not said.",
    ),
    Claim(
        "mae-underfits",
        "The mean absolute error underfits where there are many classes: on clean labels it is less accurate than "
        "cross-entropy.",
        GCE,
        "derived",
        better(["ce"], ["mae"], MANY_CLASSES),
        "Its gradient vanishes where the right class has a small probability.",
    ),
    Claim(
        "gce-noise",
        "Generalized cross-entropy lies between the mean absolute error and cross-entropy and beats both under noise.",
        GCE,
        "recalled",
        better(["gce"], ["ce", "mae"], NOISE),
    ),
    Claim(
        "tgce-over-gce",
        "Truncating generalized cross-entropy makes it more accurate under noise.",
        GCE,
        "recalled",
        better(["tgce"], ["gce"], NOISE),
    ),
    Claim(
        "comp-sum-clean",
        "Of the comp-sum losses, cross-entropy (tau = 1) is best on clean labels.",
        COMP,
        "recalled",
        better(["ce"], ["gce", "mae"], CLEAN_LABELS),
        "Here tau = 1 stands beside tau = 1.7 (gce) and tau = 2 (mae); the paper has 0, 0.5 and 1.5 as well, with "
        "residual networks on images.",
    ),
    Claim(
        "squentropy-accuracy",
        "Squentropy is more accurate than cross-entropy and than the rescaled square loss on clean labels.",
        SQUENTROPY,
        "abstract",
        better(["sqen"], ["ce", "rsq"], CLEAN_LABELS),
    ),
    Claim(
        "squentropy-calibrated",
        "Models trained with squentropy on clean labels are better calibrated than those trained with cross-entropy.",
        SQUENTROPY,
        "abstract",
        better(["sqen"], ["ce"], CLEAN_LABELS, metric="ece", smaller=True),
    ),
    Claim(
        "squentropy-variance",
        "The accuracy of squentropy varies less from seed to seed than that of cross-entropy.",
        SQUENTROPY,
        "abstract",
        better(["sqen"], ["ce"], CLEAN_LABELS, asks="varies less"),
    ),
    Claim(
        "poly1-over-ce",
        "Poly-1 is more accurate than cross-entropy on clean labels.",
        "PolyLoss (Leng et al., ICLR 2022, arXiv:2204.12511)",
        "abstract",
        better(["poly1"], ["ce"], CLEAN_LABELS),
        "The paper's evidence is on large image sets.",
    ),
    Claim(
        "bitempered-noise",
        "The bi-tempered logistic loss beats cross-entropy where many labels are wrong.",
        "Bi-tempered logistic loss (Amid et al., NeurIPS 2019, arXiv:1906.03361)",
        "recalled",
        better(["bitemp"], ["ce"], HIGH_NOISE),
    ),
    Claim(
        "taylor-noise",
        "Taylor cross-entropy beats cross-entropy under noise.",
        "Taylor cross-entropy (Feng et al., IJCAI 2020)",
        "recalled",
        better(["tce"], ["ce"], NOISE),
    ),
    Claim(
        "sce-noise",
        "Symmetric cross-entropy, with a reverse term, beats cross-entropy under noise.",
        "Symmetric cross-entropy (Wang et al., ICCV 2019, arXiv:1908.06112)",
        "recalled",
        better(["sce"], ["ce"], NOISE),
    ),
    Claim(
        "asymmetric-noise",
        "Asymmetric losses beat cross-entropy under noise.",
        "Asymmetric loss functions (Zhou et al., ICML 2021, arXiv:2106.03110)",
        "recalled",
        better(["agce", "aul", "ael"], ["ce"], NOISE),
    ),
    Claim(
        "js-noise",
        "The Jensen-Shannon loss beats cross-entropy under noise.",
        "Generalized Jensen-Shannon divergence loss (Englesson & Azizpour, NeurIPS 2021, arXiv:2105.04522)",
        "recalled",
        better(["js"], ["ce"], NOISE),
    ),
    Claim(
        "forward-correction",
        "Told the probabilities of the mistakes, forward and backward correction beat cross-entropy under "
        "class-dependent noise.",
        "Loss correction (Patrini et al., CVPR 2017, arXiv:1609.03944)",
        "recalled",
        better(["fwd", "bwd"], ["ce"], CLASS_NOISE),
    ),
    Claim(
        "mixup-memorises-less",
        "Mixup memorises fewer wrong labels than plain training.",
        "Mixup (Zhang et al., ICLR 2018, arXiv:1710.09412)",
        "recalled",
        better(["mixup"], ["ce"], NOISE, metric="memorised", smaller=True),
    ),
    Claim(
        "elr-memorises-less",
        "Early-learning regularisation keeps a network from memorising wrong labels.",
        "Early-learning regularisation (Liu et al., NeurIPS 2020, arXiv:2007.00151)",
        "recalled",
        better(["elr"], ["ce"], NOISE, metric="memorised", smaller=True),
    ),
    Claim(
        "sam-noise",
        "Sharpness-aware minimisation is robust to wrong labels: it beats plain training under noise.",
        "Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv:2010.01412)",
        "recalled",
        better(["sam"], ["ce"], NOISE),
    ),
    Claim(
        "zloss-topk",
        "The Z-loss has a better top-5 accuracy than cross-entropy on clean labels.",
        "Z-loss (de Brébisson & Vincent, 2016, arXiv:1604.08859)",
        "abstract",
        better(["zloss"], ["ce"], On((CLEAN,), classes=7), metric="top5"),
        "The paper's evidence is a language model with a large vocabulary.",
    ),
    Claim(
        "pskd-calibrated",
        "Progressive self-distillation makes a network more accurate and better calibrated than plain training.",
        "Progressive self-knowledge distillation (Kim et al., ICCV 2021, arXiv:2006.12000)",
        "recalled",
        (
            *better(["pskd"], ["ce"], CLEAN_LABELS),
            *better(["pskd"], ["ce"], CLEAN_LABELS, metric="ece", smaller=True),
        ),
    ),
)

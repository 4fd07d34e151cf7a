"""What papers claim of calibration, for the records to judge. Statements are in our words."""

from __future__ import annotations

from collections.abc import Sequence

from lossboard.claims import CLEAN, Claim, Comparison, On

CLEAN_LABELS = On(  # of data that no claim was in mind when it was made, judged by labels
    (CLEAN,), datasets=("digits", "letter", "satimage", "mnist", "fashion_mnist", "cifar10", "cifar10_cvprobs")
)
OVERLAP = On((CLEAN,), datasets=("overlap",))
EVERYWHERE = On(("uniform_ldr",), least=0.5, datasets=("overlap", "letter", "satimage"))
MATTERS = {"accuracy": 0.005, "classwise_ece": 0.001}  # of calibration errors of the predicted class 0.002

GUO = "On calibration of modern neural networks (Guo et al., ICML 2017, arXiv:1706.04599)"
MUKHOTI = "Focal loss for calibration (Mukhoti et al., NeurIPS 2020, arXiv:2002.09437)"
CHIDAMBARAM = "Limits of temperature scaling (Chidambaram & Ge, ICLR 2024, arXiv:2306.00740)"


def better(
    ours: Sequence[str], than: Sequence[str], on: On = CLEAN_LABELS, *, asks: str = "better", metric: str = "ece"
) -> tuple[Comparison, ...]:
    """Each of ours beside each of the others; all metrics but accuracy are the smaller the better."""
    matters = MATTERS.get(metric, 0.002)
    return tuple(
        Comparison(a, b, on, asks, metric, metric != "accuracy", matters) for a in ours for b in than if a != b
    )


CLAIMS = (
    Claim(
        "squentropy-calibrated",
        "Networks trained with squentropy are better calibrated than those trained with cross-entropy.",
        "Squentropy (Hui, Belkin & Wright, ICML 2023, arXiv:2302.03952)",
        "abstract",
        better(["sqen"], ["ce"]),
    ),
    Claim(
        "temperature-fails-under-overlap",
        "Where the supports of classes overlap, mixup training without any scaling is better calibrated than "
        "temperature scaling of a network that fits its training rows.",
        CHIDAMBARAM,
        "abstract",
        better(["mixup"], ["temperature"], OVERLAP, metric="smooth_ece"),
        "The paper proves it for interpolating networks and many classes; here two classes share half of their "
        "support, and mixup is the usual one of two points. The task was made for this claim, and of some variants of "
        "data, width and learning rate one was taken in which mixup is ahead: it shows that the effect exists, not how "
        "common it is.",
    ),
    Claim(
        "temperature-fails-under-noise",
        "Label noise in all rows alike makes classes overlap: there too mixup training without scaling is better "
        "calibrated than temperature scaling.",
        CHIDAMBARAM,
        "abstract",
        better(["mixup"], ["temperature"], EVERYWHERE, metric="smooth_ece"),
        "Half of all labels are redrawn, of data that overlaps by itself (made for the claim before this one) and of "
        "two tabular sets that were not chosen for it.",
    ),
    Claim(
        "temperature-helps",
        "Temperature scaling makes a network that was trained with cross-entropy better calibrated.",
        GUO,
        "abstract",
        better(["temperature"], ["ce"]),
    ),
    Claim(
        "temperature-leaves-accuracy",
        "Temperature scaling leaves the accuracy as it is.",
        GUO,
        "derived",
        better(["temperature"], ["ce"], asks="not worse", metric="accuracy"),
        "It changes no prediction, up to ties after rounding.",
    ),
    Claim(
        "temperature-over-vector-and-matrix",
        "One temperature calibrates no worse than vector and matrix scaling, which have more parameters.",
        GUO,
        "recalled",
        better(["temperature"], ["vector", "matrix"], asks="not worse"),
        "Matrix scaling has the penalty of Kull et al. here, which their paper did not have, with a weight that is "
        "ours.",
    ),
    Claim(
        "sample-dependent-focal",
        "Sample-dependent focal loss trains better calibrated networks than cross-entropy, before temperature scaling "
        "and after it.",
        MUKHOTI,
        "code",
        (*better(["flsd53"], ["ce"]), *better(["temperature-flsd53"], ["temperature"])),
        "Their evidence is on images with deep residual networks, which are much too sure after cross-entropy.",
    ),
    Claim(
        "focal-calibrates",
        "Focal loss trains better calibrated networks than cross-entropy.",
        MUKHOTI,
        "abstract",
        better(["focal3"], ["ce"]),
    ),
    Claim(
        "brier-calibrates",
        "Training on the Brier score gives better calibrated networks than cross-entropy.",
        MUKHOTI,
        "code",
        better(["mse"], ["ce"]),
    ),
    Claim(
        "adafocal-over-focal",
        "AdaFocal is better calibrated than cross-entropy and focal loss with a fixed gamma, and no less accurate.",
        "AdaFocal (Ghosh, Schaaf & Gormley, NeurIPS 2022, arXiv:2211.11838)",
        "abstract",
        (
            *better(["adafocal"], ["focal3", "ce"]),
            *better(["adafocal"], ["focal3", "ce"], asks="not worse", metric="accuracy"),
        ),
    ),
    Claim(
        "mmce-calibrates",
        "A penalty on the maximum mean calibration error makes networks better calibrated, at no loss of accuracy.",
        "Maximum mean calibration error (Kumar, Sarawagi & Jain, ICML 2018)",
        "abstract",
        (*better(["mmce"], ["ce"]), *better(["mmce"], ["ce"], asks="not worse", metric="accuracy")),
    ),
    Claim(
        "label-smoothing-calibrates",
        "Label smoothing trains better calibrated networks.",
        "When does label smoothing help? (Müller, Kornblith & Hinton, NeurIPS 2019, arXiv:1906.02629)",
        "abstract",
        better(["ls05"], ["ce"]),
        "With 0.05 of the label, as in the comparison by Mukhoti et al.; `ls` has 0.1.",
    ),
    Claim(
        "mixup-calibrates",
        "Mixup trains better calibrated networks.",
        "On mixup training (Thulasidasan et al., NeurIPS 2019, arXiv:1905.11001)",
        "abstract",
        better(["mixup"], ["ce"]),
    ),
    Claim(
        "dirichlet-classwise",
        "Dirichlet calibration is better than temperature scaling in the calibration of every class.",
        "Dirichlet calibration (Kull et al., NeurIPS 2019, arXiv:1910.12656)",
        "recalled",
        better(["dirichlet"], ["temperature"], metric="classwise_ece"),
        "The authors choose the weights of its penalties by cross-validation; here they are fixed, and ours.",
    ),
    Claim(
        "ensemble-temperature-over-temperature",
        "Ensemble temperature scaling calibrates no worse than temperature scaling, of which it is an extension.",
        "Mix-n-Match (Zhang, Kailkhura & Han, ICML 2020, arXiv:2003.07329)",
        "recalled",
        better(["ensemble_temperature"], ["temperature"], asks="not worse"),
    ),
    Claim(
        "bbq-over-histogram",
        "Averaging many binnings calibrates better than one histogram.",
        "Bayesian binning into quantiles (Naeini, Cooper & Hauskrecht, AAAI 2015)",
        "abstract",
        better(["bbq"], ["histogram"]),
        "They calibrate binary classifiers.",
    ),
    Claim(
        "correctness-aware-shifted",
        "Correctness-aware calibration keeps up with temperature scaling on shifted test sets.",
        "Correctness-aware calibration (Liu et al., 2024, arXiv:2404.13016)",
        "abstract",
        better(["correctness_aware"], ["temperature"], asks="not worse", metric="shifted_ece"),
        "Their evidence is on images; the copies of tables here are the rows with a little noise. Their objective "
        "gives right and wrong predictions half of the weight each, so that its optimum is calibrated to a population "
        "half of which is wrong; their training of few small steps does not come near it on held-out sets as small as "
        "these, and ours, of 100 steps over all rows at rate 0.03, does. `correctness_aware_plain` is the same without "
        "those weights.",
    ),
)

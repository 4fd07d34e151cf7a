"""What papers claim of adversarial robustness, for the records to judge. Statements are in our words."""

from __future__ import annotations

from dataclasses import dataclass

from lossboard.claims import Claim, Comparison, On
from lossboard.protocol import Task

TAUS = {
    "0": "adv_comp_sum_tau0",
    "0.5": "adv_comp_sum_tau05",
    "1": "adv_comp_sum",
    "1.5": "adv_comp_sum_tau15",
    "2": "adv_comp_sum_tau2",
}
COMP_SUM = "Smooth adversarial comp-sum losses (Mao, Mohri & Zhong, ICML 2023, arXiv:2304.07288)"
MADRY = "Adversarial training (Madry et al., ICLR 2018, arXiv:1706.06083)"
POWER = "Intriguing properties of adversarial examples (Cubuk et al., ICLR workshop 2018, arXiv:1711.02846)"


@dataclass(frozen=True)
class Under(On):
    """Tasks whose attacks are bounded in a norm; ``called`` is what the datasets have in common."""

    norm: str = "linf"
    called: str = ""

    def holds(self, task: Task) -> bool:
        wanted = not self.datasets or task.dataset in self.datasets
        return bool(wanted and task.parts["threat"].norm == self.norm)

    @property
    def words(self) -> str:
        return f"attacks bounded in the norm {self.norm}" + f", on {self.called}" * bool(self.called)


LINF = Under()
IMAGES = Under(datasets=("digits", "mnist", "fashion_mnist", "cifar10", "cifar100"), called="images")


def beside(
    ours: str, other: str, *metrics: str, on: On = LINF, asks: str = "better", matters: float = 0.005
) -> tuple[Comparison, ...]:
    """One beside another in each of these metrics."""
    return tuple(Comparison(ours, other, on, asks, metric, matters=matters) for metric in metrics)


CLAIMS = (
    *(
        Claim(
            f"comp-sum-over-trades-tau-{tau.replace('.', '-')}",
            f"The smooth adversarial comp-sum loss with tau = {tau} is more accurate than TRADES, under attack and "
            "without.",
            COMP_SUM,
            "abstract",
            beside(id, "trades", "robust", "clean", on=IMAGES),
            "The abstract claims it of the family; which tau was used is not confirmed. Networks, data and the number "
            "of steps are much smaller here"
            + ("." if tau in ("0", "0.5", "1") else ", and with a bounded loss networks hardly learn in so few."),
        )
        for tau, id in TAUS.items()
    ),
    Claim(
        "adversarial-training-robust",
        "Training on what PGD finds makes networks more accurate under attack than training on the inputs alone.",
        MADRY,
        "abstract",
        beside("at", "standard", "robust"),
    ),
    Claim(
        "robustness-costs-accuracy",
        "Networks trained without an adversary are the more accurate where nobody attacks.",
        "TRADES (Zhang et al., ICML 2019, arXiv:1901.08573)",
        "abstract",
        beside("standard", "at", "clean") + beside("standard", "trades", "clean"),
        "The abstract speaks of a trade-off between the two accuracies.",
    ),
    Claim(
        "mart-over-trades",
        "Counting misclassified samples more makes networks more robust than TRADES.",
        "MART (Wang et al., ICLR 2020)",
        "recalled",
        beside("mart", "trades", "robust"),
    ),
    Claim(
        "trades-over-at",
        "TRADES is more robust than adversarial training.",
        "TRADES (Zhang et al., ICML 2019, arXiv:1901.08573)",
        "recalled",
        beside("trades", "at", "robust"),
    ),
    Claim(
        "dro-worst-class",
        "Weights from KL-regularised distributionally robust optimisation raise the robust accuracy of the worst class "
        "over adversarial training, at no loss of the average.",
        "Doubly robust instance-reweighted adversarial training (Sow et al., ICLR 2024, arXiv:2308.00311)",
        "secondary",
        beside("dro_at", "at", "worst_class") + beside("dro_at", "at", "robust", asks="not worse"),
        "Here in its simple form, with weights of the batch, and a temperature that is unverified.",
    ),
    Claim(
        "weight-perturbation",
        "Adversarial weight perturbation makes adversarial training and TRADES more robust.",
        "Adversarial weight perturbation (Wu, Xia & Wang, NeurIPS 2020, arXiv:2004.05884)",
        "abstract",
        beside("at_awp", "at", "robust") + beside("trades_awp", "trades", "robust"),
    ),
    Claim(
        "bounds-certify",
        "Training with interval bounds makes more of the test rows certifiably robust than adversarial training.",
        "Interval bound propagation (Gowal et al. 2018, arXiv:1810.12715)",
        "abstract",
        beside("ibp", "at", "certified"),
    ),
    Claim(
        "bounds-tighten",
        "Training with interval bounds makes them tighter.",
        "Understanding interval bound propagation (Mao et al., ICLR 2024, arXiv:2306.10426)",
        "abstract",
        beside("ibp", "standard", "tightness"),
    ),
    Claim(
        "power-law",
        "That the share of rows which an attack fools grows as a power of eps at small eps fits as well after "
        "adversarial training as after training on the inputs alone.",
        POWER,
        "abstract",
        beside("at", "standard", "power_fit", on=IMAGES, asks="not worse", matters=0.05),
        "How well it fits is R² of logarithms from eps / 8 to eps: `power_fit`. A comparison says nothing of its "
        "level, which the chart of errors against eps shows, with the exponents.",
    ),
)

"""What papers claim of compressors, for the records to judge. Statements are in our words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossboard.claims import Claim, Comparison, On
from lossboard.protocol import Task
from suites.compression.settings import Setting


@dataclass(frozen=True)
class At(On):
    """Tasks whose weights, and they alone, get so many bits, or of whose weights so much is cut."""

    bits: tuple[int, ...] = ()
    cut: tuple[float, ...] = ()
    models: tuple[str, ...] = ()  # none: all
    whole_rows: bool = False  # only where a row of weights shares a scale
    told: str = ""

    def holds(self, task: Task) -> bool:
        if "setting" not in task.parts:
            return False
        setting: Setting = task.parts["setting"]
        fits = setting.bits in self.bits if self.bits else setting.sparsity in self.cut
        fits = fits and not setting.activations and (not self.whole_rows or setting.group == 0)
        return fits and (not self.models or task.model.kind in self.models)

    @property
    def words(self) -> str:
        return self.told


FEW_BITS = At(bits=(3, 4), told="3 and 4 bits")
TWO_BITS = At(bits=(2,), told="2 bits")
ROWS = At(bits=(2, 3), whole_rows=True, told="2 and 3 bits, a scale for each row")
CUT = At(cut=(0.5, 0.8, 0.9, 0.95), told="half to 95 % cut")
NINE_TENTHS = At(cut=(0.9,), told="90 % cut")
MUCH = At(cut=(0.8, 0.9, 0.95), told="80 to 95 % cut")

ADAROUND = "AdaRound (Nagel et al., ICML 2020, arXiv:2004.10568)"
GPTQ = "GPTQ (Frantar et al., ICLR 2023, arXiv:2210.17323)"
BAQ = "BAQ (Zhang et al., 2025, arXiv:2506.05664)"
GMP = "Global magnitude pruning (Gupta et al., 2022, arXiv:2209.14624)"
JACKPOT = "Lottery jackpots (Zhang et al., 2021, arXiv:2104.08700)"
SPLIT = "Compute-optimal quantisation-aware training (Dremov et al., ICLR 2026, arXiv:2509.22935)"
WANDA = "Wanda (Sun et al., ICLR 2024, arXiv:2306.11695)"
EVOPRESS = "EvoPress (Sieberling et al., ICML 2025, arXiv:2410.14649)"
LSQ = "LSQ (Esser et al., ICLR 2020, arXiv:1902.08153)"


def against(ours: str, others: Sequence[str], on: On, *, asks: str = "better") -> tuple[Comparison, ...]:
    """Ours beside each of the others."""
    return tuple(Comparison(ours, other, on, asks) for other in others)


CLAIMS = (
    Claim(
        "adaround-over-nearest",
        "Weights that are rounded down or up as outputs want it keep more accuracy than weights rounded to nearest.",
        ADAROUND,
        "abstract",
        against("adaround", ["rtn"], FEW_BITS),
    ),
    Claim(
        "gptq-over-nearest",
        "Rounding columns in turn, the later for the earlier, keeps more accuracy than rounding each alone.",
        GPTQ,
        "recalled",
        against("gptq", ["rtn"], FEW_BITS),
    ),
    Claim(
        "baq-over-uniform",
        "Bits given to columns by what they lose keep more accuracy than as many bits given alike, both with GPTQ.",
        BAQ,
        "abstract",
        against("baq", ["gptq"], ROWS),
        "Files of the same length: how many levels a column has is written too, and paid for in levels, which the "
        "paper does not ask; dear where a layer has few rows. Its largest gains are at 2 bits of language models.",
    ),
    Claim(
        "magnitude-is-enough",
        "Cutting the smallest weights of the whole network is no worse than choosing them in complex ways, without "
        "training and with it.",
        GMP,
        "abstract",
        (
            *against("global_magnitude", ["lamp", "rdprune"], MUCH, asks="not worse"),
            *against("fine_tuned", ["jackpot", "sam_pruned"], MUCH, asks="not worse"),
        ),
        "Methods that train are compared with each other, after as many gradients. evopress_sparse and sparsegpt are "
        "not here: they also change the weights that they keep.",
    ),
    Claim(
        "one-threshold-for-all",
        "One threshold for all layers keeps more accuracy than the same share of each.",
        GMP,
        "recalled",
        against("global_magnitude", ["magnitude"], CUT),
    ),
    Claim(
        "jackpots-over-magnitude",
        "A mask that is learned while the weights stay as they are keeps more accuracy than the mask of the largest "
        "weights, at 90 % cut.",
        JACKPOT,
        "recalled",
        against("jackpot", ["global_magnitude", "fine_tuned"], NINE_TENTHS),
        "Of global_magnitude and jackpot both keep the trained weights as they are, and one trains the mask. "
        "fine_tuned has as many gradients, and trains the weights that are kept.",
    ),
    Claim(
        "split-of-training",
        "Of the same training, a part in full precision before weights are rounded keeps more accuracy than training "
        "with rounded weights throughout.",
        SPLIT,
        "secondary",
        against("qat_half", ["qat"], At(bits=(2, 3, 4), told="2 to 4 bits")),
        "Here the training before compression counts for neither.",
    ),
    Claim(
        "longer-than-a-tenth",
        "With few bits a tenth of the training with rounded weights is too little: half of it keeps more accuracy.",
        SPLIT,
        "secondary",
        against("qat_half", ["qat_tenth"], TWO_BITS),
    ),
    Claim(
        "inputs-matter",
        "Magnitude times the size of the inputs chooses weights better than magnitude alone, without any training.",
        WANDA,
        "abstract",
        against("wanda", ["magnitude"], At(cut=(0.5,), told="half cut")),
        "The paper's evidence is on large language models.",
    ),
    Claim(
        "search-over-uniform",
        "Bits moved between layers by evolution keep more accuracy than the same bits for every layer.",
        EVOPRESS,
        "recalled",
        against("evopress", ["gptq"], At(bits=(3,), told="3 bits")),
        "Layers with the bits that were chosen are quantised as gptq does: equal bits would give what gptq gives. "
        "Where one layer has nearly all weights there is nothing to move.",
    ),
    Claim(
        "search-over-uniform-shares",
        "Shares of zeros moved between layers by evolution keep more accuracy than the same share of every layer.",
        EVOPRESS,
        "recalled",
        against("evopress_sparse", ["sparsegpt"], CUT),
        "Layers with the shares that were chosen are pruned as sparsegpt does.",
    ),
    Claim(
        "learned-steps",
        "Steps that are trained with the weights keep more accuracy than steps that follow the weights.",
        LSQ,
        "recalled",
        against("lsq", ["qat"], At(bits=(2, 3), told="2 and 3 bits")),
        "qat has zero-points, lsq has none.",
    ),
)

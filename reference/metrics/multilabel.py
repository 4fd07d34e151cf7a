"""All metrics of multi-label predictions on one set of rows."""

import math

from torch import Tensor

from reference.metrics.multilabel_decisions import decision_metrics, first
from reference.metrics.multilabel_ranking import (
    aucs,
    average_precisions,
    coverage,
    entries,
    label_ranking_average_precision,
    labels_of_rows,
    ndcg_at,
    precision_at,
    propensities,
    propensity_scored_precision_at,
    ranking_loss,
    rows_of_labels,
)

CUTS = (1, 3, 5)  # of what is measured among the first k labels, as far as there are labels
TOP = 3  # labels that the top-3 decisions take


def frequency_groups(counts: Tensor, few: int = 20, many: int = 100) -> dict[str, Tensor]:
    """Which labels are head, medium and tail by the training rows that have them, (L,) each.

    Head has more than ``many``, tail fewer than ``few``. The limits are those customary for long tails of images,
    recalled and not read in a paper.
    """
    return {"head": counts > many, "medium": (counts >= few) & (counts <= many), "tail": counts < few}


def ranking_metrics(scores: Tensor, target: Tensor, counts: Tensor, rows: int) -> dict[str, float]:
    """What the order of scores (N, L) says; ``counts`` (L,) of the ``rows`` training rows have each label.

    ``map`` is the mean over the labels that some row has, ``map_all`` counts the others as 0; ``map_head``,
    ``map_medium`` and ``map_tail`` are ``map`` within groups. What no label or row defines is left out.
    """
    by_label, by_row = rows_of_labels(scores, target), labels_of_rows(scores, target)
    ap, auc = average_precisions(by_label), aucs(by_label)
    found: dict[str, Tensor | float] = {
        "map": ap.nanmean(),
        "map_all": ap.nan_to_num(0.0).mean(),
        **{f"map_{name}": ap[group].nanmean() for name, group in frequency_groups(counts).items()},
        "macro_auc": auc.nanmean(),
        "micro_auc": aucs(entries(scores, target))[0],
        "lrap": label_ranking_average_precision(by_row),
        "ranking_loss": ranking_loss(by_row),
        "coverage": coverage(by_row),
        "one_error": 1 - precision_at(1, by_row),
    }
    propensity = propensities(counts, rows)
    for k in (k for k in CUTS if k <= scores.shape[-1]):
        found[f"p{k}"] = precision_at(k, by_row)
        found[f"ndcg{k}"] = ndcg_at(k, by_row)
        found[f"psp{k}"] = propensity_scored_precision_at(k, by_row, propensity)
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


def multilabel_metrics(
    scores: Tensor, target: Tensor, *, counts: Tensor, rows: int, fixed: float, tuned: Tensor
) -> dict[str, float]:
    """Every metric of scores (N, L) beside targets (N, L).

    Decisions are taken at a ``fixed`` threshold (0 of logits, 0.5 of probabilities), at ``tuned`` ones, (L,) or 0-d,
    from validation rows, and by taking the 3 highest labels of each row; their names begin so.
    """
    found = ranking_metrics(scores, target, counts, rows)
    decided = {"fixed": scores > fixed, "tuned": scores.double() > tuned, "top3": first(TOP, scores)}
    for how, decisions in decided.items():
        found |= {f"{how}_{name}": value for name, value in decision_metrics(decisions, target).items()}
    return found

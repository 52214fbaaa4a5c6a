"""How good a ranking is where the right labels are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_noisy.reports.label_issues import LabelIssues


@dataclass(frozen=True)
class Quality:
    """Of the samples whose right label is known; shares in [0, 1], None where nothing defines them."""

    samples: int
    """How many these are."""

    noise_rate: float
    """Share of wrong labels."""

    precision: float | None
    """Share of the labels that count as wrong that are; None where none counts."""

    recall: float | None
    """Share of the wrong labels that count as wrong; None where none is wrong."""

    auroc: float | None
    """Area under the receiver operating characteristic of the score; None where all labels are wrong, or none."""

    average_precision: float | None
    """Of the score; None where none is wrong."""

    corrected: float
    """Share of right labels after the correction."""


def quality(issues: LabelIssues) -> Quality | None:
    """How good the ranking is; None where no right label is known."""
    if issues.truth is None or not (known := issues.truth >= 0).any():
        return None
    truth, score = issues.truth[known], issues.score[known]
    is_wrong, called = issues.given[known] != truth, issues.wrong[known]
    hits, both = int((is_wrong & called).sum()), 0 < is_wrong.sum() < len(is_wrong)
    return Quality(
        samples=len(truth),
        noise_rate=float(is_wrong.mean()),
        precision=hits / int(called.sum()) if called.any() else None,
        recall=hits / int(is_wrong.sum()) if is_wrong.any() else None,
        auroc=float(roc_auc_score(is_wrong, score)) if both else None,
        average_precision=float(average_precision_score(is_wrong, score)) if is_wrong.any() else None,
        corrected=float(np.mean(issues.corrected[known] == truth)),
    )

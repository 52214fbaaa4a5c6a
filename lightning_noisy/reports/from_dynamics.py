"""Ranked labels from how their samples were learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_noisy.functional.mixture import beta_mixture
from lightning_noisy.reports.label_issues import SCORE_BINS, UNSEEN, LabelIssues, NoiseRate

CUT = 0.5
_SURE, _DOUBTED = 0.9, 0.3
_COLUMNS = (
    "confidence", "trend", "variability", "final_confidence", "margin", "forgotten", "last_forgotten", "first_learned",
    "last_prediction", "modal_share", "visits",
)  # fmt: skip


def issues_from_dynamics(
    table: Mapping[str, NDArray[Any]],
    samples: NDArray[np.str_],
    kind: Literal["path", "row"],
    class_names: Sequence[str],
    truth: NDArray[np.int64] | None = None,
    remarks: Sequence[str] = (),
    curves: NDArray[np.floating] | None = None,
) -> LabelIssues:
    r"""Rank labels by the mean confidence that training had in them.

    The score of a label is :math:`1 - \bar p`, with :math:`\bar p` the mean over epochs of the probability of the given
    class. Suggested is the class that was predicted in most epochs; a label counts as wrong where that is another one
    and the score is at least 0.5. The share of such labels is the estimated noise rate. Its interval reaches from those
    that nine of ten epochs contradict to all whose score is above 0.3: a wide one, since neither the errors of the
    network nor the wrong labels that it has learned can be told apart from within. Samples that were never seen have a
    score of 0, are flagged, and count for no share.

    Args:
        table: Figures of each sample, as :meth:`TrainingDynamics.table` gives them, (N,) each.
        samples: Path or row of each sample, (N,).
        kind: Which of them.
        class_names: Names of the K classes.
        truth: Right labels, (N,), -1 where nobody knows one.
        remarks: What a reader has to know first.
        curves: Confidence by epoch, (N, E).
    """
    unseen = table["visits"] == 0
    given = np.maximum(table["label"], 0).astype(np.int64)
    suggested = np.where(unseen, given, table["modal_prediction"]).astype(np.int64)
    suggested = np.where(suggested < len(class_names), suggested, given)  # an output that stands for no class
    score = np.where(unseen, 0.0, 1 - table["confidence"].astype(np.float64)).clip(0, 1)
    return LabelIssues(
        samples=samples,
        kind=kind,
        class_names=tuple(class_names),
        given=given,
        suggested=suggested,
        score=score,
        cut=CUT,
        noise_rate=_noise_rate(score[~unseen], (suggested != given)[~unseen], table["modal_share"][~unseen]),
        columns={name: table[name] for name in _COLUMNS},
        components=_components(score[~unseen]),
        curves=curves,
        truth=truth,
        marked={UNSEEN: unseen} if unseen.any() else {},
        remarks=tuple(remarks),
    )


def _noise_rate(score: NDArray[np.float64], other: NDArray[np.bool_], modal_share: NDArray[np.float64]) -> NoiseRate:
    if len(score) == 0:
        return NoiseRate(0.0, 0.0, 1.0)
    share = float(np.mean((score >= CUT) & other))
    sure = float(np.mean((score >= CUT) & other & (modal_share > _SURE)))
    return NoiseRate(share, min(sure, share), max(share, float(np.mean(score > _DOUBTED))))


def _components(score: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """How many scores a beta mixture expects in each bin; nothing where it finds one component only."""
    if len(score) == 0:
        return {}
    fit = beta_mixture(torch.from_numpy(score))
    low, high = fit.bounds
    if not high > low or float(fit.weights[1]) == 0:
        return {}
    middles = (np.arange(SCORE_BINS) + 0.5) / SCORE_BINS
    scaled = (middles - low) / (high - low)
    inside = (scaled > 0) & (scaled < 1)
    densities = fit.densities(torch.from_numpy(scaled[inside])).numpy()
    counts = np.zeros((2, SCORE_BINS))
    counts[:, inside] = densities * len(score) * 0.9 / (high - low) / SCORE_BINS
    return dict(zip(("taken for right", "taken for wrong"), counts, strict=True))
